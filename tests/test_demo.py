"""The world on one machine, and the demo on it: what it shows has happened, and nothing stays behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest
import XenAPI

from tests.need import need
from tests.setup.parts import NODE, find
from xscontainer import keys
from xscontainer.cli import columns
from xscontainer.errors import XapiError
from xscontainer.simulator import demo, demo_eye
from xscontainer.simulator.engines import SimulatorError, processes
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import OpenSSHGuest
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Interrupted, World

ROOT = Path(__file__).resolve().parent.parent
SPECS = (
    GuestSpec("classic", (ContainerSpec("hadoop", "hadoop:3"), ContainerSpec("tomcat", state="paused"),
                          ContainerSpec("mysql", state="exited"), ContainerSpec("apache", state="created")), host=0),
    GuestSpec("later", (ContainerSpec("only"),), host=1, monitored=False),
)


@pytest.fixture
def place() -> Iterator[str]:
    """A short directory (sockets live below it) that has to be empty in the end, whatever was done in it."""
    directory = tempfile.mkdtemp(prefix="d")
    try:
        yield directory
        assert os.listdir(directory) == []
        assert not processes.mentioning(directory)
        assert not processes.mounts_below(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def world(place: str, **options: Any) -> World:
    return World(os.path.join(place, "w"), guests=SPECS, **dict({"engine": "embedded"}, **options))


# --- the world ---------------------------------------------------------------


def test_lists_are_published_and_every_host_takes_calls(place: str) -> None:
    with world(place) as here:
        here.wait_all_published()
        shown = here.vm("classic").containers
        assert shown is not None
        assert {name: one.status for name, one in shown.items()} == {
            "hadoop": "Up", "tomcat": "Up (Paused)", "mysql": "Exited (137)", "apache": "Created"}
        assert shown["hadoop"].image == "hadoop:3"
        for host, verb, state in ((0, "pause", "paused"), (1, "unpause", "running")):
            assert here.act(host, verb, "classic", "hadoop").startswith("True")
            wanted = state
            here.wait_published("classic", lambda listed: listed["hadoop"].state == wanted)  # noqa: B023 - used at once
        with pytest.raises(XapiError) as refused:
            here.act(1, "start", "classic", "nobody")
        assert refused.value.details[0] == "CONTAINER_NOT_FOUND"


def test_a_vm_that_is_registered_later_is_shown_then(place: str) -> None:
    with world(place) as here:
        vm = here.vm("later")
        here.wait_all_published()
        assert vm.containers is None
        assert here.call(0, "register", vmuuid=vm.uuid).startswith("True")
        assert list(here.wait_published("later")) == ["only"]
        assert here.call(1, "deregister", vmuuid=vm.uuid).startswith("True")
        here.wait(lambda: vm.containers is None, "an end of the list")


def test_guests_follow_the_power_of_their_vms(place: str) -> None:
    need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    with world(place) as here:
        vm = here.vm("classic")
        here.wait_published("classic")

        def power(operation: str, *more: Any) -> None:
            with here.session() as session:
                getattr(session.xenapi.VM, operation)(vm.ref, *more)

        power("hard_shutdown")
        here.wait(lambda: vm.containers is None, "a wipe at the shutdown")
        assert (vm.host, vm.guest.sessions, vm.engine.running) == (None, 0, False)
        power("start", False, False)
        assert all(one.state == "exited" or name == "apache" for name, one in here.wait_published("classic").items())
        sessions = vm.guest.accepted
        power("clean_reboot")
        here.wait(lambda: vm.guest.accepted > sessions, "a new connection after the reboot")
        here.wait_published("classic")
        power("suspend")
        here.wait(lambda: vm.containers is None, "a wipe at the suspension")
        power("resume", False, False)
        here.wait_published("classic")
        power("pool_migrate", here.pool.hosts[1].ref, {})
        assert vm.host is here.pool.hosts[1]
        assert here.act(0, "start", "classic", "hadoop").startswith("True")
        here.wait_published("classic", lambda listed: listed["hadoop"].state == "running")


def test_a_daemon_can_be_stopped_killed_and_started_again(place: str) -> None:
    with world(place) as here:
        here.wait_all_published()
        daemon = here.daemon(0)
        first = daemon.pid
        daemon.restart()
        assert daemon.running and daemon.pid != first
        daemon.kill()
        assert daemon.pid == 0
        here.vm("classic").engine.do("unpause", "tomcat")
        assert here.act(1, "get_inspect", "classic", "tomcat").startswith("True<?xml")  # without a daemon
        daemon.start()
        here.wait_published("classic", lambda listed: listed["tomcat"].state == "running")
        assert daemon.stop() == 0


def test_without_daemons_the_plugin_makes_the_key_pair_that_guests_let_in(place: str) -> None:
    with world(place, daemons=False) as here:
        assert not any(daemon.running for daemon in here.daemons)
        # The first call makes the pair and connects at once; the guests' owner needs a moment to let it in.
        deadline = time.monotonic() + 20
        while True:
            try:
                assert "hadoop" in here.act(0, "get_inspect", "classic", "hadoop")
                break
            except XapiError as error:
                assert error.details[0] == "KEY_NOT_ACCEPTED" and time.monotonic() < deadline
        assert here.vm("classic").containers is None


def test_what_does_not_come_about_is_an_error_that_says_why(place: str) -> None:
    with world(place) as here:
        here.wait_all_published()
        here.pool.set_key(here.vm("classic").ref, keys.STATUS, "a status of its own")
        with pytest.raises(SimulatorError, match="what is expected of the list of classic did not.*") as missed:
            here.wait_published("classic", lambda listed: "nobody" in listed, timeout=0.2)
        assert "daemon of host1: " in str(missed.value)


@pytest.mark.parametrize("wrong, said", [
    ({"settings": {"ssh": {"port": "none"}}}, "port"),
    ({"settings": {"daemon": {"log_file": "/dev/null/x"}}}, "the daemon of host1 ended"),
    ({"guest_options": {"engine_socket": "/" + "x" * 200}}, "longer than"),
])
def test_a_failed_start_leaves_nothing(place: str, wrong: Dict[str, Any], said: str) -> None:
    with pytest.raises(demo.Failure, match=said):
        with world(place, **wrong):
            pass


@pytest.mark.parametrize("sentence", ["a XAPI pool", "guests with", "a monitor on every host"])
def test_an_interrupted_start_leaves_nothing(place: str, sentence: str) -> None:
    stop = threading.Event()

    def progress(text: str) -> None:
        if sentence in text:
            stop.set()

    with pytest.raises(Interrupted):
        with world(place, stop=stop, progress=progress) as here:
            here.wait(lambda: False)


def test_an_interrupt_is_noticed_when_nothing_is_to_be_waited_for(place: str) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        world(place, stop=stop).wait(lambda: True)


# --- the demo ----------------------------------------------------------------


class Run:
    """The demo as a process, and what it has said so far. A context manager: leaving makes sure that it has ended."""

    def __init__(self, place: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "xscontainer.simulator.demo", *options], cwd=str(ROOT),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env=dict(os.environ, TMPDIR=place, PYTHONIOENCODING="utf-8"))
        self.text = ""

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.communicate(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def read_to(self, words: str) -> None:
        """Read until it says ``words``; the test's own limit ends a wait in vain."""
        assert self.process.stdout is not None
        while words not in self.text:
            line = self.process.stdout.readline().decode("utf-8")
            assert line, f"it ended without {words!r}: {self.text}"
            self.text += line

    def end(self, number: Optional[int] = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=90)
        self.text += out.decode("utf-8")
        return self.process.returncode


