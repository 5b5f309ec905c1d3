"""The settings file: defaults, limits of each key, old names, and the files made from the table of keys."""

import os
import re
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer import settings
from xscontainer.core.target import is_socket, is_user
from xscontainer.errors import SettingsError
from xscontainer.settings import KEYS, Loaded, Settings, load, parse, rows, sample

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "rpm" / "xscontainer.conf"


def _defaults() -> Iterator[Tuple[str, str, Any]]:
    for section, values in Settings()._asdict().items():
        for key, value in values._asdict().items():
            yield section, key, value


def test_the_table_describes_exactly_the_fields_of_the_settings() -> None:
    described = [(section, key) for section, keys in KEYS.items() for key in keys]
    assert described == [(section, key) for section, key, _ in _defaults()]


@pytest.mark.parametrize("section, key, default", list(_defaults()))
def test_every_default_is_allowed_and_keeps_its_type(section: str, key: str, default: Any) -> None:
    written = {name: text for part, name, text, _ in settings.rows() if part == section}[key]
    loaded = parse(f"[{section}]\n{key} = {written}\n")
    assert loaded == Loaded(Settings(), [])
    assert type(getattr(getattr(loaded.settings, section), key)) is type(default)


def test_an_empty_file_means_all_defaults() -> None:
    assert parse("") == Loaded(Settings(), [])


def test_one_key_changes_one_value_only() -> None:
    loaded = parse("[ssh]\nport = 2222\n")
    assert loaded.settings == Settings()._replace(ssh=Settings().ssh._replace(port=2222))


GOOD: Dict[str, Any] = {
    "[daemon] log_level = DEBUG": "debug",
    "[daemon] log_file =": "",
    "[daemon] log_file = /var/log/a file.log": "/var/log/a file.log",
    "[address] allow_loopback = Yes": True,
    "[address] allow_loopback = off": False,
    "[publish] interval = 0": 0.0,
    "[publish] interval = 1.25": 1.25,
    "[engine] socket = /run/podman/podman.sock": "/run/podman/podman.sock",
    "[ssh] user = _apt-1.x": "_apt-1.x",
    "[ssh] user = DOMAIN\\user": "DOMAIN\\user",
    "[engine] socket = npipe:////./pipe/docker_engine": "npipe:////./pipe/docker_engine",
    "[daemon] socket = /" + "x" * 105: "/" + "x" * 105,
    "[xapi] socket = /" + "x" * 106: "/" + "x" * 106,
}


def _split(line: str) -> Tuple[str, str, str]:
    section, _, rest = line.partition("] ")
    key, _, value = rest.partition(" =")
    return section[1:], key, value.strip()


@pytest.mark.parametrize("line", sorted(GOOD))
def test_an_allowed_value_is_read(line: str) -> None:
    section, key, value = _split(line)
    loaded = parse(f"[{section}]\n{key} = {value}\n")
    assert getattr(getattr(loaded.settings, section), key) == GOOD[line]


BAD = [
    "[daemon] socket = relative.sock",
    "[daemon] socket = /" + "x" * 106,
    "[xapi] socket = /" + "x" * 107,
    "[engine] socket = /run/$(reboot)",
    "[engine] socket = /run/a;b",
    "[engine] socket = /run/../etc/x",
    "[engine] socket = /run/..",
    "[engine] socket = /" + "x" * 101,
    "[daemon] socket =",
    "[daemon] log_level = loud",
    "[daemon] workers = 0",
    "[daemon] workers = 1.5",
    "[daemon] workers = ten",
    "[daemon] workers =",
    "[daemon] plugin_name = ../x",
    "[daemon] plugin_name = -x",
    "[ssh] port = 65536",
    "[ssh] port = -1",
    "[ssh] port = \u0663",
    "[ssh] user = a b",
    "[guest] keepalive = nan",
    "[guest] keepalive = inf",
    "[guest] keepalive = 1e3",
    "[guest] connect_timeout = 0",
    "[ssh] user = x\n  y",
    "[engine] max_response_bytes = 99999999999999999999999999",
    "[engine] max_channels = 10",
    "[address] allow_loopback = maybe",
    "[publish] max_bytes = 300001",
]


