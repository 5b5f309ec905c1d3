"""requests, and with it docker's client, over an engine connection."""

import time
from typing import Any, Dict, Optional

import docker
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from xscontainer.engine.connection import Connection, EngineStream
from xscontainer.engine.exchange import Answer, decode_json, exchange
from xscontainer.engine.share import Share
from xscontainer.errors import EngineLost, EngineTimeout, TransportLost

BASE_URL = "http+engine://engine"
IDEMPOTENT = ("GET", "HEAD")


class EngineResponse(requests.Response):
    """A response from a guest: its JSON is decoded within bounds, its text never guessed at."""

    def json(self, **kwargs: Any) -> Any:
        """:raises ValueError: it is none; docker's client then takes the body for the engine's words."""
        return decode_json(self.content)


class EngineAdapter(BaseAdapter):
    """Carries requests over one stream, which it keeps for the next. For one thread at a time."""

    def __init__(self, connection: Connection, most_bytes: int) -> None:
        super().__init__()
        self._connection = connection
        self._most_bytes = most_bytes
        self._share = Share()
        self._stream: Optional[EngineStream] = None

    def send(self, request: requests.PreparedRequest, stream: bool = False, timeout: Any = None, verify: Any = True,
             cert: Any = None, proxies: Any = None) -> requests.Response:
        """:param timeout: seconds for the whole exchange.

        :raises XSContainerError: as ``exchange`` and Connection.open_stream.
        """
        deadline = time.monotonic() + float(timeout)
        reused = self._fresh_stream(deadline)
        try:
            answer = self._exchange(request, deadline)
        except EngineLost:
            # The engine may have hung up an idle stream just now, without having seen the request.
            if not reused or request.method not in IDEMPOTENT:
                raise
            self._fresh_stream(deadline)
            answer = self._exchange(request, deadline)
        return _response(request, answer)

    def _fresh_stream(self, deadline: float) -> bool:
        """Have a stream that can carry a request; say whether it has carried one before."""
        if self._stream is not None and self._stream.stale:
            self.close()
        if self._stream is not None:
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            raise EngineTimeout("The engine did not answer in time.")
        self._stream = self._connection.open_stream(left)
        return False

    def _exchange(self, request: requests.PreparedRequest, deadline: float) -> Answer:
        opened, self._stream = self._stream, None
        if opened is None:
            raise TransportLost("The connection to the VM was closed.")
        opened.deadline = deadline
        try:
            body: Any = request.body
            content = body.encode("utf-8") if isinstance(body, str) else body
            headers: Any = request.headers
            answer = exchange(opened, request.method or "", request.path_url, content, headers, self._most_bytes,
                              self._share.take)
        except BaseException:
            opened.close()
            raise
        if answer.keep:
            self._stream = opened
        else:
            opened.close()
        return answer

    @property
    def idle(self) -> bool:
        """Whether a stream is at hand that can carry a request."""
        return self._stream is not None and not self._stream.stale

    def forget(self) -> None:
        """The last answer was dealt with."""
        self._share.give_back()

    def close(self) -> None:
        opened, self._stream = self._stream, None
        if opened is not None:
            opened.close()


def _response(request: requests.PreparedRequest, answer: Answer) -> EngineResponse:
    response = EngineResponse()
    response.request = request
    response.url = request.url or ""
    response.status_code = answer.status
    response.reason = answer.reason
    response.headers = CaseInsensitiveDict(answer.headers)
    response.encoding = "utf-8"  # else requests would guess, at length, from whatever a guest sends
    response._content, response._content_consumed = answer.body, True
    return response


class EngineClient(docker.APIClient):
    """docker's client without its environment: no DOCKER_* variables, no ~/.docker, no proxies, no redirects."""

    def __init__(self, adapter: EngineAdapter, version: str, timeout: float) -> None:
        # Not APIClient.__init__: it reads the caller's ~/.docker and makes connections of its own.
        requests.Session.__init__(self)
        self.trust_env = False
        self.headers.clear()  # offering gzip, among others
        self.adapters.clear()
        self.mount(BASE_URL, adapter)
        self.base_url = BASE_URL
        self.timeout = timeout
        self._version = version
        self._general_configs: Dict[str, Any] = {}
        self.adapter = adapter

    def restart(self, container: str) -> None:  # type: ignore[override, unused-ignore]
        """docker's own says how long to wait for the container's end: it would overrule what that one asks for."""
        self._raise_for_status(self._post(self._url("/containers/{0}/restart", container)))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """An engine sends nobody elsewhere; a guest that tries gets no other request."""
        return None