def check_story(text: str) -> None:
    """Everything that the demo is to show, in its order."""
    story = [
        r"a XAPI pool of 2 hosts, host1 coordinates it",
        r"5 guests with 9 containers",
        r"every list is published, \d",
        r"^Simulated pool$",
        r"^  host1 +coordinator$",
        r"^    classic +Running +Engine \d",
        r"^      \w+ +Up +\S+ +stop restart pause$",
        r"^  host2$",
        r"^      sessions +Up \(Paused\) +redis:7 +unpause stop restart$",
        r"stop hadoop in VM classic, which runs on host1: host.call_plugin on host2$",
        r"clients saw 'Exited \(\d+\)' \d+ ms after the engine's event; the call took \d+ ms$",
        r"start hadoop in VM classic, which runs on host1: host.call_plugin on host2$",
        r"clients saw 'Up' \d+ ms after",
        r"live migration of VM classic from host1 to host2$",
        r"pause hadoop in VM classic, which runs on host2: host.call_plugin on host1$",
        r"clients saw 'Up \(Paused\)' \d+ ms after",
        r"classic runs on host2 now; its list was there all the time",
        r"diagnose VM legacy, which nobody prepared$",
        r"KEY_NOT_ACCEPTED: The user \S+ at 127\.\S+ port \d+ cannot log in",
        r"next: Prepare the VM \('xscontainer prepare'\)",
        r"\$ xscontainer prepare legacy --user \S+ --fingerprint SHA256:\S{43} --password-fd 0$",
        r"The pool's key was installed; the engine \S+ answers, with 1 container\.$",
        r"^ +legacy +Running +Engine \d",
        r"^ +erp +Up ",
        r"\$ xscontainer create web --template 'Docker on Debian' --network Guests --image debian\.raw$",
        r"Its containers are listed",
        r"\$ xscontainer list --vm web$",
        r"^ +hello +Up ",
        r"make demo ARGS=--stay$",
        r"all of it is gone again$",
    ]
    at = 0
    for step in story:
        found = re.compile(step, re.MULTILINE).search(text, at)
        assert found, f"{step!r} is missing after: {text[:at][-300:]}\n--- in:\n{text}"
        at = found.end()
    assert "127.0.0.1" not in text  # of a pool that is gone
    assert {"hadoop", "tomcat", "mysql", "apache"} <= set(re.findall(r"^      (\w+) ", text, re.MULTILINE))


