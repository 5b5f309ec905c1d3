"""Streams to the engine's socket, and the errors if there is none; on a real sshd."""

import os
import shlex
import shutil
import socket
import threading
import time
from typing import Any, Callable, Dict, List

import pytest

from tests.engine.conftest import ENGINE, QUICK
from tests.engine.peers import Script, Server, Sshd, http_answer, read_head
from tests.need import need, need_program
from xscontainer.engine import api
from xscontainer.engine.connection import EXTRA_UNREAD
from xscontainer.engine.http import exchange
from xscontainer.engine.ssh import connection as ssh
from xscontainer.errors import (
    EngineForbidden,
    EngineLost,
    EngineSocketAbsent,
    EngineStopped,
    EngineTimeout,
    EngineUnavailable,
    ForwardingRefused,
    ScriptNotRun,
)
from xscontainer.simulator.guests.base import programs_but

pytestmark = pytest.mark.real

LIST = {"/containers/json": http_answer(b"[]")}
NO_FORWARDING = "AllowStreamLocalForwarding no"
UNSHARE = ("unshare", "--mount", "sh", "-c")

Connect = Callable[..., ssh.SSHConnection]
MakeSshd = Callable[..., Sshd]


def only(*names: str, options: str = NO_FORWARDING) -> Dict[str, Any]:
    """Return options of make_sshd for a guest that has only these programs to connect to a socket."""
    need(os.geteuid() == 0, "root, to hide programs from a guest")
    for name in names:
        need_program(name)
    hiding = [f"mount --bind /dev/null {shlex.quote(path)}" for path in programs_but(names)]
    return {"options": options, "before": UNSHARE + (" && ".join(hiding + ['exec "$@"']), "sh")}


@pytest.mark.parametrize("program, method", [("docker", "dial-stdio"), ("socat", "socat"), ("ncat", "ncat")])
def test_a_program_connects_if_sshd_forwards_nothing(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                                     tmp_path: Any, program: str, method: str) -> None:
    sshd = make_sshd(**only(program))
    script = Script(LIST)
    with Server(script, socket_path):
        connection = connect(sshd)
        engine = api.Engine(connection, ENGINE)
        assert engine.containers() == []
        assert connection.method == method
        assert method in connection.describe()
        engine.close()
        connection.close()
        # The method that worked is tried first the next time, so no channel is tried in vain.
        again = connect(sshd, method=method)
        engine = api.Engine(again, ENGINE)
        assert engine.containers() == []
        engine.close()
    assert sshd.log().count("refused streamlocal port forward") == 1


