"""Tests of the resolver: names become addresses within a deadline, even if getent hangs."""

import os
import time
from typing import Any, Callable

import pytest

from tests.need import need_program
from xscontainer.errors import NameUnresolved
from xscontainer.host.resolver import MOST_ADDRESSES, resolve

Getent = Callable[[str], None]


@pytest.fixture
def getent(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Getent:
    """Another getent than this machine's: (a shell script)."""
    def make(script: str) -> None:
        path = tmp_path / "bin" / "getent"
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + script + "\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return make


def test_localhost_is_resolved() -> None:
    need_program("getent")
    assert set(resolve("localhost", 10.0)) <= {"127.0.0.1", "::1"}


def test_an_unknown_name_is_unresolved() -> None:
    need_program("getent")
    with pytest.raises(NameUnresolved, match="no-such-name.invalid"):
        resolve("no-such-name.invalid", 30.0)


def test_addresses_keep_the_resolvers_order_without_duplicates(getent: Getent) -> None:
    getent('[ "$*" = "ahosts web.example" ] || exit 9\n'
           "for kind in STREAM DGRAM RAW; do echo 2001:db8::5 $kind web; done\n"
           "echo 10.0.0.5 STREAM; echo; echo 10.0.0.6")
    assert resolve("web.example", 10.0) == ("2001:db8::5", "10.0.0.5", "10.0.0.6")


def test_a_hanging_resolver_is_killed(getent: Getent) -> None:
    getent("exec sleep 100")
    begun = time.monotonic()
    with pytest.raises(NameUnresolved, match="within 0.2 s"):
        resolve("web.example", 0.2)
    assert time.monotonic() - begun < 5.0


@pytest.mark.parametrize("script", ["exit 2", "exit 0", "exit 1", "kill -9 $$"])
def test_an_empty_answer_is_an_error(getent: Getent, script: str) -> None:
    getent(script)
    with pytest.raises(NameUnresolved, match="web.example"):
        resolve("web.example", 10.0)


def test_a_missing_resolver_is_reported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NameUnresolved, match="getent"):
        resolve("web.example", 10.0)


def test_the_number_of_addresses_is_bounded(getent: Getent) -> None:
    getent("i=0; while [ $i -lt 9000 ]; do i=$((i+1)); echo 10.0.$((i / 250)).$((i % 250)) STREAM; done")
    assert len(resolve("web.example", 30.0)) == MOST_ADDRESSES
