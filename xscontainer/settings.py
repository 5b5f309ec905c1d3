"""The settings of an administrator: one INI file in which every key is optional.

The file is /etc/xscontainer/xscontainer.conf, or the one that the environment variable XSCONTAINER_CONF names.
The NamedTuples below hold the defaults; KEYS describes each key: its allowed values and its effect. ``sample()`` makes
the shipped file from both, and docs/generate.py the documentation, so that code, file and documentation agree.
Parsing is pure; only ``load`` reads a file.
"""

import os
import re
from configparser import Error as IniError
from configparser import RawConfigParser
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from xscontainer.errors import SettingsError

DEFAULT_PATH = "/etc/xscontainer/xscontainer.conf"
ENVIRONMENT_VARIABLE = "XSCONTAINER_CONF"


class DaemonSettings(NamedTuple):
    socket: str = "/run/xscontainer/daemon.sock"
    log_level: str = "info"
    log_file: str = ""
    plugin_name: str = "xscontainer"
    workers: int = 16
    inventory: str = "/etc/xensource-inventory"


class XapiSettings(NamedTuple):
    socket: str = "/var/lib/xcp/xapi"
    originator: str = "xscontainer"
    timeout: float = 30.0
    login_timeout: float = 10.0
    event_timeout: float = 30.0
    sessions: int = 4


class GuestSettings(NamedTuple):
    """Timeouts of connections to guests, over SSH and over TLS, in seconds."""

    connect_timeout: float = 10.0
    handshake_timeout: float = 10.0
    login_timeout: float = 10.0
    keepalive: float = 15.0
    dead_after: float = 45.0

    @property
    def longest_connect(self) -> float:
        """Seconds that a connection may take until the login is complete, if each step takes its full timeout."""
        return self.connect_timeout + self.handshake_timeout + self.login_timeout


class SSHSettings(NamedTuple):
    port: int = 22
    user: str = "core"
    key_grace: float = 600.0


class EngineSettings(NamedTuple):
    socket: str = "/var/run/docker.sock"
    tls_port: int = 2376
    request_timeout: float = 30.0
    max_response_bytes: int = 16777216
    max_channels: int = 8


class AddressSettings(NamedTuple):
    allow_loopback: bool = False


class PublishSettings(NamedTuple):
    burst: int = 3
    interval: float = 0.7
    max_bytes: int = 230400
    max_containers: int = 5000
    stale_after: float = 10.0
    host_writes: int = 100
    host_bytes: int = 1000000
    wake_clients: str = "auto"
    ended_as_137: bool = False


class MonitorSettings(NamedTuple):
    resync_interval: float = 300.0
    info_interval: float = 600.0
    backoff_min: float = 0.2
    backoff_max: float = 60.0
    start_workers: int = 8


class Settings(NamedTuple):
    daemon: DaemonSettings = DaemonSettings()
    xapi: XapiSettings = XapiSettings()
    guest: GuestSettings = GuestSettings()
    ssh: SSHSettings = SSHSettings()
    engine: EngineSettings = EngineSettings()
    address: AddressSettings = AddressSettings()
    publish: PublishSettings = PublishSettings()
    monitor: MonitorSettings = MonitorSettings()


class Loaded(NamedTuple):
    """The settings of a file, and one warning for each section or key in the file that has no effect."""

    settings: Settings
    warnings: List[str]


class Kind(NamedTuple):
    """A type of value: ``allowed`` describes it, and ``parse`` raises ValueError for any other text."""

    allowed: str
    parse: Callable[[str], Any]


class Key(NamedTuple):
    kind: Kind
    meaning: str


def _whole(low: int, high: int) -> Kind:
    def parse(text: str) -> int:
        if not re.match(r"[+-]?[0-9]{1,18}\Z", text) or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return Kind(f"a whole number from {low} to {high}", parse)


