"""The settings file: defaults, every key's limits, and the documents made from the same table."""

import os
import re
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer import settings
from xscontainer.errors import SettingsError
from xscontainer.settings import KEYS, Loaded, Settings, load, parse, sample, table

SHIPPED = Path(__file__).resolve().parent.parent / "rpm" / "xscontainer.conf"


def _defaults() -> Iterator[Tuple[str, str, Any]]:
    for section, values in Settings()._asdict().items():
        for key, value in values._asdict().items():
            yield section, key, value


def test_the_table_describes_exactly_the_fields_of_the_settings() -> None:
    described = [(section, key) for section, keys in KEYS.items() for key in keys]
    assert described == [(section, key) for section, key, _ in _defaults()]


@pytest.mark.parametrize("section, key, default", list(_defaults()))
def test_every_default_is_allowed_and_keeps_its_type(section: str, key: str, default: Any) -> None:
    written = {name: text for part, name, text, _ in settings._rows() if part == section}[key]
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
}


def _split(line: str) -> Tuple[str, str, str]:
    section, _, rest = line.partition("] ")
    key, _, value = rest.partition(" =")
    return section[1:], key, value.strip()


@pytest.mark.parametrize("line", sorted(GOOD))
def test_good_values(line: str) -> None:
    section, key, value = _split(line)
    loaded = parse(f"[{section}]\n{key} = {value}\n")
    assert getattr(getattr(loaded.settings, section), key) == GOOD[line]


BAD = [
    "[daemon] socket = relative.sock",
    "[daemon] socket = /" + "x" * 107,
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
    "[ssh] keepalive = nan",
    "[ssh] keepalive = inf",
    "[ssh] keepalive = 1e3",
    "[ssh] connect_timeout = 0",
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
    # The parser strips continued lines, so only the first line of such a value is looked for.
    shown = value.split("\n")[0][:50]
    for part in ("/etc/some.conf", f"[{section}]", f"'{key}'", f"'{shown}", KEYS[section][key].kind.allowed):
        assert part in message


@pytest.mark.parametrize("text", ["[ssh]\nkeepalive = 50\n", "[monitor]\nbackoff_min = 9\nbackoff_max = 8\n"])
def test_values_that_contradict_each_other_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="must be at most the value of"):
        parse(text)


@pytest.mark.parametrize(
    "text", ["port = 22\n", "[ssh\n", "[ssh]\nport\n", "[ssh]\nport = 1\nport = 2\n", "[ssh]\n[ssh]\n"]
)
def test_what_is_no_ini_file_is_refused_with_the_files_name(text: str) -> None:
    with pytest.raises(SettingsError, match="/etc/some.conf is no INI file"):
        parse(text, "/etc/some.conf")


def test_unknown_sections_and_keys_are_told_and_change_nothing() -> None:
    loaded = parse("[DEFAULT]\nport = 1\n[shh]\nport = 2\n[ssh]\nprot = 3\n", "/etc/some.conf")
    assert loaded.settings == Settings()
    assert loaded.warnings == [
        "/etc/some.conf: there is no section [DEFAULT]; it is ignored.",
        "/etc/some.conf: there is no section [shh]; it is ignored.",
        "/etc/some.conf: section [ssh] has no key 'prot'; it is ignored.",
    ]


def test_a_percent_sign_is_just_a_character() -> None:
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


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(str(tmp_path))
    binary = tmp_path / "binary.conf"
    binary.write_bytes(b"[ssh]\nuser = \xff\n")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load(str(binary))


def test_the_shipped_sample_is_the_one_made_from_the_table() -> None:
    remedy = "python3 -c 'from xscontainer import settings; print(settings.sample(), end=\"\")' > rpm/xscontainer.conf"
    assert SHIPPED.read_text(encoding="utf-8") == sample(), f"make it anew: {remedy}"


def test_the_sample_changes_nothing_as_it_is_nor_with_every_line_uncommented() -> None:
    assert parse(sample()) == Loaded(Settings(), [])
    uncommented = re.sub(r"^#(?=[a-z])", "", sample(), flags=re.MULTILINE)
    assert "\nport = 22\n" in uncommented
    assert parse(uncommented) == Loaded(Settings(), [])


def test_the_table_has_a_row_for_every_key() -> None:
    rows = [row.split(" | ")[:2] for row in table().splitlines()[2:]]
    assert rows == [[f"| `[{section}]`", f"`{key}`"] for section, key, _ in _defaults()]


def test_the_environment_is_the_processes_own_unless_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "own.conf"
    conf.write_text("[ssh]\nuser = own\n")
    monkeypatch.setitem(os.environ, settings.ENVIRONMENT_VARIABLE, str(conf))
    assert load().settings.ssh.user == "own"
