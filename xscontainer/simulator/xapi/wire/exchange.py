"""A request or an answer that is too large for memory: its handler reads and writes the connection itself."""

from http.cookies import CookieError, SimpleCookie
from typing import Callable, Dict, Optional
from urllib.parse import parse_qsl

REASONS = {200: "OK", 302: "Moved Temporarily", 404: "Not Found"}


class Exchange:
    """One request with its query and headers (lower case); its body is still to be read.

    length: of the body, None if the request does not say. read(most): the next bytes of it, b"" at the end of the
    stream. write(data): sends. proxy: what stunnel says of a connection over HTTPS, else "".
    """

    def __init__(
        self, method: str, target: str, headers: Dict[str, str], local: bool, read: Callable[[int], bytes],
        write: Callable[[bytes], None], proxy: str = "",
    ) -> None:
        self.target = target
        self.proxy = proxy
        self.path, _mark, query = target.partition("?")
        self.name = "{} {}".format(method, self.path)
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.headers = headers
        self.local = local
        self.read = read
        self.write = write
        self.begun = False
        length = headers.get("content-length", "")
        self.length: Optional[int] = int(length) if length.isdigit() else None

    def named(self, name: str) -> str:
        """Return the value of the query, else of a cookie, with that name; "" if there is none."""
        if name in self.query:
            return self.query[name]
        try:
            cookie = SimpleCookie(self.headers.get("cookie", "")).get(name)
        except CookieError:
            return ""
        return cookie.value if cookie is not None else ""

    def begin(self, status: int, headers: Dict[str, str]) -> None:
        """Send the head of the answer; what follows ends with the connection."""
        head = ["HTTP/1.1 {} {}".format(status, REASONS[status]), "connection: close"]
        head.append("cache-control: no-cache, no-store")
        head += ["{}: {}".format(name, value) for name, value in headers.items()]
        if status != 200:
            head.append("content-length: 0")
        self.begun = True
        self.write(("\r\n".join(head) + "\r\n\r\n").encode())
