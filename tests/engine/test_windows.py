"""An engine on Windows over SSH: no channel to a pipe, no Unix programs, only docker's own client to stand in."""

import os
import shlex
import shutil
from typing import Any, Callable, List

import pytest

from tests.engine.conftest import ENGINE
from tests.engine.peers import Script, Server, Sshd, http_answer
from tests.need import need_program
from xscontainer.engine import api, ssh
from xscontainer.engine.tunnel import DEFAULT_PIPE, PIPE, check_path
from xscontainer.errors import ArgumentError, EngineForbidden, EngineStopped, ForwardingRefused

pytestmark = pytest.mark.real

OTHER_PIPE = PIPE + "other"
# What that client says there.
STOPPED = ("error during connect: This error may indicate that the docker daemon is not running.: Get "
           "http://%2F%2F.%2Fpipe%2Fdocker_engine/_ping: open //./pipe/docker_engine: The system cannot find the file "
           "specified.")
DENIED = ("error during connect: Get http://%2F%2F.%2Fpipe%2Fdocker_engine/_ping: open //./pipe/docker_engine: Access "
          "is denied.")


class WindowsLike:
    """An sshd that runs what cmd.exe would, as far as that is docker; it notes what it is asked for."""

    def __init__(self, directory: str, make_sshd: Callable[..., Sshd], socket_path: str) -> None:
        self._note, self._docker = os.path.join(directory, "asked"), os.path.join(directory, "docker.sh")
        shell = os.path.join(directory, "cmd.sh")
        self.docker(f"exec {need_program('socat')} - UNIX-CONNECT:{shlex.quote(socket_path)}")
        self._write(shell, f'printf "%s\\n" "$SSH_ORIGINAL_COMMAND" >> {self._note}\n'
                           f'case $SSH_ORIGINAL_COMMAND in docker\\ *) . {self._docker} ;; esac\n'
                           "echo \"'${SSH_ORIGINAL_COMMAND%% *}' is not recognized as an internal or external "
                           "command, operable program or batch file.\" >&2\nexit 1\n")
        self.sshd = make_sshd(f"AllowStreamLocalForwarding no\nForceCommand {shutil.which('sh')} {shell}")

    @staticmethod
    def _write(path: str, text: str) -> None:
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)

    def docker(self, does: str) -> None:
        """What its client does from now on."""
        self._write(self._docker, does + "\n")

    @property
    def asked(self) -> List[str]:
        with open(self._note, encoding="utf-8") as source:
            return source.read().splitlines()


@pytest.fixture
def windows(tmp_path: Any, make_sshd: Callable[..., Sshd], socket_path: str) -> WindowsLike:
    return WindowsLike(str(tmp_path), make_sshd, socket_path)


@pytest.mark.parametrize("named, command", [
    (DEFAULT_PIPE, "docker system dial-stdio"),
    (OTHER_PIPE, f"docker -H {OTHER_PIPE} system dial-stdio"),
])
def test_a_pipe_is_reached_by_dockers_client_alone(
        windows: WindowsLike, connect: Callable[..., ssh.SSHConnection], socket_path: str, named: str,
        command: str) -> None:
    with Server(Script({"/containers/json": http_answer(b'[{"Id": "one"}]')}), socket_path):
        connection = connect(windows.sshd, socket=named)
        engine = api.Engine(connection, ENGINE)
        assert engine.containers() == [{"Id": "one"}]
        assert connection.method == "dial-stdio" and set(windows.asked) == {command}
        engine.close()
        connection.close()


def test_nothing_needs_to_be_set_for_it(windows: WindowsLike, connect: Callable[..., ssh.SSHConnection],
                                        socket_path: str) -> None:
    """Where no socket is named, the places of Unix are looked at first, and docker's client knows its own."""
    with Server(Script({"/containers/json": http_answer(b"[]")}), socket_path):
        connection = connect(windows.sshd, socket="")
        engine = api.Engine(connection, ENGINE)
        assert engine.containers() == [] and connection.method == "dial-stdio"
        assert windows.asked[-1] == "docker system dial-stdio"
        engine.close()
        connection.close()


@pytest.mark.parametrize("said, error", [(STOPPED, EngineStopped), (DENIED, EngineForbidden),
                                         ("something else", ForwardingRefused)])
def test_why_it_is_not_reached(windows: WindowsLike, connect: Callable[..., ssh.SSHConnection], said: str,
                               error: Any) -> None:
    windows.docker(f"echo {shlex.quote(said)} >&2; exit 1")
    connection = connect(windows.sshd, socket=DEFAULT_PIPE)
    with pytest.raises(error):
        connection.open_stream(10.0)
    connection.close()


@pytest.mark.parametrize("path", ["npipe:////./pipe/", "npipe:////./pipe/a b", "npipe:////./pipe/a&b", "npipe://other/x",
                                  "//./pipe/a%b", "npipe:////./pipe/" + "x" * 101])
def test_what_is_no_pipe(path: str) -> None:
    with pytest.raises(ArgumentError):
        check_path(path)
