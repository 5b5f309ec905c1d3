"""The settings in a VM's other_config that say how its engine is reached. Pure.

Every vm-admin can write other_config, so each value is checked before it is used.
"""

import ipaddress
import re
from typing import Mapping, NamedTuple, Optional, Tuple

from xscontainer import keys
from xscontainer.core.vm_record import UUID
from xscontainer.errors import ArgumentError, ModeUnsupported
from xscontainer.settings import ENGINE_SOCKET, USER, Settings

SSH, TLS = "ssh", "tls"
DOCKER, PODMAN = "docker", "podman"

_USER = re.compile(USER + r"\Z")
_SOCKET = re.compile(ENGINE_SOCKET + r"\Z")
_PORT = re.compile(r"[0-9]{1,5}\Z")
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
                   r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\Z")


# The words of xscontainer-ssh-weak; engine.ssh.algorithms says what each of them allows.
WEAK = ("sha1", "cbc", "3des", "md5", "dss", "rsa1024")


class Reach(NamedTuple):
    """The settings for reaching an engine; a change requires a new connection.

    :ivar mode: SSH or TLS.
    :ivar address: instead of those that the guest tools report: IPv4, IPv6 or a name; "" if none is set.
    :ivar port: of sshd, or of the engine with TLS.
    :ivar user: to log in as; "" with TLS.
    :ivar socket: path of the engine's socket in the guest, SSH only; "": it is searched for.
    :ivar engine: DOCKER or PODMAN; "": the first one that is found.
    :ivar secrets: uuids of the XAPI secrets with CA certificate, client certificate and client key; TLS only.
    :ivar weak: words of WEAK, sorted; SSH only.
    """

    mode: str
    address: str
    port: int
    user: str = ""
    socket: str = ""
    engine: str = ""
    secrets: Tuple[str, ...] = ()
    weak: Tuple[str, ...] = ()

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
        """Read the settings of a VM.

        :raises ModeUnsupported: the mode is neither ssh nor tls. ArgumentError: a key has an invalid value.
        """
        mode = other_config.get(keys.MODE) or SSH
        if mode not in (SSH, TLS):
            raise ModeUnsupported(f"{keys.MODE} of the VM is {mode[:20]!r}, which is neither {SSH} nor {TLS}.")
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
        return cls(mode, address, _port(keys.SSH_PORT, other_config, settings.ssh.port), user, socket, engine,
                   weak=_weak(other_config.get(keys.SSH_WEAK) or ""))


def _weak(text: str) -> "Tuple[str, ...]":
    words = tuple(sorted({word for word in re.split(r"[\s,]+", text[:200]) if word}))
    if not set(words) <= set(WEAK):
        raise _unusable(keys.SSH_WEAK, text, f"a list of words out of {', '.join(WEAK)}")
    return words


def is_user(text: str) -> bool:
    """Return whether the text may be the name of a user."""
    return bool(_USER.match(text))


def is_socket(text: str) -> bool:
    """Return whether the text may be the path of a socket or a Windows named pipe: it becomes part of commands."""
    return bool(_SOCKET.match(text))


class Remembered(NamedTuple):
    """The address and method that worked last time for a VM, and are tried first the next time.

    :ivar reach: the settings at that time; if they have changed, method and socket are not used.
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
    """Return an address in its canonical form, or a host name in lower case.

    :raises ValueError: the text is neither.
    """
    text = text.strip()
    try:
        if "%" in text:
            raise ValueError(text)  # a zone, which newer Pythons accept
        return str(ipaddress.ip_address(text))
    except ValueError:
        # A name of digits and dots alone is a mistyped address ("10.0.0.300"), or one that the C library reads in its
        # own way ("127.1").
        if not _NAME.match(text) or re.match(r"[0-9.]+\Z|0[xX]", text):
            raise ValueError(f"{text[:80]!r} is neither an address nor a name") from None
        return text.lower()


def _uuid(key: str, text: str) -> str:
    if text and not UUID.match(text):
        raise _unusable(key, text, "the uuid of a secret")
    return text


def check(wishes: "Mapping[str, str]", called: "Mapping[str, str]", settings: Settings) -> None:
    """Check that a caller's values may become a VM's settings, in any mode.

    :param wishes: key of other_config -> value; "" for none.
    :param called: key -> the name of the caller's argument.
    :raises ArgumentError: a value is invalid; the message names the caller's argument.
    """
    for mode in (SSH, TLS):
        try:
            Reach.of({**wishes, keys.MODE: mode}, settings)
        except Unusable as error:
            raise ArgumentError(f"{called[error.key]} is {error.value!r}, which is not {error.wanted}.") from error


class Unusable(ArgumentError):
    """A key of other_config has an invalid value.

    :ivar key: its name. :ivar value: at most 80 characters. :ivar wanted: what the value should be.
    """

    key, value, wanted = "", "", ""


def _unusable(key: str, value: str, wanted: str) -> Unusable:
    value = value[:80]
    error = Unusable(f"{key} in the VM's other_config is {value!r}, which is not {wanted}.",
                     "Correct or remove the key.")
    error.key, error.value, error.wanted = key, value, wanted
    return error
