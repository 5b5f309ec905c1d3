"""An engine on Windows over SSH, reached by the docker program only: no channels to pipes, no Unix programs."""

import os
import shlex
import shutil
from typing import Any, Callable, List

import pytest

from tests.engine.conftest import ENGINE
from tests.engine.peers import Script, Server, Sshd, http_answer
from tests.need import need_program
from xscontainer.engine import api
from xscontainer.engine.ssh import connection as ssh
from xscontainer.engine.ssh.bridge import DEFAULT_PIPE, PIPE, check_path
from xscontainer.errors import ArgumentError, EngineForbidden, EngineStopped, ForwardingRefused

pytestmark = pytest.mark.real

OTHER_PIPE = PIPE + "other"
# Messages of the docker program on Windows.
STOPPED = ("error during connect: This error may indicate that the docker daemon is not running.: Get "
           "http://%2F%2F.%2Fpipe%2Fdocker_engine/_ping: open //./pipe/docker_engine: The system cannot find the file "
           "specified.")
DENIED = ("error during connect: Get http://%2F%2F.%2Fpipe%2Fdocker_engine/_ping: open //./pipe/docker_engine: Access "
          "is denied.")


class WindowsLike:
    """An sshd that identifies itself as that of Windows and runs echo and docker.exe as cmd.exe does.

    It notes what docker.exe is asked for, and it has a profile of PowerShell's that says something first.
    """

    def __init__(self, directory: str, make_sshd: Callable[..., Sshd], socket_path: str) -> None:
        self._note, self._docker = os.path.join(directory, "asked"), os.path.join(directory, "docker.sh")
        shell = os.path.join(directory, "cmd.sh")
        self.docker(f"exec {need_program('socat')} - UNIX-CONNECT:{shlex.quote(socket_path)}")
        self._write(shell, f"""echo "Welcome to PowerShell"
case $SSH_ORIGINAL_COMMAND in 'cmd.exe /d /c "echo '*'& '*'"')
    all=${{SSH_ORIGINAL_COMMAND#*echo }}; all=${{all%'"'}}
    mark=${{all%%&*}}; printf "%s%s\\r\\n" "${{mark%^*}}" "${{mark#*^}}"
    all=${{all#*& }}; printf "%s\\n" "$all" >> {self._note}
    case $all in docker.exe\\ *) . {self._docker} ;; esac ;;
esac
echo "'${{SSH_ORIGINAL_COMMAND%% *}}' is not recognized as an internal or external command, operable program." >&2
exit 1
""")
        self.sshd = make_sshd("AllowStreamLocalForwarding no\nVersionAddendum OpenSSH_for_Windows_9.5\n"
                              f"ForceCommand {shutil.which('sh')} {shell}")

    @staticmethod
    def _write(path: str, text: str) -> None:
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)

    def docker(self, does: str) -> None:
        """Set the behaviour of the docker program."""
        self._write(self._docker, does + "\n")

    @property
    def asked(self) -> List[str]:
        with open(self._note, encoding="utf-8") as source:
            return source.read().splitlines()


@pytest.fixture
def windows(tmp_path: Any, make_sshd: Callable[..., Sshd], socket_path: str) -> WindowsLike:
    return WindowsLike(str(tmp_path), make_sshd, socket_path)


@pytest.mark.parametrize("named, command", [
    (DEFAULT_PIPE, f"docker.exe -H {DEFAULT_PIPE} system dial-stdio"),
    (OTHER_PIPE, f"docker.exe -H {OTHER_PIPE} system dial-stdio"),
])
def test_only_the_docker_program_reaches_a_pipe(windows: WindowsLike, connect: Callable[..., ssh.SSHConnection],
                                                socket_path: str, named: str, command: str) -> None:
    with Server(Script({"/containers/json": http_answer(b'[{"Id": "one"}]')}), socket_path):
        connection = connect(windows.sshd, socket=named)
        engine = api.Engine(connection, ENGINE)
        assert engine.containers() == [{"Id": "one"}]
        assert connection.method == "dial-stdio" and set(windows.asked) == {command}
        engine.close()
        connection.close()


def test_the_default_pipe_needs_no_settings(windows: WindowsLike, connect: Callable[..., ssh.SSHConnection],
                                            socket_path: str) -> None:
    """Without a setting the default pipe is used, even if a docker context names another."""
    with Server(Script({"/containers/json": http_answer(b"[]")}), socket_path):
        connection = connect(windows.sshd, socket="")
        engine = api.Engine(connection, ENGINE)
        assert engine.containers() == [] and connection.method == "dial-stdio"
        assert set(windows.asked) == {f"docker.exe -H {DEFAULT_PIPE} system dial-stdio"}
        engine.close()
        connection.close()


@pytest.mark.parametrize("said, error", [(STOPPED, EngineStopped), (DENIED, EngineForbidden),
                                         ("something else", ForwardingRefused)])
def test_each_reason_why_a_pipe_is_not_reached_has_its_error(windows: WindowsLike,
                                                             connect: Callable[..., ssh.SSHConnection], said: str,
                                                             error: Any) -> None:
    windows.docker(f"echo {shlex.quote(said)} >&2; exit 1")
    connection = connect(windows.sshd, socket=DEFAULT_PIPE)
    with pytest.raises(error):
        connection.open_stream(10.0)
    connection.close()


@pytest.mark.parametrize("path", ["npipe:////./pipe/", "npipe:////./pipe/a b", "npipe:////./pipe/a&b", "npipe://other/x",
                                  "//./pipe/a%b", "npipe:////./pipe/" + "x" * 101])
def test_an_impossible_pipe_name_is_refused(path: str) -> None:
    with pytest.raises(ArgumentError):
        check_path(path)