def _seconds(low: float, high: float) -> Kind:
    def parse(text: str) -> float:
        if not re.match(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z", text) or not low <= float(text) <= high:
            raise ValueError(text)
        return float(text)

    return Kind(f"seconds from {low:g} to {high:g}", parse)


def _matching(allowed: str, pattern: str) -> Kind:
    def parse(text: str) -> str:
        if not re.match(f"(?:{pattern})\\Z", text):
            raise ValueError(text)
        return text

    return Kind(allowed, parse)


def _one_of(*words: str) -> Kind:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(text)
        return text.lower()

    return Kind("one of " + ", ".join(words), parse)


def _yes_or_no(text: str) -> bool:
    try:
        return RawConfigParser.BOOLEAN_STATES[text.lower()]
    except KeyError:
        raise ValueError(text) from None


_SWITCH = Kind("yes or no", _yes_or_no)
_PATH = _matching("an absolute path", r"/[^\x00-\x1f\x7f]{0,4094}")
# The kernel allows 107 bytes and a NUL for the path of a Unix socket. The daemon creates its socket under a path
# that is one character longer, then renames it.
LONGEST_SOCKET = 106
_OWN_SOCKET = _matching(f"an absolute path of at most {LONGEST_SOCKET} ASCII characters",
                        r"/[\x21-\x7e]{1,%d}" % (LONGEST_SOCKET - 1))
_SOCKET = _matching("an absolute path of at most 107 ASCII characters", r"/[\x21-\x7e]{1,106}")
# The user name is only sent as the login name. The path of a socket in a guest is also part of a command line there, so
# it holds no character that is special to a shell.
USER = r"[A-Za-z0-9_][A-Za-z0-9_.@+\\-]{0,127}\$?"  # includes the Windows forms DOMAIN\user and machine$
ENGINE_SOCKET = r"(?!.*/\.\.(/|\Z))(/|npipe:////\./pipe/)[A-Za-z0-9._/@:+-]{1,100}"
_NAME = _matching("a name of letters, digits, '_', '.' and '-'", r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

KEYS: Dict[str, Dict[str, Key]] = {
    "daemon": {
        "socket": Key(_OWN_SOCKET, "Unix socket on which the daemon accepts plugin calls."),
        "log_level": Key(_one_of("debug", "info", "warning", "error"), "The lowest level that is logged."),
        "log_file": Key(_matching("an absolute path, or empty", r"|/[^\x00-\x1f\x7f]{1,4094}"),
                        "Log file; empty: the journal."),
        "plugin_name": Key(_NAME, "Name of the plugin in XAPI; calls are forwarded to other hosts under this name."),
        "workers": Key(_whole(2, 256), "How many plugin calls run at once. Calls to VMs that answer slowly may use "
                                       "half of them."),
        "inventory": Key(_PATH, "File with INSTALLATION_UUID, the uuid of this host."),
    },
    "xapi": {
        "socket": Key(_SOCKET, "XAPI's local socket."),
        "originator": Key(_NAME, "Originator of our XAPI sessions. XAPI limits sessions per originator."),
        "timeout": Key(_seconds(0.1, 3600), "Timeout of a call to XAPI."),
        "login_timeout": Key(_seconds(0.1, 600), "Timeout of a login to XAPI."),
        "event_timeout": Key(_seconds(0.1, 600), "How long XAPI may wait for an event before it answers a poll."),
        "sessions": Key(_whole(1, 64), "Number of pooled XAPI sessions, besides the session for events."),
    },
    "guest": {
        "connect_timeout": Key(_seconds(0.1, 600), "Timeout of the TCP connection to a guest."),
        "handshake_timeout": Key(_seconds(0.1, 600), "Timeout of the SSH server's greeting, of the SSH key exchange "
                                                     "and of the TLS handshake, each."),
        "login_timeout": Key(_seconds(0.1, 600), "Timeout of the SSH login; over TLS, of the first request."),
        "keepalive": Key(_seconds(0.1, 3600), "Send a liveness probe after this much silence."),
        "dead_after": Key(_seconds(0.1, 7200), "Close a connection after this much silence."),
    },
    "ssh": {
        "port": Key(_whole(1, 65535), "Port of the guests' SSH server."),
        "user": Key(_matching("a user's name of letters, digits and _.@+\\-, with or without a $ at the end", USER),
                    "User to log in as, unless xscontainer-username in the VM's other_config names another."),
        "key_grace": Key(_seconds(0, 86400), "Keep the pool's previous SSH key for at least this long after it was "
                                             "replaced: after a crash XAPI may lose the last 5 minutes of changes."),
    },
    "engine": {
        "socket": Key(_matching("an absolute path of at most 101 letters, digits and ._/@:+-, or npipe:////./pipe/NAME",
                                ENGINE_SOCKET),
                      "Path of the engine's socket in guests. It is tried before the other known paths."),
        "tls_port": Key(_whole(1, 65535), "Port of engines over TLS."),
        "request_timeout": Key(_seconds(0.1, 3600), "Timeout of a request to an engine."),
        "max_response_bytes": Key(_whole(65536, 1 << 30),
                                  "Largest accepted list of containers in bytes. Other answers may have 4 MiB."),
        "max_channels": Key(_whole(2, 9), "How many SSH channels to one guest may be open at once (sshd allows 10). "
                            "Reading stats opens up to 64 more for a moment, which sshd does not count."),
    },
    "address": {
        "allow_loopback": Key(_SWITCH, "Allow loopback addresses of guests. For simulated pools only."),
    },
    "publish": {
        "burst": Key(_whole(1, 100), "How many consecutive writes for one VM need no pause."),
        "interval": Key(_seconds(0, 60), "Pause between further writes for one VM."),
        "max_bytes": Key(_whole(4096, 300000), "Largest size of a VM's other_config with our documents, in escaped "
                                               "bytes. Other clients write the whole map, and XAPI refuses more than "
                                               "307200 bytes."),
        "max_containers": Key(_whole(1, 100000), "Most containers that are listed for one VM."),
        "stale_after": Key(_seconds(0, 3600), "Replace a list with the reason when it was not confirmed for this "
                                              "long."),
        "host_writes": Key(_whole(1, 10000), "Writes to XAPI per second, shared by all VMs of this host. A VM that "
                                             "rarely changes does not wait."),
        "host_bytes": Key(_whole(10000, 1 << 30), "Bytes written to XAPI per second, shared by all VMs of this host."),
        "wake_clients": Key(_one_of("auto", "yes", "no"),
                            "Wake XAPI's clients 30 ms before lists are replaced, so that Xen Orchestra never sees a "
                            "VM without its list. auto: only while a Xen Orchestra is connected to the pool."),
        "ended_as_137": Key(_SWITCH, "Publish each stopped container as Exited (137), the only status for which Xen "
                                     "Orchestra 5 offers Start. Its <reason> has the real exit code."),
    },
    "monitor": {
        "resync_interval": Key(_seconds(0.1, 86400), "Interval of full reconciliations with XAPI and the engines."),
        "info_interval": Key(_seconds(0.1, 86400), "Interval between reads of docker_info and docker_version."),
        "backoff_min": Key(_seconds(0.01, 60), "Delay before the first retry of an unreachable VM."),
        "backoff_max": Key(_seconds(0.1, 3600), "Longest delay between two retries of an unreachable VM."),
        "start_workers": Key(_whole(1, 64), "How many VMs are being connected to at once."),
    },
}

# Keys that were renamed when the timeouts of SSH and TLS became one section. Files with the old names stay valid.
RENAMED: Dict[Tuple[str, str], Tuple[str, str]] = {
    ("ssh", "connect_timeout"): ("guest", "connect_timeout"),
    ("ssh", "banner_timeout"): ("guest", "handshake_timeout"),
    ("ssh", "auth_timeout"): ("guest", "login_timeout"),
    ("ssh", "keepalive"): ("guest", "keepalive"),
    ("ssh", "dead_after"): ("guest", "dead_after"),
}

# (section, key, key): the value of the first key must not exceed the value of the second.
_ORDERED: Tuple[Tuple[str, str, str], ...] = (
    ("guest", "keepalive", "dead_after"),
    ("monitor", "backoff_min", "backoff_max"),
)


def load(path: Optional[str] = None, environ: Optional[Mapping[str, str]] = None) -> Loaded:
    """Read the settings file.

    :param path: the file; None: the file that XSCONTAINER_CONF names, else the default file.
    :param environ: used instead of os.environ.
    :raises SettingsError: if the file cannot be read or parsed, or a value is not allowed.
        Without the default file all settings have their defaults; a file that is named must exist.
    """
    named = path or (os.environ if environ is None else environ).get(ENVIRONMENT_VARIABLE)
    chosen = named or DEFAULT_PATH
    try:
        with open(chosen, encoding="utf-8") as source:
            text = source.read()
    except FileNotFoundError:
        if named is None:
            return Loaded(Settings(), [])
        raise SettingsError(f"The settings file {chosen} does not exist.") from None
    except OSError as error:
        raise SettingsError(f"The settings file {chosen} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise SettingsError(f"The settings file {chosen} is not UTF-8 text.") from error
    return parse(text, chosen)


def parse(text: str, path: str = DEFAULT_PATH) -> Loaded:
    """Return the settings in the text of a settings file.

    :param path: named in messages only.
    :raises SettingsError: as for ``load``.
    """
    ini = RawConfigParser(default_section="", comment_prefixes=("#", ";"), delimiters=("=",))
    try:
        ini.read_string(text, source=path)
    except IniError as error:
        raise SettingsError(f"The settings file {path} is not a valid INI file: {_one_line(error)}.") from error
    warnings: List[str] = []
    sections: Dict[str, Dict[str, Any]] = {}
    for name in ini.sections():
        if name not in KEYS:
            warnings.append(f"{path}: there is no section [{name}]; it is ignored.")
            continue
        for key, given in ini.items(name):
            section, current = RENAMED.get((name, key), (name, key))
            if current not in KEYS[section]:
                warnings.append(f"{path}: section [{name}] has no key '{key}'; it is ignored.")
                continue
            value = _value(path, (name, key), KEYS[section][current], given)
            if section == name:
                sections.setdefault(section, {})[current] = value
            elif ini.has_option(section, current):
                warnings.append(f"{path}: section [{name}], key '{key}' is ignored: section [{section}], key "
                                f"'{current}' replaces it.")
            else:
                sections.setdefault(section, {})[current] = value
    defaults = Settings()
    settings = Settings(**{name: getattr(defaults, name)._replace(**values) for name, values in sections.items()})
    _check_order(path, settings)
    return Loaded(settings, warnings)


def _value(path: str, where: Tuple[str, str], key: Key, text: str) -> Any:
    """Return the value in ``text``; ``where``: section and key as the file names them."""
    try:
        return key.kind.parse(text)
    except ValueError:
        shown = text if len(text) <= 60 else text[:60] + "..."
        raise SettingsError(
            f"{path}: section [{where[0]}], key '{where[1]}': {shown!r} is not allowed.",
            f"It must be {key.kind.allowed}."
        ) from None


def _check_order(path: str, settings: Settings) -> None:
    for section, smaller, larger in _ORDERED:
        values = getattr(settings, section)
        low, high = getattr(values, smaller), getattr(values, larger)
        if low > high:
            raise SettingsError(
                f"{path}: section [{section}], key '{smaller}': {low:g} is not allowed.",
                f"It must be at most the value of '{larger}' ({high:g}).",
            )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def rows() -> Iterator[Tuple[str, str, str, Key]]:
    """Yield each key in order: section, name, default as written in a file, description."""
    defaults = Settings()
    for section, keys in KEYS.items():
        for name, key in keys.items():
            yield section, name, _written(getattr(getattr(defaults, section), name)), key


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def sample() -> str:
    """Return the text of the shipped settings file: each key with its default, commented out."""
    lines = ["# Settings of xscontainer. Every key is optional. The commented values are the defaults.",
             "# Restart xscontainer-monitor after a change.", ""]
    current = ""
    for section, name, default, key in rows():
        if section != current:
            lines += [f"[{section}]", ""]
            current = section
        lines += [f"# {key.meaning}", f"# Allowed: {key.kind.allowed}.", f"#{name} = {default}".rstrip(), ""]
    return "\n".join(lines)
