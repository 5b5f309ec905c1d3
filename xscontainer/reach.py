"""How a VM's engine is to be reached, as the VM's other_config says.

Every vm-admin writes other_config, so each value is checked before it goes anywhere.
"""

import ipaddress
import re
from typing import Mapping, NamedTuple, Optional, Tuple

from xscontainer import keys
from xscontainer.errors import ArgumentError, ModeUnsupported
from xscontainer.settings import Settings
from xscontainer.vmrecord import UUID

SSH, TLS = "ssh", "tls"
DOCKER, PODMAN = "docker", "podman"

# A user name is only ever sent as the name to log in with, a socket path also stands in
# the command of a fallback: nothing a shell would read as more than one word.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+\\-]{0,127}\$?\Z")  # with Windows' DOMAIN\user and machine$
_SOCKET = re.compile(r"(/|npipe:////\./pipe/)[A-Za-z0-9._/@:+-]{1,100}\Z")
_PORT = re.compile(r"[0-9]{1,5}\Z")
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
                   r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\Z")


class Reach(NamedTuple):
    """A change of it calls for a new connection.

    :ivar mode: SSH or TLS.
    :ivar address: instead of those that the guest tools report: IPv4, IPv6 or a name; "" if none is set.
    :ivar port: sshd's, or the engine's own with TLS.
    :ivar user: whom to log in as; "" with TLS.
    :ivar socket: the engine's in the guest, if the VM names one, SSH only; "": it is to be found.
    :ivar engine: DOCKER or PODMAN; "": whichever is found.
    :ivar secrets: uuids of the XAPI secrets with CA certificate, client certificate and client key; TLS only.
    """

    mode: str
    address: str
    port: int
    user: str = ""
    socket: str = ""
    engine: str = ""
    secrets: Tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``address`` if it is a name, else ""."""
        try:
            ipaddress.ip_address(self.address)
        except ValueError:
            return self.address
        return ""

    @classmethod
    def of(cls, other_config: "Mapping[str, str]", settings: Settings) -> "Reach":
        """:raises ModeUnsupported: neither ssh nor tls. ArgumentError: a key holds what it cannot."""
        mode = other_config.get(keys.MODE) or SSH
        if mode not in (SSH, TLS):
            raise ModeUnsupported(f"{keys.MODE} of the VM is {mode[:20]!r}; there are {SSH} and {TLS}.")
        address = other_config.get(keys.ADDRESS) or ""
        try:
            address = address_or_name(address) if address.strip() else ""
        except ValueError:
            raise _unusable(keys.ADDRESS, address, "an IPv4 address, an IPv6 address or a name") from None
        if mode == TLS:
            secrets = tuple(_uuid(key, other_config.get(key) or "")
                            for key in keys.TLS_SECRETS)
            return cls(mode, address, _port(keys.TLS_PORT, other_config, settings.engine.tls_port), secrets=secrets)
        user = other_config.get(keys.USERNAME) or settings.ssh.user
        if not is_user(user):
            raise _unusable(keys.USERNAME, user, "a user name")
        socket = other_config.get(keys.ENGINE_SOCKET) or ""
        if socket and not is_socket(socket):
            raise _unusable(keys.ENGINE_SOCKET, socket, "an absolute path of a socket, or a pipe: npipe:////./pipe/NAME")
        engine = other_config.get(keys.ENGINE) or ""
        if engine not in ("", DOCKER, PODMAN):
            raise _unusable(keys.ENGINE, engine, f"{DOCKER} or {PODMAN}")
        return cls(mode, address, _port(keys.SSH_PORT, other_config, settings.ssh.port), user, socket, engine)


def is_user(text: str) -> bool:
    """Whether this may be the name of a user to log in as."""
    return bool(_USER.match(text))


def is_socket(text: str) -> bool:
    """Whether this may be the path of an engine's socket, or a named pipe of Windows: it becomes part of commands."""
    return bool(_SOCKET.match(text)) and "/../" not in f"{text}/"


class Remembered(NamedTuple):
    """What worked last time for a VM, and is tried first the next time.

    :ivar reach: what held then; when that has changed, method and socket mean nothing any more.
    """

    address: str = ""
    method: str = ""
    socket: str = ""
    reach: Optional[Reach] = None


def _port(key: str, other_config: "Mapping[str, str]", default: int) -> int:
    text = other_config.get(key) or str(default)
    if not _PORT.match(text) or not 0 < int(text) < 65536:
        raise _unusable(key, text, "a TCP port, 1 to 65535")
    return int(text)


def address_or_name(text: str) -> str:
    """As it is to be dialled: an address in its canonical form, or a name in lower case.

    :raises ValueError: it is neither.
    """
    text = text.strip()
    try:
        if "%" in text:
            raise ValueError(text)  # a zone, which newer Pythons read
        return str(ipaddress.ip_address(text))
    except ValueError:
        # A name of digits and dots alone is a mistyped address ("10.0.0.300"), or one that the C library
        # would read in its own way ("127.1").
        if not _NAME.match(text) or re.match(r"[0-9.]+\Z|0[xX]", text):
            raise ValueError(f"{text[:80]!r} is neither an address nor a name") from None
        return text.lower()


def _uuid(key: str, text: str) -> str:
    if text and not UUID.match(text):
        raise _unusable(key, text, "the uuid of a secret")
    return text


def check(wishes: "Mapping[str, str]", called: "Mapping[str, str]", settings: Settings) -> None:
    """See that a caller's wishes may become a VM's settings, whatever its mode is.

    :param wishes: keys of other_config and their values; "" for none. :param called: by key, what the caller calls it.
    :raises ArgumentError: one may not; in the caller's words.
    """
    for mode in (SSH, TLS):
        try:
            Reach.of({**wishes, keys.MODE: mode}, settings)
        except Unusable as error:
            raise ArgumentError(f"{called[error.key]} is {error.value!r}, which is not {error.wanted}.") from error


class Unusable(ArgumentError):
    """:ivar key: of other_config. :ivar value: what it holds, at most 80 characters. :ivar wanted: what it should."""

    key, value, wanted = "", "", ""


def _unusable(key: str, value: str, wanted: str) -> Unusable:
    value = value[:80]
    error = Unusable(f"{key} in the VM's other_config is {value!r}, which is not {wanted}.",
                     "Correct or remove the key.")
    error.key, error.value, error.wanted = key, value, wanted
    return error
