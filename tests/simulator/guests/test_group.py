"""Many guests at once, in this process and in another one."""

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator

import pytest

from tests.need import need
from tests.simulator.guests.ssh_client import KEY_LINE, PING, Client, exchange
from xscontainer.simulator.engines import NotAvailable, SimulatorError
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import Guests, OpenSSHGuest
from xscontainer.simulator.guests.addresses import AddressBlock, bind_all
from xscontainer.simulator.guests.openssh import refused_user

pytestmark = pytest.mark.real

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


@pytest.mark.parametrize("kind", ["openssh", "embedded"])
def test_100_guests_start_and_end(kind: str) -> None:
    need(kind != "openssh" or not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    before = threading.active_count()
    with Guests(count=100, kind=kind, engine="embedded") as guests:
        assert len({guest.address for guest in guests}) == 100 and len({guest.port for guest in guests}) == 1
        assert len({guest.host_key_base64 for guest in guests}) == 100
        assert threading.active_count() == before + 1
        guests.authorize(KEY_LINE)
        directory = guests.directory
        for guest in (guests[0], guests[99]):
            guest.engine.run("one")
            with Client(guest) as client:
                assert client.host_key == guest.host_key_base64
                exchange(client.streamlocal(guest.engine_socket), PING, b"OK")
    assert not os.path.exists(directory)


def test_two_groups_of_guests_share_no_address() -> None:
    with Guests(count=3, engine="none") as first, Guests(count=3, engine="none") as second:
        ends = {(guest.address, guest.port) for guests in (first, second) for guest in guests}
        assert len(ends) == 6


def test_guests_can_have_real_engines() -> None:
    need(not RealEngine.missing(), RealEngine.missing() or "dockerd")
    need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    with Guests(count=2, engine="real") as guests:
        guests.authorize(KEY_LINE)
        for guest in guests:
            guest.engine.run("one")
            with Client(guest) as client:
                exchange(client.streamlocal(guest.engine_socket), PING, b"OK")
    assert not os.path.exists(guests.directory)


def test_a_failed_start_names_the_guest_and_leaves_nothing(tmp_path: Any) -> None:
    block = AddressBlock().addresses(1)[0]
    held, = bind_all([block])
    port = held.getsockname()[1]
    held.close()
    with Guests(count=1, engine="none", port=port) as guests:
        assert guests[0].port == port
    with pytest.raises(SimulatorError, match="longer than 100"):
        with Guests(str(tmp_path / ("x" * 90)), count=2, engine="embedded"):
            pass


def test_no_two_guests_of_a_process_get_the_same_address() -> None:
    """Before, two of a hundred random addresses were equal in one of five runs, and both VMs had a conflict."""
    blocks = [AddressBlock() for _ in range(3000)]
    assert len({block.addresses(1)[0] for block in blocks}) == len(blocks)
    large = AddressBlock()
    assert len(set(large.addresses(600))) == 600 and large.addresses(600)[:3] == large.addresses(3)
    assert large.addresses(1)[0] not in {block.addresses(1)[0] for block in blocks}


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("xscontainer.simulator.engines.processes.find_program", lambda name: None)
    with pytest.raises(NotAvailable, match="sshd"):
        Guests(kind="openssh")
    with pytest.raises(NotAvailable):
        Guests(kind="embedded", engine="real")
    guests = Guests()
    assert (guests.kind, guests.engine) == ("embedded", "embedded")
    guests.close()
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("entry, locked", [("me:!*:::::::", True), ("me:*:20000:0:99999:7:::", False), ("", False)])
def test_sshd_is_not_chosen_for_a_locked_account(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Any, entry: str, locked: bool) -> None:
    getent = tmp_path / "getent"
    getent.write_text(f"#!/bin/sh\n[ \"$1 $2\" = 'shadow me' ] && echo '{entry}'\n")
    getent.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bool(refused_user.__wrapped__("me")) == locked


class Process:
    """The stand-alone process, with commands and answers line by line."""

    def __init__(self, *arguments: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "xscontainer.simulator.guests"] + list(arguments),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self.about = self._read()

    def _read(self) -> Dict[str, Any]:
        assert self.child.stdout is not None
        answer: Dict[str, Any] = json.loads(self.child.stdout.readline().decode())
        return answer

    def ask(self, **command: Any) -> Dict[str, Any]:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(command).encode() + b"\n")
        self.child.stdin.flush()
        return self._read()

    def end(self) -> int:
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.close()
        code = self.child.wait(20)
        self.child.stdout.close()
        return code


@pytest.fixture
def process() -> Iterator[Process]:
    started = Process("--count", "3", "--containers", "2")
    yield started
    started.end()


def test_the_process_prints_the_guests_and_obeys_commands(process: Process) -> None:
    assert [guest["containers"] for guest in process.about["guests"]] == [["c1", "c0"]] * 3
    before = time.monotonic()
    answer = process.ask(guest=1, do="pause", container="c0")
    assert answer["ok"] and before <= answer["before"] <= answer["after"] <= time.monotonic()
    states = {entry["Names"][0]: entry["State"] for entry in process.ask(guest=1, do="list")["result"]}
    assert states == {"/c0": "paused", "/c1": "running"}
    assert process.ask(guest=1, do="run", name="fresh", image="nginx:1", Labels={"a": "b"})["ok"]
    assert process.ask(do="authorize", key=KEY_LINE)["ok"] and process.ask(guest=0, do="guest-restart")["ok"]
    assert process.ask(guest=0, do="engine-fault", kind="status", status=503, match="/info", body="{}")["ok"]
    assert process.ask(guest=0, do="behave")["ok"]
    assert process.ask(do="stats")["result"]["sessions"] == 0


def test_the_process_refuses_invalid_commands_and_goes_on(process: Process) -> None:
    for command in ({"do": "dance"}, {"guest": 99, "do": "list"}, {"guest": 0, "do": "pause", "container": "no"},
                    {"guest": 0, "do": "guest-nothing"}, {}, {"guest": 0, "do": "pause"}):
        answer = process.ask(**command)
        assert not answer["ok"] and answer["error"], command
    assert process.ask(do="stats")["ok"]


@pytest.mark.parametrize("how", ["stdin", "SIGTERM"])
def test_the_process_leaves_nothing(how: str) -> None:
    process = Process("--count", "2")
    directory = process.about["directory"]
    assert os.path.isdir(directory)
    if how == "SIGTERM":
        process.child.terminate()
    assert process.end() == 0
    assert not os.path.exists(directory)
