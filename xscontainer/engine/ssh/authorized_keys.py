"""Read and change the text of an authorized_keys file as OpenSSH does (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").

The file is a guest's. Other lines than ours stay byte for byte.
"""

import base64
import binascii
import datetime
import fnmatch
import io
import ipaddress
import re
from typing import List, NamedTuple, Optional, Tuple

# The options of OpenSSH 9. sshd ignores a line with any other option.
_OPTIONS = frozenset(
    "agent-forwarding cert-authority command environment expiry-time from no-agent-forwarding no-port-forwarding "
    "no-pty no-touch-required no-user-rc no-x11-forwarding permitlisten permitopen port-forwarding principals pty "
    "restrict tunnel user-rc verify-required x11-forwarding".split())
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="(.*)")?\Z', re.DOTALL)
_KEY = re.compile(rb"([a-z0-9@.-]+)[ \t]+([A-Za-z0-9+/]+=*)(?=[ \t\r]|\Z)")
_EXPIRY = re.compile(r"([0-9]{8})([0-9]{4}(?:[0-9]{2})?)?(Z?)\Z")


class Line(NamedTuple):
    """One line with a key.

    :ivar number: from 1. :ivar head: the text before the key, with blanks. :ivar key: the public key as SSH sends it.
    :ivar tail: the text behind the key, with the comment and the line end.
    """

    number: int
    head: bytes
    key: bytes
    tail: bytes

    @property
    def options(self) -> str:
        """The options as text."""
        return self.head.decode("utf-8", "replace").strip()


class Circumstances(NamedTuple):
    """The facts that options are compared with.

    :ivar address: this host's address as the guest sees it; "" if unknown.
    :ivar now, utc: the guest's clock as YYYYMMDDHHMMSS, in its own zone and in UTC; "" if unknown.
    """

    address: str = ""
    now: str = ""
    utc: str = ""


def lines(text: bytes) -> "List[Line]":
    """Return the lines with a key. Comments, and lines that sshd cannot read, are left out."""
    found = []
    for number, raw in enumerate(_split(text), 1):
        line = _line(number, raw)
        if line is not None:
            found.append(line)
    return found


def _split(text: bytes) -> "List[bytes]":
    # Only a line feed ends a line: a carriage return is part of the comment.
    return io.BytesIO(text).readlines()


def _line(number: int, raw: bytes) -> Optional[Line]:
    blanks = len(raw) - len(raw.lstrip(b" \t"))
    if raw[blanks:blanks + 1] in (b"", b"#", b"\n", b"\r"):
        return None
    for start in (blanks, _behind_options(raw, blanks)):
        found = _KEY.match(raw.rstrip(b"\n"), start)
        key = _decoded(found.group(1), found.group(2)) if found else None
        if found and key is not None:
            return Line(number, raw[:start], key, raw[found.end():])
    return None


def _behind_options(raw: bytes, start: int) -> int:
    """Return the index behind the options, which end at the first blank outside quotes, and the blanks."""
    quoted = False
    at = start
    while at < len(raw) and (quoted or raw[at:at + 1] not in b" \t"):
        if raw[at:at + 2] == b'\\"':
            at += 1
        elif raw[at:at + 1] == b'"':
            quoted = not quoted
        at += 1
    return len(raw) - len(raw[at:].lstrip(b" \t"))


def _decoded(kind: bytes, text: bytes) -> Optional[bytes]:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return key if key[4:4 + int.from_bytes(key[:4], "big")] == kind else None


def of_key(text: bytes, key: bytes) -> "List[Line]":
    """Return the lines with ``key``."""
    return [line for line in lines(text) if line.key == key]


def added(text: bytes, entry: bytes, options: bytes, replaced: "Optional[bytes]" = None) -> bytes:
    """Return ``text`` with a key added. :func:`removed` gives ``text`` back byte for byte.

    :param entry: kind and base64 of the key.
    :param options: options of the new line, with a blank behind them; for a key that replaces none.
    :param replaced: an older key. Each of its lines is followed by a copy with the new key.
    """
    old = [line for line in of_key(text, replaced) if not _is_authority(line)] if replaced is not None else []
    if not old:
        # Before a last line without a line end: a line end that is added to it could not be told from the guest's own.
        whole = text.rfind(b"\n") + 1
        return text[:whole] + options + entry + b" xscontainer\n" + text[whole:]
    copies = {line.number: line.head + entry + line.tail for line in old}
    out = []
    for number, raw in enumerate(_split(text), 1):
        out.append(raw)
        if number in copies:
            if not raw.endswith(b"\n"):
                out.append(b"\n")
            out.append(copies[number])
    return b"".join(out)


def removed(text: bytes, *given: bytes) -> bytes:
    """Return ``text`` without the lines with one of the given keys."""
    numbers = {line.number for line in lines(text) if line.key in given}
    return b"".join(raw for number, raw in enumerate(_split(text), 1) if number not in numbers)


def refusal(line: Line, seen: Circumstances) -> str:
    """Return why sshd accepts no login by this line, as "from=... does not include 192.0.2.1"; "" if it accepts one."""
    options = _parsed(line.options)
    if options is None:
        return "sshd cannot read its options"
    for name, value in options:
        if name not in _OPTIONS:
            return f"sshd does not know its option {name}"
        if name == "cert-authority":
            return "cert-authority makes the key a CA key, which cannot log in itself"
        if name == "from" and seen.address and not _from(value, seen.address):
            return f'from="{value}" does not include {seen.address}'
        if name == "expiry-time" and _expired(value, seen):
            return f'expiry-time="{value}" has passed'
    return ""


def _is_authority(line: Line) -> bool:
    return any(name == "cert-authority" for name, _ in _parsed(line.options) or [])


def _parsed(text: str) -> "Optional[List[Tuple[str, str]]]":
    """Return (name in lower case, value) of each option; None if the options are malformed."""
    found = []
    for word in _words(text) if text else []:
        option = _OPTION.match(word)
        if not option or '"' in (option.group(2) or "").replace('\\"', ""):
            return None
        found.append((option.group(1).lower(), (option.group(2) or "").replace('\\"', '"')))
    return found


def _words(text: str) -> "List[str]":
    """Split ``text`` at commas outside quotes."""
    words, begin, at, quoted = [], 0, 0, False
    while at < len(text):
        if text.startswith('\\"', at):
            at += 1
        elif text[at] == '"':
            quoted = not quoted
        elif text[at] == "," and not quoted:
            words.append(text[begin:at])
            begin = at + 1
        at += 1
    return words + [text[begin:]]


def _from(patterns: str, address: str) -> bool:
    included = False
    for pattern in patterns.split(","):
        pattern = pattern.strip()
        if pattern.startswith("!"):
            if _matches(pattern[1:], address):
                return False
        elif _matches(pattern, address):
            included = True
    return included


def _matches(pattern: str, address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        # sshd knows the wildcards * and ?, but no brackets.
        return fnmatch.fnmatchcase(address.lower(), pattern.lower().replace("[", "[[]"))


def _expired(value: str, seen: Circumstances) -> bool:
    found = _EXPIRY.match(value)
    now = seen.utc if found and found.group(3) else seen.now
    if not found or not now:
        return False
    moment = (found.group(1) + (found.group(2) or "")).ljust(14, "0")
    try:
        datetime.datetime.strptime(moment, "%Y%m%d%H%M%S")
    except ValueError:
        return True  # sshd ignores a line with a malformed date
    return moment <= now
