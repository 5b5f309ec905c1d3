"""How a stream reaches the engine's socket, and what is said when it does not; on a real sshd."""

import os
import shutil
import socket
import threading
import time
from typing import Any, Callable, List

import pytest

from tests.engine.conftest import ENGINE, QUICK
from tests.engine.peers import Script, Server, Sshd, http_answer, read_head
from tests.need import need
from xscontainer.engine import api, ssh
from xscontainer.errors import (
    EngineForbidden,
    EngineLost,
    EngineSocketAbsent,
    EngineStopped,
    EngineTimeout,
    EngineUnavailable,
    ForwardingRefused,
)

pytestmark = pytest.mark.real

LIST = {"/containers/json": http_answer(b"[]")}
NO_FORWARDING = "AllowStreamLocalForwarding no"
TOOLS = ("env", "ls", "test", "grep", "realpath", "sh", "bash")

Connect = Callable[..., ssh.SSHConnection]
MakeSshd = Callable[..., Sshd]


def only(directory: Any, *names: str) -> str:
    """sshd options under which sessions find nothing but ``names`` and the plainest tools."""
    os.makedirs(str(directory / "bin"), exist_ok=True)
    for name in names + TOOLS:
        found = shutil.which(name)
        if found is not None:
            os.symlink(found, str(directory / "bin" / name))
        else:
            need(name in TOOLS, name)
    return f"{NO_FORWARDING}\nSetEnv PATH={directory}/bin"


@pytest.mark.parametrize("program, method", [("docker", "dial-stdio"), ("socat", "socat"), ("ncat", "ncat")])
def test_a_program_stands_in_where_sshd_forwards_nothing(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                                         tmp_path: Any, program: str, method: str) -> None:
    sshd = make_sshd(only(tmp_path, program))
    script = Script(LIST)
    with Server(script, socket_path):
        connection = connect(sshd)
        engine = api.Engine(connection, ENGINE)
        assert engine.containers() == []
        assert connection.method == method
        assert method in connection.describe()
        engine.close()
        connection.close()
        # What worked is tried first the next time: no channel is asked for in vain.
        again = connect(sshd, method=method)
        engine = api.Engine(again, ENGINE)
        assert engine.containers() == []
        engine.close()
    assert sshd.log().count("refused streamlocal port forward") == 1


