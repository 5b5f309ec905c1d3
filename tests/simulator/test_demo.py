"""The simulated world and the demo: all that the demo shows has happened, and nothing stays behind."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
import XenAPI

from tests.need import need
from tests.setup.parts import NODE, find
from xscontainer import keys
from xscontainer.cli.ui import columns
from xscontainer.errors import XapiError
from xscontainer.simulator.demo import __main__ as demo
from xscontainer.simulator.demo import acts
from xscontainer.simulator.demo import eye as demo_eye
from xscontainer.simulator.demo import guests as demo_guests
from xscontainer.simulator.engines import SimulatorError, processes, trial
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import OpenSSHGuest
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Interrupted, Parts, World

ROOT = Path(__file__).resolve().parent.parent.parent
SPECS = (
    GuestSpec("classic", (ContainerSpec("hadoop", "hadoop:3"), ContainerSpec("tomcat", state="paused"),
                          ContainerSpec("mysql", state="exited"), ContainerSpec("apache", state="created")), host=0),
    GuestSpec("later", (ContainerSpec("only"),), host=1, monitored=False),
)


@pytest.fixture
def place() -> Iterator[str]:
    """Make a directory with a short path, for sockets; check that it is empty in the end."""
    directory = tempfile.mkdtemp(prefix="d")
    try:
        yield directory
        assert os.listdir(directory) == []
        assert not processes.mentioning(directory)
        assert not processes.mounts_below(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def world(
    place: str, stop: Optional[threading.Event] = None, progress: Callable[[str], None] = lambda text: None,
    **parts: Any
) -> World:
    return World(os.path.join(place, "w"), guests=SPECS, parts=Parts(engine="embedded", **parts), progress=progress,
                 stop=stop)


# --- the world ---------------------------------------------------------------


def test_every_host_takes_calls_once_the_lists_are_published(place: str) -> None:
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


def test_a_vm_that_is_registered_later_is_published(place: str) -> None:
    with world(place) as here:
        vm = here.vm("later")
        here.wait_all_published()
        assert vm.containers is None
        assert here.call(0, "register", vmuuid=vm.uuid).startswith("True")
        assert list(here.wait_published("later")) == ["only"]
        assert here.call(1, "deregister", vmuuid=vm.uuid).startswith("True")
        here.wait(lambda: vm.containers is None, "an end of the list")


@pytest.mark.real
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
        # The first call makes the key pair and connects at once; the guests authorize the key a moment later.
        deadline = time.monotonic() + 20
        while True:
            try:
                assert "hadoop" in here.act(0, "get_inspect", "classic", "hadoop")
                break
            except XapiError as error:
                assert error.details[0] == "KEY_NOT_ACCEPTED" and time.monotonic() < deadline
        assert here.vm("classic").containers is None


def test_a_wait_that_times_out_reports_the_reason(place: str) -> None:
    with world(place) as here:
        here.wait_all_published()
        here.pool.set_key(here.vm("classic").ref, keys.STATUS, "a status of its own")
        with pytest.raises(SimulatorError, match="waiting for the expected list of VM classic") as missed:
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


def test_a_wait_for_a_true_condition_still_notices_an_interrupt(place: str) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        world(place, stop=stop).wait(lambda: True)


# --- the demo ----------------------------------------------------------------


class Run:
    """The demo as a process, with its output so far. A context manager that ends the process."""

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
        """Read until the demo prints ``words``; the test's time limit ends the wait."""
        assert self.process.stdout is not None
        while words not in self.text:
            line = self.process.stdout.readline().decode("utf-8")
            assert line, f"the demo ended without {words!r}: {self.text}"
            self.text += line

    def end(self, number: Optional[int] = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=90)
        self.text += out.decode("utf-8")
        return self.process.returncode


