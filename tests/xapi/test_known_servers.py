"""The file of confirmed certificates: private, atomic, and kept apart from foreign hands."""

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from xscontainer.errors import SettingsError
from xscontainer.xapi.address import Address
from xscontainer.xapi.known_servers import KnownServers, default_path

ONE, TWO = Address("one"), Address("::1", 8443)


@pytest.fixture
def known(tmp_path: Path) -> KnownServers:
    return KnownServers(str(tmp_path / "xscontainer" / "known_servers"))


def test_a_fingerprint_is_kept_and_replaced(known: KnownServers) -> None:
    assert known.fingerprint(ONE) is None
    known.add(ONE, "AA")
    known.add(TWO, "BB")
    known.add(ONE, "CC")
    assert [known.fingerprint(each) for each in (ONE, TWO, Address("one", 444))] == ["CC", "BB", None]
    assert Path(known.path).read_text() == "[::1]:8443 BB\none:443 CC\n"


def test_only_the_owner_may_read_the_file_and_nothing_else_remains(known: KnownServers) -> None:
    before = os.umask(0)
    try:
        known.add(ONE, "AA")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(known.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(known.path)).st_mode) == 0o700
    assert os.listdir(os.path.dirname(known.path)) == ["known_servers"]


def test_foreign_lines_stay(known: KnownServers) -> None:
    known.add(ONE, "AA")
    Path(known.path).write_text("# comment\n\none:443 AA\none:443 too many words\ngarbage\n")
    known.add(TWO, "BB")
    assert Path(known.path).read_text().splitlines()[0] == "# comment"
    assert (known.fingerprint(ONE), known.fingerprint(TWO)) == ("AA", "BB")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(known: KnownServers, mode: int) -> None:
    known.add(ONE, "AA")
    os.chmod(known.path, mode)
    with pytest.raises(SettingsError, match="chmod 600"):
        known.fingerprint(ONE)
    with pytest.raises(SettingsError):
        known.add(TWO, "BB")
    assert Path(known.path).read_text() == "one:443 AA\n"


def test_a_file_that_is_a_directory_or_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        KnownServers(str(tmp_path)).fingerprint(ONE)
    (tmp_path / "long").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(SettingsError, match="longer"):
        KnownServers(str(tmp_path / "long")).fingerprint(ONE)


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be stored"):
        KnownServers(str(tmp_path / "file" / "known_servers")).add(ONE, "AA")


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    KnownServers(str(tmp_path / "link")).add(ONE, "AA")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "one:443 AA\n"


def test_commands_that_add_at_the_same_time_lose_nothing(known: KnownServers) -> None:
    threads = [threading.Thread(target=known.add, args=(Address(f"host{number}"), "AA")) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert len(Path(known.path).read_text().splitlines()) == 16


@pytest.mark.parametrize("environ, path", [
    ({"XDG_CONFIG_HOME": "/c"}, "/c/xscontainer/known_servers"),
    ({"XDG_CONFIG_HOME": "relative"}, "/h/.config/xscontainer/known_servers"),
    ({}, "/h/.config/xscontainer/known_servers")])
def test_the_file_is_in_the_users_configuration(monkeypatch: pytest.MonkeyPatch, environ: Any, path: str) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert default_path(environ) == path