def test_what_worked_last_time_need_not_work_now(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    with Server(Script(LIST), socket_path):
        connection = connect(make_sshd(f"SetEnv PATH={os.path.dirname(socket_path)}"), method="socat")
        engine = api.Engine(connection, ENGINE)
        assert engine.containers() == []
        assert connection.method == "streamlocal"
        engine.close()


def test_an_unknown_method_is_no_method(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    with Server(Script(LIST), socket_path):
        connection = connect(make_sshd(), method="rm -rf /")
        connection.open_stream(5).close()
        assert connection.method == "streamlocal"


def test_no_channel_and_no_program(make_sshd: MakeSshd, connect: Connect, socket_path: str, tmp_path: Any) -> None:
    with Server(Script(LIST), socket_path):
        with pytest.raises(ForwardingRefused) as caught:
            connect(make_sshd(only(tmp_path))).open_stream(10)
    for word in ("dial-stdio", "socat", "ncat"):
        assert word in str(caught.value)


def test_no_channel_and_no_commands(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    with Server(Script(LIST), socket_path):
        with pytest.raises(ForwardingRefused):
            connect(make_sshd(NO_FORWARDING + "\nForceCommand /bin/false")).open_stream(10)


@pytest.mark.parametrize("forwarding", ["", NO_FORWARDING])
def test_no_socket(make_sshd: MakeSshd, connect: Connect, socket_path: str, forwarding: str) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        connect(make_sshd(forwarding)).open_stream(10)
    assert socket_path in str(caught.value)


@pytest.mark.parametrize("programs", [(), ("docker",), ("socat",), ("ncat",)])
def test_a_socket_without_a_listener(make_sshd: MakeSshd, connect: Connect, socket_path: str, tmp_path: Any,
                                     programs: Any) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(socket_path)
    dead.close()
    with pytest.raises(EngineUnavailable):
        connect(make_sshd(only(tmp_path, *programs))).open_stream(15)


def test_another_engine_of_that_name_listens(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                             tmp_path: Any) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(socket_path)
    dead.close()
    os.mkdir(tmp_path / "other")
    with Server(Script(LIST), str(tmp_path / "other" / os.path.basename(socket_path))):
        with pytest.raises(EngineStopped):
            connect(make_sshd(only(tmp_path))).open_stream(15)


def test_a_link_to_a_socket_that_lives(make_sshd: MakeSshd, connect: Connect, socket_path: str, tmp_path: Any) -> None:
    os.symlink(socket_path, tmp_path / "link")
    with Server(Script(LIST), socket_path):
        with pytest.raises(ForwardingRefused):
            connect(make_sshd(only(tmp_path)), socket=str(tmp_path / "link")).open_stream(15)


def test_a_file_is_no_socket(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    with open(socket_path, "w"):
        pass
    with pytest.raises(EngineUnavailable) as caught:
        connect(make_sshd()).open_stream(10)
    assert "no socket" in str(caught.value)


# A guest whose start-up files complain, on either stream, before each command; whatever shell the account has.
NOISE = ["rm: cannot remove 'shims/x': No such file or directory", "/etc/profile.d/y.sh: Permission denied",
         "connect: Connection refused"]


def noisy(directory: Any, options: str = NO_FORWARDING) -> str:
    script = directory / "noisy"
    script.write_text("#!/bin/sh\n" + "".join(f'echo "{line}" >&2\necho "{line}"\n' for line in NOISE)
                      + "echo 0\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n")
    script.chmod(0o755)
    return f"{options}\nForceCommand {script}"


@pytest.mark.parametrize("programs", [(), ("socat",), ("ncat",), ("docker",)])
def test_what_start_up_files_say_is_no_cause(make_sshd: MakeSshd, connect: Connect, socket_path: str, tmp_path: Any,
                                             programs: Any) -> None:
    sshd = make_sshd(noisy(tmp_path, only(tmp_path, *programs)))
    with Server(Script(LIST), socket_path):
        with pytest.raises(ForwardingRefused):  # no program's stream is clean
            connect(sshd).open_stream(15)
    # The server has gone, and its socket with it: now there is a cause.
    with pytest.raises(EngineSocketAbsent):
        connect(sshd).open_stream(15)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(socket_path)
    dead.close()
    with pytest.raises(EngineStopped):
        connect(sshd).open_stream(15)


def test_a_socket_is_seen_behind_what_start_up_files_say(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                                         tmp_path: Any) -> None:
    sshd = make_sshd(noisy(tmp_path, ""))
    with open(socket_path, "w"):
        pass
    with pytest.raises(EngineSocketAbsent, match="no socket"):
        connect(sshd).open_stream(10)


@pytest.fixture
def visitor(make_sshd: MakeSshd, tmp_path: Any) -> Callable[..., Sshd]:
    """An sshd with a user who is not root: its own view of /etc/passwd names one."""
    need(os.geteuid() == 0 and shutil.which("unshare"), "root, to log in as somebody else")
    passwd = tmp_path / "passwd"
    with open("/etc/passwd") as source:
        passwd.write_text(source.read() + "visitor:x:54321:54321::/:/bin/sh\n")
    for directory in [tmp_path] + list(tmp_path.parents)[:3]:
        os.chmod(str(directory), 0o755)
    mount = f"mount --bind {passwd} /etc/passwd && exec \"$@\""

    def make(options: str = "") -> Sshd:
        sshd = make_sshd(options, before=("unshare", "--mount", "sh", "-c", mount, "sh"))
        sshd.user = "visitor"
        return sshd

    return make


@pytest.mark.parametrize("forwarding", ["", NO_FORWARDING])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_socket_of_another_user(visitor: Callable[..., Sshd], connect: Connect, tmp_path: Any, forwarding: str,
                                  hidden: bool) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    path = str(directory / "engine.sock")
    with Server(Script(LIST), path):
        os.chmod(path, 0o660)
        if hidden:
            os.chmod(str(directory), 0o700)
        sshd = visitor(forwarding)
        with pytest.raises(EngineForbidden) as caught:
            connect(sshd, socket=path).open_stream(10)
        assert path in str(caught.value)
        os.chmod(path, 0o666)
        os.chmod(str(directory), 0o755)
        connect(sshd, socket=path).open_stream(10).close()


@pytest.mark.parametrize("forwarding", ["", NO_FORWARDING])
def test_an_engine_that_restarts(make_sshd: MakeSshd, connect: Connect, socket_path: str, forwarding: str) -> None:
    sshd = make_sshd(forwarding)
    connection = connect(sshd)
    engine = api.Engine(connection, ENGINE)
    with Server(Script(LIST), socket_path):
        assert engine.containers() == []
        assert engine.containers() == []
    with pytest.raises(EngineUnavailable):
        engine.containers()
    with Server(Script(LIST), socket_path):
        assert engine.containers() == []
    engine.close()
    assert sshd.log().count("Accepted publickey") == 1


def test_channels_are_bounded_and_come_back(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    with Server(Script(LIST), socket_path):
        connection = connect(make_sshd(), engine=ENGINE._replace(max_channels=3))
        streams = [connection.open_stream(5) for _ in range(3)]
        with pytest.raises(EngineTimeout):
            connection.open_stream(0.1)
        waiting = threading.Timer(0.1, streams[0].close)
        waiting.start()
        streams.append(connection.open_stream(5))
        waiting.join()
        for stream in streams + streams:
            stream.close()
        for _ in range(20):
            connection.open_stream(5).close()


@pytest.mark.parametrize("forwarding", ["", NO_FORWARDING])
def test_many_threads_share_a_connection(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                         forwarding: str) -> None:
    with Server(Script({"/info": http_answer(b'{"Name": "here"}')}), socket_path):
        engine = api.Engine(connect(make_sshd(forwarding)), ENGINE)
        wrong: List[Any] = []

        def ask() -> None:
            for _ in range(20):
                try:
                    if engine.info() != {"Name": "here"}:
                        wrong.append("another answer")
                except Exception as error:  # noqa: BLE001
                    wrong.append(error)

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.close()
    assert not wrong


def test_a_flood_nobody_reads_ends_the_connection(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    """The window holds an honest sshd back, so the engine's flood stops in the guest."""
    sent: List[int] = [0]

    def flood(peer: socket.socket) -> None:
        read_head(peer)
        while True:
            sent[0] += peer.send(b"x" * 65536)

    with Server(flood, socket_path):
        connection = connect(make_sshd())
        stream = connection.open_stream(5)
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stream.receive(1, 5) == b"x"
        deadline = time.monotonic() + 1.0
        last = -1
        while sent[0] != last and time.monotonic() < deadline:
            last = sent[0]
            time.sleep(0.1)
        assert len(stream._channel.in_buffer) <= 2 * 1024 * 1024
        stream.close()


def test_what_is_lost_is_told_apart(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    """The engine's end of a stream is not the end of the connection."""
    with Server(Script(LIST), socket_path) as server:
        connection = connect(make_sshd(), QUICK)
        stream = connection.open_stream(5)
        stream.sendall(b"GET /_ping HTTP/1.1\r\nHost: engine\r\n\r\n")
        assert stream.receive(100, 5)
        server.hang_up()
        assert stream.receive(100, 5) == b""
        assert stream.stale and not connection.closed
        with pytest.raises(EngineLost):
            for _ in range(100):
                stream.sendall(b"more")
                time.sleep(0.01)
        stream.close()


def test_an_answer_in_pieces_does_not_wait_for_acknowledgements(make_sshd: MakeSshd, connect: Connect,
                                                                socket_path: str) -> None:
    """sshd holds back the second piece until the first is acknowledged, which a kernel does after 40 ms."""
    answer = http_answer(b"[]")

    def in_pieces(peer: socket.socket, head: str) -> None:
        for start in range(0, len(answer), 30):
            peer.sendall(answer[start:start + 30])
            time.sleep(0.002)

    with Server(Script({"/containers/json": in_pieces}), socket_path):
        engine = api.Engine(connect(make_sshd()), ENGINE)
        taken: List[float] = []
        for _ in range(15):
            started = time.monotonic()
            engine.containers()
            taken.append(time.monotonic() - started)
        engine.close()
    # Not the median: a busy machine may hold up most of them, but none would be as quick as that.
    assert sorted(taken)[3] < 0.035