def check_story(text: str) -> None:
    """Check that the demo shows every act in order."""
    story = [
        r"a XAPI pool of 2 hosts, host1 coordinates it",
        r"5 guests with 10 containers",
        r"every list is published, \d",
        r"^NAME +STATE +UPTIME +IMAGE +PORTS +PROJECT$",
        r"^build/last-job +exited \(\d+\) +builder:12$",
        r"^classic/hadoop +running +(?:\d+s)? +hadoop:3.3$",
        r"^shop/sessions +paused +(?:\d+s)? +redis:7 +shop$",
        r"stop hadoop in VM classic, which runs on host1: host.call_plugin on host2$",
        r"clients saw 'Exited \(\d+\)' \d+ ms after the engine's event; the call took \d+ ms$",
        r"start hadoop in VM classic, which runs on host1: host.call_plugin on host2$",
        r"clients saw 'Up' \d+ ms after",
        r"live migration of VM classic from host1 to host2$",
        r"pause hadoop in VM classic, which runs on host2: host.call_plugin on host1$",
        r"clients saw 'Up \(Paused\)' \d+ ms after",
        r"classic runs on host2 now; its list was there all the time",
        r"a container dies: build/deploy ends as soon as it is started",
        r"\$ xscontainer status build$",
        r"^ +deploy +exited \(3\)",
        r"^ +\| cannot connect to registry\.example\.com: connection refused$",
        r"^ +Next: xscontainer logs build/deploy +xscontainer start build/deploy$",
        r"^ +\S+ \S+ +deploy +die \(exit code 3\)",
        r"diagnose VM legacy, which nobody prepared$",
        r"KEY_NOT_ACCEPTED: The user \S+ at 127\.\S+ port \d+ cannot log in",
        r"next: Prepare the VM \('xscontainer prepare",
        r"\$ xscontainer prepare legacy --user \S+ --fingerprint SHA256:\S{43} --password-fd 0$",
        r"The pool's key was installed\. The engine answers: version \S+, 1 container\.$",
        r"^ +legacy/erp +running ",
        r"\$ xscontainer create web --template 'Docker on Debian' --network Guests --image debian\.raw$",
        r"Its containers are listed",
        r"\$ xscontainer ps --vm web$",
        r"^ +web/hello +running ",
        r"make demo ARGS=--stay$",
        r"all of it is gone again$",
    ]
    at = 0
    for step in story:
        found = re.compile(step, re.MULTILINE).search(text, at)
        assert found, f"{step!r} is missing after: {text[:at][-300:]}\n--- in:\n{text}"
        at = found.end()
    assert "127.0.0.1" not in text  # of a pool that is gone
    assert {"hadoop", "tomcat", "mysql", "apache"} <= set(re.findall(r"^classic/(\w+) ", text, re.MULTILINE))


@pytest.mark.real
@pytest.mark.parametrize("options", [["--no-docker", "--ssh", "embedded"], ["--no-docker"]], ids=" ".join)
def test_the_demo_shows_every_act_in_order(place: str, options: List[str]) -> None:
    need("embedded" in options or not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    begun = time.monotonic()
    with Run(place, *options) as run:
        assert run.end() == 0, run.text
        check_story(run.text)
    assert time.monotonic() - begun < 60


@pytest.mark.real
def test_the_demo_works_with_real_engines(place: str) -> None:
    need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    need(not RealEngine.missing(), "root and dockerd (Debian: docker.io)")
    begun = time.monotonic()
    with Run(place) as run:
        assert run.end() == 0, run.text
        check_story(run.text)
        assert "engines: real, SSH: openssh" in run.text
    assert time.monotonic() - begun < 60


@pytest.mark.real
def test_the_demo_runs_with_more_hosts_and_guests(place: str) -> None:
    with Run(place, "--no-docker", "--hosts", "3", "--guests", "6") as run:
        assert run.end() == 0, run.text
    assert "6 guests with 11 containers" in run.text
    assert re.search(r"^vm6/app ", run.text, re.MULTILINE)


@pytest.mark.real
def test_the_printed_instructions_for_clients_work_while_the_demo_stays(place: str) -> None:
    with Run(place, "--no-docker", "--stay") as run:
        run.read_to("it stays until")
        check_python(run.text)
        check_command(run.text)
        check_node(run.text)
        check_https(run.text)
        assert "classic/hadoop\trunning\t" in shell(run.text, "xscontainer ps"), "Node.js started it"
        assert run.end(signal.SIGINT) == 0
        assert "all of it is gone again" in run.text


def check_python(text: str) -> None:
    """Run the printed Python lines, which stop hadoop."""
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
    """Run the printed lines in a shell."""
    lines = re.search(r"^ +export PATH=.*$((?:\n +xscontainer .*$)+)", text, re.MULTILINE)
    yours = re.search(r"^  The VM yours, .*$((?:\n {12}.*$)+)", text, re.MULTILINE)
    assert lines and yours
    done = subprocess.run(["/bin/sh", "-c", lines.group(0) + yours.group(1)], cwd=str(ROOT), stdout=subprocess.PIPE,
                          timeout=60, check=True)
    said = done.stdout.decode("utf-8")
    assert "classic/hadoop\texited (137)\t" in said
    diagnosed, _, prepared = said.partition("The pool's key was installed")
    assert "KEY_NOT_ACCEPTED" in diagnosed and "yours/wiki\trunning\t" in prepared, said
    assert "The VM web-2" in said and "Its containers are listed" in said and "#cloud-config" in said


def check_https(text: str) -> None:
    """Run the printed lines for another machine, with the printed password instead of a person."""
    found = re.search(r"the password is (\S+)\n((?: {12}.*\n){2})", text)
    assert found
    lines = found.group(2).replace(" ps\n", " --password-fd 0 ps\n")
    assert "classic/hadoop\trunning\t" in shell(text, f"echo {found.group(1)} | {lines.strip()}")


def shell(text: str, line: str) -> str:
    """Return what a command line prints in a shell that has the commands as printed."""
    path = re.search(r"^ +export PATH=.*$", text, re.MULTILINE)
    assert path
    return subprocess.run(["/bin/sh", "-c", path.group(0) + "\n" + line], cwd=str(ROOT), stdout=subprocess.PIPE,
                          timeout=60).stdout.decode("utf-8")


def check_node(text: str) -> None:
    node = find("node")
    need(node, "node (Debian: nodejs)")
    need((NODE / "node_modules" / "xen-api").is_dir(), "the JavaScript clients (npm ci in tests/clients/node)")
    begun = text.index("const { createClient }")
    ended = text.index("  Xen Orchestra on this machine")
    script = text[begun:ended] + "; await xapi.disconnect(); process.exit(0)"
    done = subprocess.run([node, "--input-type=module", "-e", script], cwd=str(NODE), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == 0 and b"<docker_ps>" in done.stdout and b"hadoop" in done.stdout, done.stdout


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
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


@pytest.mark.real
def test_a_demo_that_loses_its_terminal_leaves_nothing(place: str) -> None:
    ours, theirs = os.openpty()

    def own() -> None:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "xscontainer.simulator.demo", "--no-docker"], cwd=str(ROOT),
        stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=own, env=dict(os.environ, TMPDIR=place))
    os.close(theirs)
    try:
        shown = b""
        while b"a monitor on every host" not in shown:
            shown += os.read(ours, 4096)
    finally:
        os.close(ours)
        assert process.wait(90) == 130


