"""enable-tls.sh for Linux guests, run in a root of its own; dockerd is started with its result."""

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from tests.engine.real import start
from tests.engine.tls_peers import ADDRESS, Authority, connect
from tests.need import need, need_program
from xscontainer.engine import api
from xscontainer.settings import EngineSettings
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests.tls import free_port

SCRIPT = Path(__file__).resolve().parent.parent.parent / "guest-config" / "linux" / "enable-tls.sh"
IN_PLACE = Path(__file__).parent / "enable_tls.sh"
DEBIAN = "[Unit]\nDescription=x\n\n[Service]\nType=notify\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n"
FOLDED = ("[Service]\nExecStart=/usr/bin/dockerd \\\n  --containerd=/run/containerd/containerd.sock \\\n  -H fd://\n"
          "ExecReload=/bin/kill -s HUP $MAINPID\n")
DROPIN = "etc/systemd/system/docker.service.d/90-xscontainer-tls.conf"
# The shells of Debian, of Alpine, and of RHEL.
SHELLS = [["dash"], ["busybox", "sh"], ["bash", "--posix"]]


class Machine:
    """The root of a file system, and a CD."""

    def __init__(self, directory: Path, unit: str = DEBIAN) -> None:
        self.root, self.medium = directory / "a root", directory / "a medium"
        self.root.mkdir()
        self.medium.mkdir()
        self.authority = Authority.new()
        for name, text in zip(("ca.pem", "server-cert.pem", "server-key.pem"), self.authority.engine_side):
            (self.medium / name).write_text(text)
        self.medium.joinpath("enable-tls.sh").write_bytes(SCRIPT.read_bytes())
        self.write("lib/systemd/system/docker.service", unit)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def run(self, *arguments: str, shell: List[str] = SHELLS[0], fails: bool = False) -> str:
        done = subprocess.run(
            [need_program(shell[0])] + shell[1:] + [str(self.medium / "enable-tls.sh"), "--prefix", str(self.root)]
            + list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
        said = done.stdout.decode()
        assert (done.returncode != 0) == fails, said
        return said

    def command(self) -> List[str]:
        """Return the command that the unit starts now, split into words."""
        lines = re.findall("(?m)^ExecStart=(.*)$", (self.root / DROPIN).read_text())
        assert len(lines) == 2 and lines[0] == ""
        return shlex.split(lines[1])

    def mode(self, path: str) -> int:
        return stat.S_IMODE(os.stat(str(self.root / path)).st_mode)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: str(shell[0]))
def test_files_are_written_with_their_modes_and_the_command(machine: Machine, shell: List[str]) -> None:
    for _ in range(2):  # the second run is a renewal
        assert "now listens on port 2376" in machine.run(shell=shell)
    assert machine.mode("etc/docker/tls") == 0o700
    assert [machine.mode(f"etc/docker/tls/{name}") for name in ("ca.pem", "server-cert.pem", "server-key.pem")] == [
        0o644, 0o644, 0o600]
    assert machine.mode(DROPIN) == 0o644
    assert sorted(os.listdir(str(machine.root / "etc/docker/tls"))) == ["ca.pem", "server-cert.pem", "server-key.pem"]
    assert (machine.root / "etc/docker/tls/server-key.pem").read_text() == machine.authority.server.key
    command = machine.command()
    assert command[:4] == ["/usr/sbin/dockerd", "-H", "fd://", "$DOCKER_OPTS"] and command[4] == "-H"
    assert re.match(r"tcp://(\[::\]|0\.0\.0\.0):2376\Z", command[5])
    assert command[6:] == ["--tlsverify", "--tlscacert=/etc/docker/tls/ca.pem",
                           "--tlscert=/etc/docker/tls/server-cert.pem", "--tlskey=/etc/docker/tls/server-key.pem"]
    machine.run("--remove", shell=shell)
    assert not (machine.root / DROPIN).exists() and not (machine.root / "etc/docker/tls").exists()


def test_the_present_command_of_the_unit_is_kept(tmp_path: Path) -> None:
    machine = Machine(tmp_path, FOLDED)
    machine.run()
    assert machine.command()[:4] == ["/usr/bin/dockerd", "--containerd=/run/containerd/containerd.sock", "-H", "fd://"]
    machine.write("etc/systemd/system/docker.service.d/10-ours.conf", "[Service]\nExecStart=\n"
                  "ExecStart=/opt/dockerd -D\n")
    machine.run()
    # Without -H dockerd listens on its usual socket; with another -H it would not, so the script adds it.
    assert machine.command()[:4] == ["/opt/dockerd", "-D", "-H", "unix:///var/run/docker.sock"]


@pytest.mark.parametrize("config", ['{"hosts": ["fd://"]}', '{"tlsverify" : true}', '{\n "tlscacert": "x"}'])
def test_a_daemon_json_with_hosts_or_tls_is_not_changed(machine: Machine, config: str) -> None:
    machine.write("etc/docker/daemon.json", config)
    assert "daemon.json has keys" in machine.run(fails=True)
    assert not (machine.root / DROPIN).exists()
    machine.write("etc/docker/daemon.json", '{"log-driver": "journald"}')
    machine.run()


