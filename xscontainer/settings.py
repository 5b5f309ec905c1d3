"""What an administrator may set, and nothing else: one INI file, every key optional.

The file is /etc/xscontainer/xscontainer.conf, or the one that the environment variable
XSCONTAINER_CONF names. The defaults stand in the NamedTuples below; KEYS says of every key what it
accepts and what it does. From both, ``sample()`` makes the file we ship and ``table()`` the
documentation, so that the three cannot drift apart. Parsing is pure; only ``load`` reads a file.
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
    run_directory: str = "/run/xscontainer"
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


class SSHSettings(NamedTuple):
    port: int = 22
    user: str = "core"
    connect_timeout: float = 10.0
    banner_timeout: float = 10.0
    auth_timeout: float = 10.0
    keepalive: float = 15.0
    dead_after: float = 45.0
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
    max_bytes: int = 290000
    max_containers: int = 5000
    stale_after: float = 10.0


class MonitorSettings(NamedTuple):
    resync_interval: float = 300.0
    info_interval: float = 600.0
    backoff_min: float = 0.2
    backoff_max: float = 60.0
    start_workers: int = 8


class Settings(NamedTuple):
    daemon: DaemonSettings = DaemonSettings()
    xapi: XapiSettings = XapiSettings()
    ssh: SSHSettings = SSHSettings()
    engine: EngineSettings = EngineSettings()
    address: AddressSettings = AddressSettings()
    publish: PublishSettings = PublishSettings()
    monitor: MonitorSettings = MonitorSettings()


class Loaded(NamedTuple):
    """``warnings``: one sentence for each section or key that nothing reads."""

    settings: Settings
    warnings: List[str]


class Kind(NamedTuple):
    """One sort of value: ``parse`` raises ValueError for any text that is not as ``allowed`` says."""

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
# The kernel takes 107 bytes and a NUL for the name of a Unix socket.
_SOCKET = _matching("an absolute path of at most 107 ASCII characters", r"/[\x21-\x7e]{1,106}")
_NAME = _matching("a name of letters, digits, '_', '.' and '-'", r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

KEYS: Dict[str, Dict[str, Key]] = {
    "daemon": {
        "socket": Key(_SOCKET, "Where the daemon listens for the calls that the plugin hands on."),
        "run_directory": Key(_PATH, "Directory for what the daemon keeps while it runs."),
        "log_level": Key(_one_of("debug", "info", "warning", "error"), "The least important line that is logged."),
        "log_file": Key(_matching("an absolute path, or nothing", r"|/[^\x00-\x1f\x7f]{1,4094}"),
                        "Log file; nothing means standard error, which systemd keeps."),
        "plugin_name": Key(_NAME, "The name under which XAPI knows the plugin; calls to other hosts use it."),
        "workers": Key(_whole(2, 256), "How many plugin calls are served at once; one may need another."),
        "inventory": Key(_PATH, "File whose INSTALLATION_UUID says which host of the pool this is."),
    },
    "xapi": {
        "socket": Key(_SOCKET, "XAPI's local socket."),
        "originator": Key(_NAME, "The name by which XAPI counts and limits our sessions."),
        "timeout": Key(_seconds(0.1, 3600), "Deadline of a call to XAPI."),
        "login_timeout": Key(_seconds(0.1, 600), "Deadline of a login."),
        "event_timeout": Key(_seconds(0.1, 600), "How long XAPI may hold one poll for events when there are none."),
        "sessions": Key(_whole(1, 64), "How many sessions are kept open beside the one for events."),
    },
    "ssh": {
        "port": Key(_whole(1, 65535), "Port of the guests' SSH server."),
        "user": Key(_NAME, "User to log in as where the VM's xscontainer-username names none."),
        "connect_timeout": Key(_seconds(0.1, 600), "Deadline for the TCP connection."),
        "banner_timeout": Key(_seconds(0.1, 600), "Deadline for the server's first line."),
        "auth_timeout": Key(_seconds(0.1, 600), "Deadline for the login."),
        "keepalive": Key(_seconds(0.1, 3600), "A sign of life is asked for after this long a silence."),
        "dead_after": Key(_seconds(0.1, 7200), "A connection that is silent for this long is given up."),
        "key_grace": Key(_seconds(0, 86400), "How long both of the pool's SSH keys are kept at least when one replaces "
                                             "the other: a XAPI that is killed forgets up to 5 minutes."),
    },
    "engine": {
        "socket": Key(_SOCKET, "The engine's socket inside the guests; others are looked for after it."),
        "tls_port": Key(_whole(1, 65535), "Port of the guests' engines that are reached over TLS."),
        "request_timeout": Key(_seconds(0.1, 3600), "Deadline of one request to an engine."),
        "max_response_bytes": Key(_whole(65536, 1 << 30), "A longer answer, or line of an event stream, is refused."),
        "max_channels": Key(_whole(2, 9), "How many SSH channels may be open to one guest (sshd allows 10)."),
    },
    "address": {
        "allow_loopback": Key(_SWITCH, "Contact guests at loopback addresses: for a simulated pool only."),
    },
    "publish": {
        "burst": Key(_whole(1, 100), "How many writes for one VM may follow each other at once."),
        "interval": Key(_seconds(0, 60), "After that, the time between two writes for one VM."),
        "max_bytes": Key(_whole(4096, 300000), "Longest document; XAPI refuses requests beyond 307200 bytes."),
        "max_containers": Key(_whole(1, 100000), "How many containers of one VM are looked at."),
        "stale_after": Key(_seconds(0, 3600), "A VM that is out of reach for this long is reported as such."),
    },
    "monitor": {
        "resync_interval": Key(_seconds(0.1, 86400), "How often all is compared with XAPI and the engines anew."),
        "info_interval": Key(_seconds(0.1, 86400), "How often docker_info and docker_version are read anew."),
        "backoff_min": Key(_seconds(0.01, 60), "First pause before an unreachable VM is tried again."),
        "backoff_max": Key(_seconds(0.1, 3600), "Longest pause before an unreachable VM is tried again."),
        "start_workers": Key(_whole(1, 64), "How many VMs are connected to at once."),
    },
}

# Pairs (section, smaller key, larger key) that make no sense the other way round.
_ORDERED: Tuple[Tuple[str, str, str], ...] = (
    ("ssh", "keepalive", "dead_after"),
    ("monitor", "backoff_min", "backoff_max"),
)


def load(path: Optional[str] = None, environ: Optional[Mapping[str, str]] = None) -> Loaded:
    """Read the settings file.

    :param path: the file; None: the one that XSCONTAINER_CONF names, else the default one.
    :param environ: instead of os.environ.
    :raises SettingsError: it cannot be read or parsed, or a value is not as its key allows.
        Only the default file may be absent: all defaults hold then.
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
    """Turn the text of a settings file into Settings; ``path`` is only named in messages.

    :raises SettingsError: as for ``load``.
    """
    ini = RawConfigParser(default_section="", comment_prefixes=("#", ";"), delimiters=("=",))
    try:
        ini.read_string(text, source=path)
    except IniError as error:
        raise SettingsError(f"The settings file {path} is no INI file: {_one_line(error)}.") from error
    warnings: List[str] = []
    sections: Dict[str, Any] = {}
    for name in ini.sections():
        if name not in KEYS:
            warnings.append(f"{path}: there is no section [{name}]; it is ignored.")
            continue
        given = dict(ini.items(name))
        unknown = [key for key in given if key not in KEYS[name]]
        warnings += [f"{path}: section [{name}] has no key '{key}'; it is ignored." for key in unknown]
        sections[name] = {key: _value(path, name, key, given[key]) for key in given if key not in unknown}
    defaults = Settings()
    settings = Settings(**{name: getattr(defaults, name)._replace(**values) for name, values in sections.items()})
    _check_order(path, settings)
    return Loaded(settings, warnings)


