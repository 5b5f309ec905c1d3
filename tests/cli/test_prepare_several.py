"""prepare for several VMs on a simulated pool: questions first, then the work, then one summary."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from typing import Any, Iterator

import pytest

from docs.blocks import ROOT
from tests.cli.shown import Commands
from tests.docs import pool as terminal
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves all tests
from xscontainer import keys
from xscontainer.simulator.demo.guests import PASSWORD
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

NAMES = ("one", "two", "three", "four", "five", "six", "seven")
SPECS = tuple(GuestSpec(name, (ContainerSpec("web"),), host=number % 2, monitored=False, prepared=False,
                        password="another" if name == "six" else PASSWORD)
              for number, name in enumerate(NAMES))
PARTS = Parts(ssh="embedded", engine="embedded", settings={"engine": {"request_timeout": 1}})


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[World]:
    with World(str(tmp_path_factory.mktemp("w")), guests=SPECS, parts=PARTS) as made:
        yield made


@contextlib.contextmanager
def password(text: str = PASSWORD) -> "Iterator[str]":
    read, write = os.pipe()
    os.write(write, text.encode() + b"\n")
    os.close(write)
    try:
        yield str(read)
    finally:
        os.close(read)


def rows(text: str) -> Any:
    return [re.split(r" {2,}", line) for line in text.splitlines()]


def test_questions_come_before_the_work_and_a_summary_at_the_end(world: World,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(terminal.ANSWERS, "in one, two: ", PASSWORD)
    code, text = terminal.run(world, "xscontainer prepare one two")
    assert code == 0, text
    order = [text.index(part) for part in (
        "one:", "Is this the VM's key?", "two:", "Password of root in one, two:", "one  prepared, key installed",
        "two  prepared, key installed", "2 of 2 VMs are prepared.")]
    assert order == sorted(order), text
    assert text.count("Is this the VM's key?") == 2 and text.count("Password of") == 1
    assert text.rindex("Is this the VM's key?") < text.index("Password of")
    assert "... " not in text[:text.index("Password of")]  # nothing is done before; a quick VM shows no step at all
    for name in ("one", "two"):
        assert world.vm(name).other_config[keys.MONITOR] == "True"


def test_a_vm_that_fails_does_not_stop_the_others(world: World, run: Commands) -> None:
    world.vm("four").guest.stop()
    try:
        with password() as descriptor:
            shown = run("prepare", "--yes", "--password-fd", descriptor, "one", "three", "four")
    finally:
        world.vm("four").guest.start()
    assert shown.code == 1
    table = rows(shown.out[shown.out.index("VM "):])
    engine = table[1][2]
    assert table == [["VM", "RESULT", "ENGINE", "CONTAINERS"], ["one", "prepared", engine, "1"],
                     ["three", "prepared, key installed", engine, "1"], ["four", "not prepared: GUEST_REFUSED"],
                     ["2 of 3 VMs are prepared."]]
    assert re.search(r"^xscontainer: four: GUEST_REFUSED: .*sshd", shown.err, re.MULTILINE)
    assert keys.MONITOR not in world.vm("four").other_config


def test_nothing_is_trusted_without_an_answer(world: World, run: Commands) -> None:
    """Standard input is no terminal."""
    with password() as descriptor:
        shown = run("prepare", "--password-fd", descriptor, "four", "five")
    assert shown.code == 2 and shown.err.count("Give --fingerprint, or --yes") == 2
    assert "0 of 2 VMs are prepared." in shown.out
    assert not any(keys.HOST_KEY in world.vm(name).other_config for name in ("four", "five"))


@pytest.mark.parametrize("option", [("--fingerprint", "SHA256:x"), ("--address", "10.0.0.1"),
                                    ("--generate-certs", "--mode", "tls")])
def test_an_option_that_is_true_of_one_vm_is_refused_for_several(run: Commands, option: Any) -> None:
    shown = run("prepare", "four", "five", *option)
    assert (shown.code, shown.out) == (2, "") and f"{option[0]} is for one VM" in shown.err


def test_a_refused_password_is_that_vms_failure(world: World, run: Commands) -> None:
    with password() as descriptor:
        shown = run("prepare", "--yes", "--password-fd", descriptor, "five", "six")
    assert shown.code == 1 and "six: PASSWORD_NOT_ACCEPTED" in shown.err
    assert "1 of 2 VMs are prepared." in shown.out
    assert not {record["value"] for record in world.pool.records("secret").values()} & {PASSWORD, "another"}


def test_one_vm_that_is_named_twice_is_one_vm(world: World, run: Commands) -> None:
    with password() as descriptor:
        assert run("prepare", "--yes", "--password-fd", descriptor, "one").code == 0
    shown = run("prepare", "one", world.vm("one").uuid)
    assert shown.code == 0 and "Nothing had to be installed" in shown.out


def test_an_interrupt_cancels_what_is_under_way(world: World) -> None:
    """The engine of one VM answers nothing."""
    world.vm("seven").engine.freeze()
    try:
        with password() as descriptor:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config", world.daemons[0].config_path,
                 "prepare", "--yes", "--password-fd", descriptor, "four", "seven"],
                cwd=str(ROOT), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                pass_fds=(int(descriptor),))
            assert process.stderr is not None
            for line in iter(process.stderr.readline, b""):
                if b"seven: asking the engine" in line:
                    break
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
    finally:
        world.vm("seven").engine.thaw()
    assert process.returncode == 130 and b"seven: cancelling" in err
    assert not [record for record in world.pool.records("task").values() if record["status"] == "pending"]
    assert keys.MONITOR not in world.vm("seven").other_config