@pytest.mark.parametrize("what, said", [
    ("no key", "server-key.pem is missing or empty"), ("no unit", "there is no docker.service"),
    ("tls already", "TLS options of its own"), ("port 0", "not a TCP port"), ("port 1e3", "not a TCP port"),
    ("port 65536", "not a TCP port"), ("frob", "unknown argument"),
])
def test_wrong_calls_and_machines_are_refused_with_a_reason(machine: Machine, what: str, said: str) -> None:
    arguments: List[str] = []
    if what == "no key":
        (machine.medium / "server-key.pem").unlink()
    elif what == "no unit":
        (machine.root / "lib/systemd/system/docker.service").unlink()
    elif what == "tls already":
        machine.write("lib/systemd/system/docker.service", DEBIAN.replace("-H fd://", "--tlsverify"))
    elif what.startswith("port"):
        arguments = ["--port", what.split()[1]]
    else:
        arguments = ["--frob"]
    assert said in machine.run(*arguments, fails=True)
    assert not (machine.root / DROPIN).exists() and not (machine.root / "etc/docker/tls").exists()


def test_shellcheck_accepts_it() -> None:
    done = subprocess.run([need_program("shellcheck"), str(SCRIPT), str(IN_PLACE)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == 0, done.stdout.decode()


class Run:
    """The result of a run: exit code, output, calls of systemctl, and the files that it left."""

    def __init__(self, etc: Path) -> None:
        self.status, self.said = int((etc / "status").read_text()), (etc / "said").read_text()
        self.asked = (etc / "asked").read_text().split("\n")[:-1]
        self.files: Dict[str, Tuple[str, int]] = {}
        for place in ("docker", "systemd/system/docker.service.d"):
            for path in (etc / place).rglob("*"):
                if path.is_file():
                    self.files[str(path.relative_to(etc))] = (path.read_text(), stat.S_IMODE(path.stat().st_mode))


def in_place(machine: Machine, directory: Path, *statuses: int) -> List[Run]:
    """Run the script once for each result of the first restart, each time with newer certificates."""
    need(os.geteuid() == 0, "root, for a mount namespace")
    done = subprocess.run(
        [need_program("unshare"), "--mount", "--propagation", "private", "sh", str(IN_PLACE), str(machine.medium),
         str(directory)] + [str(status) for status in statuses],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    assert done.returncode == 0, done.stdout.decode()
    return [Run(directory / str(number + 1)) for number in range(len(statuses))]


RESTART = ["daemon-reload", "restart docker.service"]


def test_the_service_is_restarted(machine: Machine, tmp_path: Path) -> None:
    first, second = in_place(machine, tmp_path, 0, 0)
    for run, port in ((first, 2376), (second, 2377)):
        assert run.status == 0 and run.asked == RESTART and f"now listens on port {port}" in run.said
        assert sorted(run.files) == ["docker/tls/ca.pem", "docker/tls/server-cert.pem", "docker/tls/server-key.pem",
                                     DROPIN[4:]]
        assert f":{port} --tlsverify" in run.files[DROPIN[4:]][0]
    assert first.files["docker/tls/server-key.pem"] == (machine.authority.server.key, 0o600)
    assert second.files["docker/tls/server-key.pem"] == ("newer 1\n", 0o600)


def test_nothing_is_left_behind_when_the_engine_does_not_start(machine: Machine, tmp_path: Path) -> None:
    (run,) = in_place(machine, tmp_path, 1)
    assert run.status == 1 and run.asked == 2 * RESTART and run.files == {}
    assert "all files were restored" in run.said


def test_a_failed_renewal_restores_the_old_certificates(machine: Machine, tmp_path: Path) -> None:
    """Otherwise the VM could not be reached, although its old certificates are valid for another month."""
    good, bad = in_place(machine, tmp_path, 0, 1)
    assert good.status == 0 and bad.status == 1 and bad.asked == 2 * RESTART
    assert bad.files == good.files and len(good.files) == 4
    assert "all files were restored" in bad.said


def test_an_interrupted_renewal_restores_all_files(machine: Machine) -> None:
    """Here a file on the CD cannot be read to its end."""
    machine.run()
    before = {path.name: path.read_bytes() for path in (machine.root / "etc/docker/tls").iterdir()}
    command = machine.command()
    for name in ("ca.pem", "server-cert.pem"):
        (machine.medium / name).write_text("newer")
    (machine.medium / "server-key.pem").unlink()
    (machine.medium / "server-key.pem").mkdir()
    machine.run("--port", "2377", fails=True)
    assert machine.command() == command
    assert {path.name: path.read_bytes() for path in (machine.root / "etc/docker/tls").iterdir()} == before


@pytest.mark.parametrize("text, wanted", [("", "0.0.0.0"), ("0" * 31 + "1 01 80 10 80       lo\n", "[::]")],
                         ids=["off", "on"])
def test_the_engine_listens_on_ipv6_if_the_kernel_has_it(machine: Machine, text: str, wanted: str) -> None:
    machine.write("proc/net/if_inet6", text)
    machine.run()
    assert machine.command()[5] == f"tcp://{wanted}:2376"


def test_the_running_kernel_decides_about_ipv6(machine: Machine) -> None:
    machine.run()
    knows = os.path.exists("/proc/net/if_inet6") and bool(Path("/proc/net/if_inet6").read_text())
    assert machine.command()[5] == f"tcp://{'[::]' if knows else '0.0.0.0'}:2376"


@pytest.mark.real
def test_dockerd_listens_when_started_with_the_written_command(machine: Machine, tmp_path_factory: Any) -> None:
    need(not RealEngine.missing(), RealEngine.missing())
    port = free_port(ADDRESS)
    machine.run("--port", str(port))
    added = [word.replace("/etc/docker", f"{machine.root}/etc/docker") for word in machine.command()[4:]]
    engine = RealEngine(str(tmp_path_factory.mktemp("d")), flags=added)
    try:
        start(engine)
        for address in (ADDRESS, "::1") if "[::]" in added[1] else (ADDRESS,):
            connection = connect(machine.authority.credentials, port, address=address)
            assert api.Engine(connection, EngineSettings()).version()["ApiVersion"]
            connection.close()
    finally:
        engine.close()