def _value(path: str, section: str, key: str, text: str) -> Any:
    kind = KEYS[section][key].kind
    try:
        return kind.parse(text)
    except ValueError:
        shown = text if len(text) <= 60 else text[:60] + "..."
        raise SettingsError(
            f"{path}: section [{section}], key '{key}': {shown!r} is not allowed.", f"It must be {kind.allowed}."
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


def _rows() -> Iterator[Tuple[str, str, str, Key]]:
    """Every key in order: section, name, default as it is written in a file, description."""
    defaults = Settings()
    for section, keys in KEYS.items():
        for name, key in keys.items():
            yield section, name, _written(getattr(getattr(defaults, section), name)), key


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def sample() -> str:
    """The settings file as we ship it: every key with its default, commented out."""
    lines = ["# Settings of xscontainer. Every key is optional; what is commented out is the default.",
             "# Restart xscontainer-monitor after a change.", ""]
    current = ""
    for section, name, default, key in _rows():
        if section != current:
            lines += [f"[{section}]", ""]
            current = section
        lines += [f"# {key.meaning}", f"# Allowed: {key.kind.allowed}.", f"#{name} = {default}".rstrip(), ""]
    return "\n".join(lines)


def table() -> str:
    """The same as a Markdown table for the README."""
    lines = ["| section | key | default | allowed | meaning |", "|---|---|---|---|---|"]
    for section, name, default, key in _rows():
        shown = f"`{default}`" if default else ""
        lines.append(f"| `[{section}]` | `{name}` | {shown} | {key.kind.allowed} | {key.meaning} |")
    return "\n".join(lines) + "\n"