@pytest.mark.parametrize("options", [["--no-docker", "--ssh", "embedded"], ["--no-docker"]], ids=" ".join)
def test_the_demo_shows_what_happens(place: str, options: List[str]) -> None:
    need("embedded" in options or not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    begun = time.monotonic()
    with Run(place, *options) as run:
        assert run.end() == 0, run.text
        check_story(run.text)
    assert time.monotonic() - begun < 60


@pytest.mark.real
def test_the_demo_on_real_engines(place: str) -> None:
    need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    need(not RealEngine.missing(), "root and dockerd (Debian: docker.io)")
    begun = time.monotonic()
    with Run(place) as run:
        assert run.end() == 0, run.text
        check_story(run.text)
        assert "engines: real, SSH: openssh" in run.text
    assert time.monotonic() - begun < 60


def test_more_hosts_and_guests(place: str) -> None:
    with Run(place, "--no-docker", "--hosts", "3", "--guests", "6") as run:
        assert run.end() == 0, run.text
    assert "6 guests with 10 containers" in run.text
    assert re.search(r"^  host3$", run.text, re.MULTILINE) and re.search(r"^    vm6 ", run.text, re.MULTILINE)


def test_what_it_prints_for_clients_works_while_it_stays(place: str) -> None:
    with Run(place, "--no-docker", "--stay") as run:
        run.read_to("it stays until")
        check_python(run.text)
        check_command(run.text)
        check_node(run.text)
        assert run.end(signal.SIGINT) == 0
        assert "all of it is gone again" in run.text


def check_python(text: str) -> None:
    """The lines as printed, in one go; they stop hadoop."""
    lines = [line.strip() for line in text[text.index("import XenAPI"):].splitlines()]
    code = "\n".join(lines[:3]) + "\n" + "answer = " + lines[3] + lines[4]
    names: Dict[str, Any] = {}
    exec(code, names)
    session = names["session"]
    try:
        assert isinstance(session, XenAPI.Session)
        assert names["answer"].startswith("True")
    finally:
        session.xenapi.session.logout()
        session("close")()


def check_command(text: str) -> None:
    """The lines as printed, by a shell."""
    lines = re.search(r"^ +xscontainer\(\) \{.*\}$((?:\n +xscontainer .*$)+)", text, re.MULTILINE)
    assert lines
    done = subprocess.run(["/bin/sh", "-ec", lines.group(0)], cwd=str(ROOT), stdout=subprocess.PIPE, timeout=60,
                          check=True)
    said = done.stdout.decode("utf-8")
    assert re.search(r"^ +hadoop +Exited \(137\) ", said, re.MULTILINE)
    assert "The VM web-2" in said and "Its containers are listed" in said and "#cloud-config" in said


def check_node(text: str) -> None:
    node = find("node")
    need(node, "node (Debian: nodejs)")
    need((NODE / "node_modules" / "xen-api").is_dir(), "the JavaScript clients (npm ci in tests/clients/node)")
    begun = text.index("const { createClient }")
    ended = text.index("await xapi.connect()")
    script = text[begun:ended] + (
        "await xapi.connect(); const hosts = await xapi.call('host.get_all_records');"
        "console.log(Object.keys(hosts).length); await xapi.disconnect(); process.exit(0)")
    done = subprocess.run([node, "--input-type=module", "-e", script], cwd=str(NODE), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"2\n"), done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("words", ["a XAPI pool of", "a monitor on every host", "stop hadoop", "$ xscontainer create"])
def test_an_interrupted_demo_leaves_nothing(place: str, words: str, number: int) -> None:
    with Run(place, "--no-docker") as run:
        run.read_to(words)
        assert run.end(number) == 130, run.text
        assert run.text.rstrip().endswith("interrupted; all of it is gone again")


@pytest.mark.real
def test_an_interrupted_start_of_real_engines_leaves_nothing(place: str) -> None:
    need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    need(not RealEngine.missing(), "root and dockerd (Debian: docker.io)")
    with Run(place) as run:
        run.read_to("a XAPI pool of")
        assert run.end(signal.SIGTERM) == 130, run.text


def test_a_failure_is_told_and_ends_with_1(place: str) -> None:
    too_long = os.path.join(place, "x" * 100)
    os.mkdir(too_long)
    try:
        with Run(too_long, "--no-docker") as run:
            assert run.end() == 1
            assert "the demo failed: sockets need a directory whose path is shorter" in run.text
            assert "Traceback" not in run.text
    finally:
        os.rmdir(too_long)


def test_what_did_not_happen_is_not_shown(
    place: str, capsys: "pytest.CaptureFixture[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_eye, "SEEN_SECONDS", 1.0)
    with world(place) as here:
        here.wait_all_published()
        play = demo.Demo(here, time.monotonic())
        here.daemon(0).kill()
        with demo_eye.Eye(here, "classic") as eye:
            with pytest.raises(SimulatorError, match="the sight of hadoop exited did not come about"):
                play.act(eye, "stop", "die", "exited")
        here.pool.remove_key(here.vm("classic").ref, keys.PS)
        with pytest.raises(SimulatorError, match="containers are listed"):
            play.show_tree()
    assert "clients saw" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--hosts", "1"], ["--hosts", "x"], ["--guests", "0"], ["--guests", "101"]])
def test_impossible_numbers_are_refused(arguments: List[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        demo.main(arguments)
    assert ended.value.code == 2


def test_the_tree_of_the_demo_fits_a_terminal() -> None:
    """The widest line it can draw of its own guests, without a remark."""
    widest = max(columns.width(f"      {one.name}") + len(one.image) for spec in demo.GUESTS for one in spec.containers)
    assert widest + len("Exited (137)") + len("unpause stop restart") + 8 <= 80