def test_embedded_engines_replace_a_dockerd_that_cannot_run_and_the_reason_is_shown(
        place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of that name that come first on the PATH inject the fault."""
    need(os.geteuid() == 0, "root, as dockerd needs it")
    for name in ("dockerd", "containerd", "busybox"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'failed to start daemon: no cgroups here' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv(processes.NO_SERVERS, raising=False)
    monkeypatch.setenv(trial.VARIABLE + "DOCKERD", "")  # so that it is restored in the end
    monkeypatch.delenv(trial.VARIABLE + "DOCKERD")
    with Run(place, "--ssh", "embedded") as run:
        assert run.end() == 0, run.text
    (line,) = [line for line in run.text.splitlines() if "dockerd" in line]
    assert "embedded engines (dockerd cannot run here: failed to start daemon: no cgroups here)" in line
    assert "engines: embedded" in run.text


def test_a_failed_demo_reports_the_reason_and_exits_with_1(place: str) -> None:
    too_long = os.path.join(place, "x" * 100)
    os.mkdir(too_long)
    try:
        with Run(too_long, "--no-docker") as run:
            assert run.end() == 1
            assert "is too long for sockets: set TMPDIR" in run.text
            assert "Traceback" not in run.text
    finally:
        os.rmdir(too_long)


def test_the_demo_shows_nothing_that_did_not_happen(
    place: str, capsys: "pytest.CaptureFixture[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_eye, "SEEN_SECONDS", 1.0)
    with world(place) as here:
        here.wait_all_published()
        play = acts.Demo(here, time.monotonic())
        here.daemon(0).kill()
        with demo_eye.Eye(here, "classic") as eye:
            with pytest.raises(SimulatorError, match="waiting for a list that shows hadoop exited"):
                play.act(eye, "stop", "die", "exited")
        here.pool.remove_key(here.vm("classic").ref, keys.PS)
        with pytest.raises(SimulatorError, match="containers are listed"):
            play.show_tree()
    assert "clients saw" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--hosts", "1"], ["--hosts", "x"], ["--guests", "0"], ["--guests", "101"]])
def test_numbers_out_of_range_are_refused(arguments: List[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        demo.main(arguments)
    assert ended.value.code == 2


def test_the_tree_of_the_demo_fits_a_terminal() -> None:
    """The widest possible line for the demo's own guests has no remark."""
    containers = [one for spec in demo_guests.GUESTS for one in spec.containers]
    widest = max(columns.width(f"      {one.name}") + len(one.image) for one in containers)
    assert widest + len("Exited (137)") + len("unpause stop restart") + 8 <= 80