def test_another_method_is_tried_if_the_last_one_fails(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    with Server(Script(LIST), socket_path):
        connection = connect(make_sshd(**only(options="")), method="socat")
        engine = api.Engine(connection, ENGINE)
        assert engine.containers() == []
        assert connection.method == "streamlocal"
        engine.close()


def test_an_unknown_method_is_ignored(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    with Server(Script(LIST), socket_path):
        connection = connect(make_sshd(), method="rm -rf /")
        connection.open_stream(5).close()
        assert connection.method == "streamlocal"


def test_the_error_names_each_program_that_failed(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                                  tmp_path: Any) -> None:
    with Server(Script(LIST), socket_path):
        with pytest.raises(ForwardingRefused) as caught:
            connect(make_sshd(**only())).open_stream(10)
    for word in ("dial-stdio", "socat", "ncat"):
        assert word in str(caught.value)


@pytest.mark.parametrize("options, what", [
    ("restrict", "port-forwarding"), ("no-port-forwarding,no-pty", "no-port-forwarding"),
    ('permitopen="localhost:1"', "permitopen")])
def test_a_line_of_the_key_that_allows_no_channel_is_reported(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                                              tmp_path: Any, options: str, what: str) -> None:
    sshd = make_sshd(**only(options=""))
    path = tmp_path / "sshd0" / "authorized_keys"
    path.write_text("# the pool's:\n" + options + " " + path.read_text())
    with Server(Script(LIST), socket_path):
        with pytest.raises(ForwardingRefused) as caught:
            connect(sshd).open_stream(10)
    assert f"Line 2 of {path}" in caught.value.hint and what in caught.value.hint


def test_a_guest_without_channels_and_commands_is_reported(make_sshd: MakeSshd, connect: Connect,
                                                           socket_path: str) -> None:
    with Server(Script(LIST), socket_path):
        with pytest.raises(ScriptNotRun) as caught:
            connect(make_sshd(NO_FORWARDING + "\nForceCommand /bin/false")).open_stream(10)
    assert socket_path in str(caught.value) and "exit status 1" in str(caught.value)


@pytest.mark.parametrize("forwarding", ["", NO_FORWARDING])
def test_an_absent_socket_is_reported(make_sshd: MakeSshd, connect: Connect, socket_path: str, forwarding: str) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        connect(make_sshd(forwarding)).open_stream(10)
    assert socket_path in str(caught.value)


@pytest.mark.parametrize("programs", [(), ("docker",), ("socat",), ("ncat",)])
def test_a_socket_without_a_listener_means_a_stopped_engine(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                                            tmp_path: Any, programs: Any) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(socket_path)
    dead.close()
    with pytest.raises(EngineUnavailable):
        connect(make_sshd(**only(*programs))).open_stream(15)


def test_a_listener_at_another_path_with_the_same_file_name_does_not_count(make_sshd: MakeSshd, connect: Connect,
                                                                           socket_path: str, tmp_path: Any) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(socket_path)
    dead.close()
    os.mkdir(tmp_path / "other")
    with Server(Script(LIST), str(tmp_path / "other" / os.path.basename(socket_path))):
        with pytest.raises(EngineStopped):
            connect(make_sshd(**only())).open_stream(15)


def test_a_link_to_a_socket_works(make_sshd: MakeSshd, connect: Connect, socket_path: str, tmp_path: Any) -> None:
    os.symlink(socket_path, tmp_path / "link")
    with Server(Script(LIST), socket_path):
        with pytest.raises(ForwardingRefused):
            connect(make_sshd(**only()), socket=str(tmp_path / "link")).open_stream(15)


def test_a_regular_file_is_not_a_socket(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    with open(socket_path, "w"):
        pass
    with pytest.raises(EngineUnavailable) as caught:
        connect(make_sshd()).open_stream(10)
    assert "not a socket" in str(caught.value)


# A guest whose start-up files print errors to both streams before each command, for each login shell.
NOISE = ["rm: cannot remove 'shims/x': No such file or directory", "/etc/profile.d/y.sh: Permission denied",
         "connect: Connection refused"]


def noisy(directory: Any, guest: Dict[str, Any]) -> Dict[str, Any]:
    script = directory / "noisy"
    script.write_text("#!/bin/sh\n" + "".join(f'echo "{line}" >&2\necho "{line}"\n' for line in NOISE)
                      + "echo 0\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n")
    script.chmod(0o755)
    return dict(guest, options=f"{guest.get('options', '')}\nForceCommand {script}")


@pytest.mark.parametrize("programs", [(), ("socat",), ("ncat",), ("docker",)])
def test_output_of_start_up_files_is_not_taken_for_an_error(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                                            tmp_path: Any, programs: Any) -> None:
    sshd = make_sshd(**noisy(tmp_path, only(*programs)))
    with Server(Script(LIST), socket_path):
        if programs:
            connect(sshd).open_stream(15).close()
        else:
            with pytest.raises(ForwardingRefused):
                connect(sshd).open_stream(15)
    # Now the server and its socket are gone.
    with pytest.raises(EngineSocketAbsent):
        connect(sshd).open_stream(15)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(socket_path)
    dead.close()
    with pytest.raises(EngineStopped):
        connect(sshd).open_stream(15)


def test_output_of_start_up_files_does_not_hide_a_missing_socket(make_sshd: MakeSshd, connect: Connect,
                                                                 socket_path: str, tmp_path: Any) -> None:
    sshd = make_sshd(**noisy(tmp_path, {}))
    with open(socket_path, "w"):
        pass
    with pytest.raises(EngineSocketAbsent, match="not a socket"):
        connect(sshd).open_stream(10)


@pytest.fixture
def visitor(make_sshd: MakeSshd, tmp_path: Any) -> Callable[..., Sshd]:
    """Start an sshd with a user who is not root, by its own /etc/passwd."""
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
def test_a_socket_of_another_user_is_forbidden(visitor: Callable[..., Sshd], connect: Connect, tmp_path: Any,
                                               forwarding: str, hidden: bool) -> None:
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
def test_an_engine_is_reached_again_after_a_restart(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                                    forwarding: str) -> None:
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


def test_the_number_of_channels_is_limited(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
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


def test_extra_channels_are_not_limited(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    """sshd counts sessions, but not channels to a socket."""
    with Server(Script(LIST), socket_path):
        connection = connect(make_sshd("MaxSessions 1"), engine=ENGINE._replace(max_channels=2))
        assert connection.open_extra(5) is None, "the socket is not known yet"
        streams = [connection.open_stream(5) for _ in range(2)]
        extra = [connection.open_extra(5) for _ in range(40)]
        for stream in extra:
            assert stream is not None and stream._channel.most_unread == EXTRA_UNREAD
            assert exchange(stream, "GET", "/containers/json", headers={"Host": "engine"}).body == b"[]"
        for each in [*extra, *streams]:
            assert each is not None
            each.close()
        connection.open_stream(5).close()


def test_there_are_no_extra_channels_where_streams_are_sessions(make_sshd: MakeSshd, connect: Connect,
                                                                socket_path: str) -> None:
    with Server(Script(LIST), socket_path):
        connection = connect(make_sshd(**only("socat")))
        connection.open_stream(5).close()
        assert connection.open_extra(5) is None


def test_a_stopped_engine_has_no_extra_channels(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    with Server(Script(LIST), socket_path):
        connection = connect(make_sshd())
        connection.open_stream(5).close()
    assert connection.open_extra(5) is None
    with pytest.raises(EngineSocketAbsent):
        connection.open_stream(5)


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


def test_unread_data_of_an_engine_stays_in_the_guest(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    """The channel's window stops sshd, so the data stays in the guest."""
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


def test_the_end_of_a_stream_and_of_a_connection_have_different_errors(make_sshd: MakeSshd, connect: Connect,
                                                                       socket_path: str) -> None:
    """The engine ends a stream; the connection stays."""
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


def test_an_answer_in_two_packets_does_not_wait_for_an_acknowledgement(make_sshd: MakeSshd, connect: Connect,
                                                                       socket_path: str) -> None:
    """sshd delays the second packet until the first is acknowledged, which the kernel does after 40 ms."""
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
    # The minimum, not the median: a busy machine may delay most answers, but with the fault none is so quick.
    assert sorted(taken)[3] < 0.035