@pytest.mark.parametrize("line", BAD)
def test_a_bad_value_names_file_section_key_value_and_what_is_allowed(line: str) -> None:
    section, key, value = _split(line)
    with pytest.raises(SettingsError) as caught:
        parse(f"[{section}]\n{key} = {value}\n", "/etc/some.conf")
    message = str(caught.value)
    assert caught.value.code == "SETTINGS_INVALID"
    # The parser strips continued lines, so only the first line of such a value is checked.
    shown = value.split("\n")[0][:50]
    for part in ("/etc/some.conf", f"[{section}]", f"'{key}'", f"'{shown}", KEYS[section][key].kind.allowed):
        assert part in message


@pytest.mark.parametrize("text", ["[ssh]\nkeepalive = 50\n", "[guest]\nkeepalive = 50\n",
                                  "[monitor]\nbackoff_min = 9\nbackoff_max = 8\n"])
def test_values_that_contradict_each_other_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="must be at most the value of"):
        parse(text)


@pytest.mark.parametrize(
    "text", ["port = 22\n", "[ssh\n", "[ssh]\nport\n", "[ssh]\nport = 1\nport = 2\n", "[ssh]\n[ssh]\n"]
)
def test_a_file_that_is_not_ini_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(SettingsError, match="/etc/some.conf is not a valid INI file"):
        parse(text, "/etc/some.conf")


def test_unknown_sections_and_keys_cause_warnings_only() -> None:
    loaded = parse("[DEFAULT]\nport = 1\n[shh]\nport = 2\n[ssh]\nprot = 3\n", "/etc/some.conf")
    assert loaded.settings == Settings()
    assert loaded.warnings == [
        "/etc/some.conf: there is no section [DEFAULT]; it is ignored.",
        "/etc/some.conf: there is no section [shh]; it is ignored.",
        "/etc/some.conf: section [ssh] has no key 'prot'; it is ignored.",
    ]


RENAMED_KEYS = [(old, new, (1.5 if "keep" in new[1] else 70.0)) for old, new in sorted(settings.RENAMED.items())]


@pytest.mark.parametrize("old, new, value", RENAMED_KEYS)
def test_a_file_with_the_old_name_of_a_key_keeps_its_meaning(old: Tuple[str, str], new: Tuple[str, str],
                                                             value: float) -> None:
    loaded = parse(f"[{old[0]}]\n{old[1]} = {value}\n")
    assert getattr(getattr(loaded.settings, new[0]), new[1]) == value
    assert loaded == Loaded(parse(f"[{new[0]}]\n{new[1]} = {value}\n").settings, [])


def test_an_old_file_is_read_as_before() -> None:
    loaded = parse("[ssh]\nport = 2222\nconnect_timeout = 1\nbanner_timeout = 2\nauth_timeout = 3\nkeepalive = 4\n"
                   "dead_after = 5\n")
    assert loaded.settings.guest == settings.GuestSettings(1.0, 2.0, 3.0, 4.0, 5.0)
    assert loaded.settings.ssh.port == 2222 and not loaded.warnings


@pytest.mark.parametrize("text", ["[ssh]\nauth_timeout = 1\n[guest]\nlogin_timeout = 2\n",
                                  "[guest]\nlogin_timeout = 2\n[ssh]\nauth_timeout = 1\n"])
def test_the_current_name_of_a_key_wins_over_the_old_one_with_a_warning(text: str) -> None:
    loaded = parse(text, "/etc/some.conf")
    assert loaded.settings.guest.login_timeout == 2.0
    assert loaded.warnings == ["/etc/some.conf: section [ssh], key 'auth_timeout' is ignored: section [guest], key "
                               "'login_timeout' replaces it."]


