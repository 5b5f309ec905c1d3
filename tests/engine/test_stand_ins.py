"""A program that connects instead of a channel reaches the right socket, in spite of the user's configuration."""

import os
import shutil
import subprocess
from typing import Any, Callable, Dict

import pytest

from tests.engine.conftest import ENGINE
from tests.engine.peers import Script, Server, Sshd, http_answer
from tests.engine.test_tunnel import NO_FORWARDING, only
from tests.need import need, need_program
from xscontainer.engine import api
from xscontainer.engine.ssh import connection as ssh
from xscontainer.errors import ForwardingRefused

pytestmark = pytest.mark.real

Connect = Callable[..., ssh.SSHConnection]
MakeSshd = Callable[..., Sshd]


def engine_named(name: str) -> Script:
    return Script({"/containers/json": http_answer(f'[{{"Id": "{name}"}}]'.encode())})


def asked(connection: ssh.SSHConnection) -> str:
    engine = api.Engine(connection, ENGINE, "1.41")
    try:
        return str(engine.containers()[0]["Id"])
    finally:
        engine.close()


class Elsewhere:
    """An engine on another machine, and the configuration of a user who works with it.

    :param home: the user's in the guest. :param path, port: where that engine answers.
    """

    def __init__(self, home: str, path: str, port: int) -> None:
        self.home, self.path, self.port = home, path, port

    def write(self, name: str, text: str, mode: int = 0o644) -> str:
        path = os.path.join(self.home, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def context(self) -> str:
        """Run `docker context create` and `docker context use`."""
        for words in (["create", "prod", "--docker", f"host=tcp://127.0.0.1:{self.port}"], ["use", "prod"]):
            subprocess.run([need_program("docker"), "context"] + words, env=dict(os.environ, HOME=self.home),
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
        return ""

    def variables(self) -> str:
        return (f"DOCKER_HOST=tcp://127.0.0.1:{self.port} CONTAINER_HOST=unix://{self.path} "
                f"CONTAINER_CONNECTION=prod")

    def context_by_name(self) -> str:
        self.context()
        return "DOCKER_CONTEXT=prod"

    def other_config(self) -> str:
        self.context()
        os.rename(os.path.join(self.home, ".docker"), os.path.join(self.home, "other"))
        return f"DOCKER_CONFIG={self.home}/other"

    def containers_conf(self) -> str:
        text = ('[engine]\nremote = true\nactive_service = "prod"\n[engine.service_destinations.prod]\n'
                f'uri = "unix://{self.path}"\n')
        self.write(".config/containers/containers.conf", text)
        return f"CONTAINERS_CONF={self.write('mine.conf', text)}"

    def programs(self) -> str:
        """Make scripts of these names, first on PATH."""
        for name in ("docker", "podman", "socat", "ncat", "nc", "env", "test", "sh", "cat"):
            self.write("bin/" + name, f"#!/bin/sh\nexec {shutil.which('socat')} - UNIX-CONNECT:{self.path}\n", 0o755)
        return f"PATH={self.home}/bin:/usr/local/bin:/usr/bin:/bin"

    def only_programs(self) -> str:
        self.programs()
        return f"PATH={self.home}/bin"

    def functions(self) -> str:
        """Export bash functions, which each bash below inherits."""
        instead = f"{shutil.which('socat')} - UNIX-CONNECT:{self.path}"
        lines = [f"{name}() {{ {instead}; }}\nexport -f {name}\nalias {name}='{instead} #'\n"
                 for name in ("docker", "podman", "socat", "ncat", "nc", "env", "test")]
        self.write(".bashrc", "shopt -s expand_aliases\n" + "".join(lines))
        return ""


MADE: Dict[str, Callable[[Elsewhere], str]] = {
    "a docker context": Elsewhere.context, "variables": Elsewhere.variables,
    "DOCKER_CONTEXT": Elsewhere.context_by_name, "DOCKER_CONFIG": Elsewhere.other_config,
    "containers.conf": Elsewhere.containers_conf, "programs": Elsewhere.programs,
    "no other programs": Elsewhere.only_programs, "functions and aliases": Elsewhere.functions,
}


@pytest.mark.parametrize("program", ["docker", "podman", "socat", "ncat", "nc"])
@pytest.mark.parametrize("made", list(MADE))
def test_the_program_reaches_the_engine_at_the_socket(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                                      tmp_path: Any, made: str, program: str) -> None:
    other_path = str(tmp_path / "other.sock")
    guest = only(program)
    with Server(engine_named("own"), socket_path), Server(engine_named("other"), other_path), \
            Server(engine_named("other")) as other:
        elsewhere = Elsewhere(str(tmp_path / "home"), other_path, other.port)
        os.makedirs(elsewhere.home)
        variables = MADE[made](elsewhere)
        options = f"{NO_FORWARDING}\nSetEnv {variables} HOME={elsewhere.home}"
        before = guest["before"]
        if made == "functions and aliases":  # the login shell, and /bin/sh, as in many distributions
            bash = need_program("bash")
            before = before[:4] + (f"mount --bind {bash} {os.path.realpath('/bin/sh')} && {before[4]}",) + before[5:]
        assert asked(connect(make_sshd(options, before=before))) == "own"


def test_the_docker_program_is_given_its_default_socket_explicitly(make_sshd: MakeSshd, connect: Connect,
                                                                   tmp_path: Any) -> None:
    need(os.path.realpath("/var/run") == "/run", "a /var/run that is /run")
    run = tmp_path / "run"
    (run / "sshd").mkdir(parents=True)
    guest = only("docker")
    before = guest["before"][:4] + (f"mount --bind {run} /run && {guest['before'][4]}",) + guest["before"][5:]
    with Server(engine_named("own"), str(run / "docker.sock")), Server(engine_named("other")) as other:
        elsewhere = Elsewhere(str(tmp_path / "home"), "", other.port)
        os.makedirs(elsewhere.home)
        elsewhere.context()
        sshd = make_sshd(f"{NO_FORWARDING}\nSetEnv HOME={elsewhere.home}", before=before)
        connection = connect(sshd, socket="")
        assert asked(connection) == "own" and connection.method == "dial-stdio"


def test_a_script_outside_the_systems_directories_is_not_started(make_sshd: MakeSshd, connect: Connect,
                                                                 socket_path: str, tmp_path: Any) -> None:
    """A program outside the system's directories is started only if it is a binary."""
    directory = tmp_path / "own"
    directory.mkdir()
    guest = only()
    guest["options"] += f"\nSetEnv PATH={directory}"
    socat = need_program("socat")
    script = directory / "socat"
    script.write_text(f"#!/bin/sh\nexec {socat} \"$@\"\n")
    script.chmod(0o755)
    with Server(engine_named("own"), socket_path):
        with pytest.raises(ForwardingRefused, match="socat is not installed"):
            connect(make_sshd(**guest)).open_stream(15)
        script.unlink()
        shutil.copy(socat, str(script))
        connection = connect(make_sshd(**guest))
        assert asked(connection) == "own" and connection.method == "socat"
