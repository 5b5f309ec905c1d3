"""Requests share the few sessions that an sshd allows; Dropbear closes some of them."""

import os
import subprocess
import threading
import time
from typing import Any, Callable, Iterator, List

import paramiko
import pytest

from tests.engine.conftest import ENGINE, QUICK
from tests.engine.peers import Script, Server, Sshd, http_answer
from tests.engine.test_tunnel import only
from tests.need import need_program
from tests.verbs.prepare.guests import INSIDE, UID, USER, FreshGuest
from tests.waiting import until
from xscontainer.engine import api
from xscontainer.engine.ssh import commands
from xscontainer.engine.ssh import connection as ssh
from xscontainer.engine.ssh.sessions import STILL_COUNTED, Sessions
from xscontainer.errors import EngineTimeout, EngineWithoutEvents, XSContainerError

Connect = Callable[..., ssh.SSHConnection]
MakeSshd = Callable[..., Sshd]

LIST = http_answer(b"[]")
INFO = http_answer(b'{"Name": "here"}')


def events(peer: Any, head: str) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    while peer.recv(1000):
        pass


ANSWERS = {"/containers/json": LIST, "/info": INFO, "/events": events}


def together(acts: "List[Callable[[], Any]]") -> "List[Any]":
    """Run all at once, and return what each returns or raises."""
    told: List[Any] = [None] * len(acts)

    def one(number: int) -> None:
        try:
            told[number] = acts[number]()
        except XSContainerError as error:
            told[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


@pytest.mark.real
@pytest.mark.parametrize("most", [1, 2, 3, 4, 10])
def test_requests_share_the_sessions_that_sshd_allows(make_sshd: MakeSshd, connect: Connect, socket_path: str,
                                                      most: int) -> None:
    guest = only("socat")
    guest["options"] = f"DisableForwarding yes\nMaxSessions {most}"
    sshd = make_sshd(**guest)
    with Server(Script(ANSWERS), socket_path):
        connection = connect(sshd)
        engine = api.Engine(connection, ENGINE._replace(request_timeout=60.0))
        assert engine.containers() == [] and connection.method == "socat"
        assert connection.room == (most if most < 4 else connection.room)
        if most == 1:
            with pytest.raises(EngineWithoutEvents, match="MaxSessions"):
                engine.events()
        else:
            engine.events()
        for _ in range(3):
            told = together([engine.info] * 12)
            assert told == [{"Name": "here"}] * 12
        assert connection.room <= most
        engine.close()
        connection.close()
    assert sshd.log().count("Accepted publickey") == 1


@pytest.mark.real
def test_commands_wait_for_a_free_session(make_sshd: MakeSshd, connect: Connect) -> None:
    connection = connect(make_sshd("MaxSessions 2"))

    def ask() -> bytes:
        return commands.run(connection._transport, "sleep 0.1; echo done", deadline=time.monotonic() + 60).output

    assert together([ask] * 10) == [b"done"] * 10
    assert connection._transport.sessions.limit == 2


@pytest.mark.real
def test_the_error_says_that_all_sessions_stayed_in_use(make_sshd: MakeSshd, connect: Connect) -> None:
    transport = connect(make_sshd("MaxSessions 1"))._transport
    held = transport.execute("sleep 600", time.monotonic() + 10)
    for _ in range(2):
        with pytest.raises(EngineTimeout, match="allows 1 session at once") as caught:
            commands.run(transport, "id -u", deadline=time.monotonic() + 0.5)
        assert "MaxSessions" in caught.value.hint
    held.close()


@pytest.mark.real
def test_a_command_waits_for_a_session_that_sshd_still_counts(make_sshd: MakeSshd, connect: Connect) -> None:
    """sshd counts a session until its process has ended, and this one ignores its closed streams."""
    transport = connect(make_sshd("MaxSessions 1"))._transport
    transport.execute("trap '' HUP PIPE; sleep 0.5", time.monotonic() + 10).close()
    answer = commands.run(transport, "echo done", deadline=time.monotonic() + 30)
    assert answer.output == b"done"


class Refusing:
    """Open at most ``most`` sessions at once."""

    def __init__(self, most: int) -> None:
        self.most, self.open, self.asked = most, 0, 0

    def __call__(self) -> Any:
        self.asked += 1
        if self.open >= self.most:
            raise paramiko.ChannelException(2, "open failed")
        self.open += 1
        number = self.asked

        class Channel:
            closed = False

            @staticmethod
            def get_id() -> int:
                return number

            @staticmethod
            def close() -> None:
                self.open -= 1

        return Channel


def test_a_server_without_sessions_has_no_limit() -> None:
    sessions, opener = Sessions(), Refusing(0)
    with pytest.raises(paramiko.ChannelException):
        sessions.open(opener, time.monotonic() + 60)
    assert opener.asked == 1 and sessions.limit == 0


@pytest.mark.parametrize("most", [1, 2, 3, 4, 9])
def test_a_low_limit_is_learned_before_it_is_reached(most: int) -> None:
    sessions, opener = Sessions(), Refusing(most)
    sessions.open(opener, time.monotonic() + 60)
    sessions.learn(opener)
    assert sessions.limit == (most if most < 4 else 0)
    assert opener.open == 1


def test_sessions_that_ended_long_ago_mean_no_limit() -> None:
    now = [0.0]
    sessions, opener = Sessions(lambda: now[0]), Refusing(1)
    channel = sessions.open(opener, 60.0)
    sessions.ended(channel.get_id())
    now[0] = STILL_COUNTED + 1.0
    with pytest.raises(paramiko.ChannelException):
        sessions.open(opener, 60.0)
    assert sessions.limit == 0


# --- Dropbear


class Dropbear(FreshGuest):
    """A guest with Dropbear instead of OpenSSH."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        key = os.path.join(self.directory, "dropbear_key")
        subprocess.run([need_program("dropbearkey", "dropbear-bin"), "-t", "ed25519", "-f", key],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=60)
        dropbear, wrap = need_program("dropbear", "dropbear-bin"), self.sshd.wrap
        self.sshd.wrap = lambda command: wrap([dropbear, "-i", "-r", key])


@pytest.fixture
def dropbear(tmp_path: Any, key_pair: ssh.KeyPair) -> Iterator[Dropbear]:
    need_program("dropbear", "dropbear-bin")
    with Dropbear(str(tmp_path / "g")) as guest:
        guest.write_keys(key_pair.public.encode() + b"\n")
        yield guest


def reach(guest: FreshGuest, private_key: paramiko.PKey) -> ssh.SSHConnection:
    target = ssh.Target((guest.address,), guest.port, USER, INSIDE + "/docker.sock")
    return ssh.connect(target, private_key, QUICK, ENGINE._replace(request_timeout=60.0))


@pytest.mark.real
def test_requests_work_with_dropbear(dropbear: Dropbear, private_key: paramiko.PKey) -> None:
    """Dropbear closes some channels that are opened while another ends."""
    need_program("socat")
    with Server(Script(ANSWERS), dropbear.engine_socket):
        os.chown(dropbear.engine_socket, UID, UID)
        connection = reach(dropbear, private_key)
        assert "dropbear" in connection.shell.server
        try:
            for _ in range(25):
                connection.open_stream(30.0).close()
            assert connection.method not in ("", "streamlocal")
            engine = api.Engine(connection, ENGINE._replace(request_timeout=60.0))
            stream = engine.events()
            for _ in range(3):
                assert together([engine.info] * 8) == [{"Name": "here"}] * 8
            assert not stream.closed and connection.room == 2
            engine.close()
        finally:
            connection.close()
    until(lambda: dropbear.sessions == 0)


@pytest.mark.real
def test_commands_work_with_dropbear_one_after_the_other(dropbear: Dropbear, private_key: paramiko.PKey) -> None:
    connection = reach(dropbear, private_key)
    assert "dropbear" in connection.shell.server
    try:
        for number in range(40):
            answer = commands.run(connection._transport, 'echo "$1"', str(number), deadline=time.monotonic() + 30)
            assert answer.output == str(number).encode()
    finally:
        connection.close()