def test_a_bad_value_under_an_old_name_is_reported_with_the_old_name() -> None:
    with pytest.raises(SettingsError, match=r"section \[ssh\], key 'banner_timeout': 'soon' is not allowed"):
        parse("[ssh]\nbanner_timeout = soon\n")


def test_a_percent_sign_has_no_special_meaning() -> None:
    assert parse("[daemon]\nlog_file = /var/log/%(x)s%d\n").settings.daemon.log_file == "/var/log/%(x)s%d"


@given(st.text(max_size=200), st.sampled_from([(section, key) for section, key, _ in _defaults()]))
def test_any_text_is_either_read_or_refused(text: str, where: Tuple[str, str]) -> None:
    for document in (text, f"[{where[0]}]\n{where[1]} = {text}\n"):
        try:
            loaded = parse(document)
        except SettingsError:
            continue
        assert isinstance(loaded.settings, Settings)


def test_the_path_argument_wins_over_the_environment(tmp_path: Path) -> None:
    one, other = tmp_path / "one.conf", tmp_path / "other.conf"
    one.write_text("[ssh]\nport = 1\n")
    other.write_text("[ssh]\nport = 2\n")
    environ = {settings.ENVIRONMENT_VARIABLE: str(other)}
    assert load(str(one), environ).settings.ssh.port == 1
    assert load(None, environ).settings.ssh.port == 2


def test_only_the_default_file_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = str(tmp_path / "missing.conf")
    monkeypatch.setattr(settings, "DEFAULT_PATH", missing)
    assert load(None, {}) == Loaded(Settings(), [])
    with pytest.raises(SettingsError, match="missing.conf does not exist"):
        load(missing, {})
    with pytest.raises(SettingsError, match="missing.conf does not exist"):
        load(None, {settings.ENVIRONMENT_VARIABLE: missing})


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(str(tmp_path))
    binary = tmp_path / "binary.conf"
    binary.write_bytes(b"[ssh]\nuser = \xff\n")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load(str(binary))


def test_the_shipped_file_equals_the_generated_one() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == sample(), "run make docs"


def test_the_shipped_file_has_the_defaults_commented_or_not() -> None:
    assert parse(sample()) == Loaded(Settings(), [])
    uncommented = re.sub(r"^#(?=[a-z])", "", sample(), flags=re.MULTILINE)
    assert "\nport = 22\n" in uncommented
    assert parse(uncommented) == Loaded(Settings(), [])


def test_there_is_a_row_for_every_key() -> None:
    assert [(section, key) for section, key, _, _ in rows()] == [(section, key) for section, key, _ in _defaults()]


def test_the_environment_defaults_to_the_processes_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "own.conf"
    conf.write_text("[ssh]\nuser = own\n")
    monkeypatch.setitem(os.environ, settings.ENVIRONMENT_VARIABLE, str(conf))
    assert load().settings.ssh.user == "own"


def _accepts(section: str, key: str, value: str) -> bool:
    try:
        parse(f"[{section}]\n{key} = {value}\n")
    except SettingsError:
        return False
    return True


_PATHS = st.text("/abz.. -_:@+;$()'\"\\`*~|&<>\t", min_size=1, max_size=12).map("/run{0}".format)


@given(_PATHS)
def test_a_socket_path_is_checked_as_in_other_config(path: str) -> None:
    assert _accepts("engine", "socket", path) == is_socket(path.strip())


@given(st.text("abA0_.@+$\\- ;'", min_size=1, max_size=8))
def test_a_user_name_is_checked_as_in_other_config(user: str) -> None:
    assert _accepts("ssh", "user", user) == is_user(user.strip())


@pytest.mark.parametrize("section, key", [(section, key) for section, keys in KEYS.items() for key in keys])
def test_each_key_is_used_by_a_module(section: str, key: str) -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "xscontainer").rglob("*.py")
               if path.name != "settings.py" and "simulator" not in path.parts]
    # The section may be in a variable of another name.
    assert any(re.search(rf"\.{key}\b", source) for source in sources)
