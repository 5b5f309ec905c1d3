"""Both kinds of guest do what an SSH server does, and play faults only when they are switched on."""

import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import paramiko
import pytest

from tests.need import need, need_program
from tests.simulator.guests.ssh_client import KEY_LINE, PING, Client, exchange, soon
from tests.simulator.reading import read_some
from xscontainer.simulator.engines import EmbeddedEngine, SimulatorError, processes
from xscontainer.simulator.guests import Guest, OpenSSHGuest
from xscontainer.simulator.guests.embedded import EmbeddedSSHGuest

pytestmark = pytest.mark.real

Maker = Callable[..., Guest]


@pytest.fixture(params=["openssh", "openssh-own-listener", "embedded"])
def make(request: Any) -> Iterator[Maker]:
    """Make guests of one kind that authorize the test's key; close them in the end."""
    directory = tempfile.mkdtemp(prefix="xs-")
    made: List[Guest] = []

    def maker(**options: Any) -> Guest:
        place = f"{directory}/g{len(made)}"
        if request.param == "embedded":
            guest: Guest = EmbeddedSSHGuest(place, **options)
        else:
            need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
            guest = OpenSSHGuest(place, mode="socket" if request.param == "openssh" else "sshd", **options)
        made.append(guest)
        guest.authorize(KEY_LINE)
        return guest

    yield maker
    for guest in made:
        guest.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def guest(make: Maker) -> Guest:
    started = make()
    started.start()
    return started


@pytest.fixture
def engine(guest: Guest) -> Iterator[EmbeddedEngine]:
    with EmbeddedEngine(guest.directory, guest.engine_socket) as running:
        yield running


def test_an_authorized_key_logs_in_and_sees_the_host_key(guest: Guest) -> None:
    with Client(guest) as client:
        assert client.host_key == guest.host_key_base64
        soon(lambda: guest.sessions == 1)
    soon(lambda: guest.sessions == 0)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_guest_can_have_each_kind_of_host_key(make: Maker, kind: str) -> None:
    with make(host_key_type=kind) as guest, Client(guest) as client:
        assert client.host_key == guest.host_key_base64


def test_unknown_and_revoked_keys_are_refused(guest: Guest) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        Client(guest, paramiko.ECDSAKey.generate())
    guest.revoke_all()
    with pytest.raises(paramiko.AuthenticationException):
        Client(guest)


def test_a_rotated_host_key_is_shown_to_new_connections(guest: Guest) -> None:
    before = guest.host_key_base64
    after = guest.rotate_host_key("rsa")
    assert before != after == guest.host_key_base64
    with Client(guest) as client:
        assert client.host_key == after


def test_a_command_runs_in_the_guest(guest: Guest) -> None:
    with Client(guest) as client:
        assert client.run("cat; echo bad >&2; exit 3", b"good") == (3, b"good", b"bad\n")
        # As in a real guest, no variable in the environment names the engine.
        assert client.run("echo $DOCKER_HOST $HOME")[1].decode().split() == [guest.directory + "/home"]


def test_the_engine_is_reached_over_a_streamlocal_channel(guest: Guest, engine: EmbeddedEngine) -> None:
    with Client(guest) as client:
        channel = client.streamlocal(guest.engine_socket)
        for _ in range(3):
            assert exchange(channel, PING, b"OK").startswith(b"HTTP/1.1 200")
        channel.close()
        soon(lambda: engine.connections == 0)


def test_the_end_of_the_engine_closes_the_channel(guest: Guest, engine: EmbeddedEngine) -> None:
    with Client(guest) as client:
        channel = client.streamlocal(guest.engine_socket)
        exchange(channel, PING, b"OK")
        engine.kill()
        assert channel.recv(1) == b""


def test_a_streamlocal_channel_to_an_absent_socket_is_refused(guest: Guest) -> None:
    with Client(guest) as client, pytest.raises(paramiko.ChannelException) as caught:
        client.streamlocal(guest.directory + "/nobody.sock")
    assert caught.value.code == 2


def test_forwarding_can_be_refused(guest: Guest, engine: EmbeddedEngine) -> None:
    guest.set_forwarding(False)
    with Client(guest) as client:
        with pytest.raises(paramiko.ChannelException):
            client.streamlocal(guest.engine_socket)
        assert client.run("true")[0] == 0
    guest.set_forwarding(True)
    with Client(guest) as client:
        client.streamlocal(guest.engine_socket).close()


@pytest.mark.parametrize("tool, command", [
    ("docker", "docker -H unix://{} system dial-stdio"), ("socat", "socat - UNIX-CONNECT:{}"), ("ncat", "ncat -U {}")])
def test_the_engine_is_reached_with_the_only_tool_in_the_guest(make: Maker, tool: str, command: str) -> None:
    if tool != "docker":  # its stand-in is enough where the client is not installed
        need_program(tool)
    else:
        need(shutil.which("docker"), "the program docker")
    with make(tools=[tool]) as guest, EmbeddedEngine(guest.directory, guest.engine_socket), Client(guest) as client:
        assert client.ask(command.format(guest.engine_socket), PING, b"OK").startswith(b"HTTP/1.1 200")
        others = [name for name in ("docker", "socat", "ncat") if name != tool]
        assert client.run(f"command -v {others[0]} || command -v {others[1]}")[0] != 0


def test_stop_ends_sessions_and_refuses_connections(guest: Guest) -> None:
    with Client(guest) as client:
        guest.stop()
        soon(lambda: not client.transport.is_active())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((guest.address, guest.port), 5).close()


def test_stop_may_leave_sessions(guest: Guest) -> None:
    with Client(guest) as client:
        guest.stop(sessions=False)
        assert client.run("echo here")[1] == b"here\n"


def test_a_restart_keeps_address_port_and_key(guest: Guest) -> None:
    before = (guest.address, guest.port, guest.host_key_base64)
    began = time.monotonic()
    guest.restart()
    assert time.monotonic() - began < 2.0
    assert before == (guest.address, guest.port, guest.host_key_base64)
    Client(guest).close()


def test_a_frozen_guest_is_silent_until_thaw(guest: Guest) -> None:
    with Client(guest) as client:
        channel = client.transport.open_session()
        channel.exec_command("cat")
        exchange(channel, b"a\n", b"a\n")
        guest.freeze()
        channel.settimeout(0.3)
        channel.sendall(b"b\n")
        with pytest.raises(socket.timeout):
            channel.recv(1)
        # The kernel still completes the handshake, as with a hung VM.
        with socket.create_connection((guest.address, guest.port), 5) as sock:
            sock.settimeout(0.2)
            with pytest.raises(socket.timeout):
                sock.recv(1)
        guest.thaw()
        channel.settimeout(10)
        assert channel.recv(10) == b"b\n"
    Client(guest).close()


@pytest.mark.parametrize("kind, details, expected", [
    ("silent", {}, b"<silence>"), ("close", {}, b"<end>"), ("cut", {"size": 5}, b"SSH-2<end>")])
def test_a_connection_fault_strikes_the_banner(guest: Guest, kind: str, details: Any, expected: bytes) -> None:
    guest.misbehave(kind, **details)
    assert _banner(guest) == expected
    guest.behave()
    Client(guest).close()


def test_garbage_and_huge_banners_are_sent(guest: Guest) -> None:
    guest.misbehave("garbage", times=1)
    with pytest.raises(paramiko.SSHException):
        Client(guest)
    guest.misbehave("huge", times=1)
    assert len(_banner(guest, 3 << 20)) >= 3 << 20
    guest.behave()


def test_late_and_slow_guests_still_serve(guest: Guest) -> None:
    guest.misbehave("late", seconds=0.3, times=1)
    began = time.monotonic()
    Client(guest).close()
    assert time.monotonic() - began >= 0.3
    guest.misbehave("slow", seconds=0.0005, times=1)
    began = time.monotonic()
    Client(guest).close()
    assert time.monotonic() - began >= 0.5
    guest.behave()


def _banner(guest: Guest, size: int = 100) -> bytes:
    with socket.create_connection((guest.address, guest.port), 5) as sock:
        sock.settimeout(0.5)
        return read_some(sock, size)


def test_close_ends_the_programs_that_clients_started(guest: Guest) -> None:
    with Client(guest) as client:
        channel = client.transport.open_session()
        channel.exec_command("echo $$; sleep 300 & sleep 300")
        pid = int(channel.makefile("rb").readline())
        family = {pid} | processes.descendants([pid])
        guest.close()
        assert processes.wait_gone(family, 5) == set()
    assert not os.path.exists(guest.directory)


def test_a_port_in_use_is_an_error(make: Maker, guest: Guest) -> None:
    second = make(address=guest.address, port=guest.port)
    with pytest.raises(SimulatorError, match=str(guest.port)):
        second.start()


@pytest.mark.parametrize("kind", ["embedded", "openssh"])
def test_channels_beyond_max_sessions_are_refused(kind: str) -> None:
    need(kind == "embedded" or not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    directory = tempfile.mkdtemp(prefix="xs-")
    try:
        guest: Guest = (EmbeddedSSHGuest(directory + "/a", max_sessions=2) if kind == "embedded"
                        else OpenSSHGuest(directory + "/a", options={"MaxSessions": "2"}))
        guest.authorize(KEY_LINE)
        with guest, Client(guest) as client:
            held = [client.transport.open_session() for _ in range(2)]
            with pytest.raises(paramiko.ChannelException):
                client.transport.open_session()
            for channel in held:
                channel.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_the_embedded_guest_plays_channel_faults() -> None:
    directory = tempfile.mkdtemp(prefix="xs-")
    with EmbeddedSSHGuest(directory + "/g") as guest, EmbeddedEngine(guest.directory, guest.engine_socket):
        guest.authorize(KEY_LINE)
        with Client(guest) as client:
            guest.misbehave("no-exec", times=1)
            with pytest.raises(paramiko.SSHException):
                client.run("true")
            guest.misbehave("channel-silent", times=1)
            channel = client.streamlocal(guest.engine_socket)
            channel.settimeout(0.2)
            channel.sendall(PING)
            with pytest.raises(socket.timeout):
                channel.recv(1)
            channel.close()
            exchange(client.streamlocal(guest.engine_socket), PING, b"OK")
    shutil.rmtree(directory, ignore_errors=True)


def test_stand_ins_replace_docker_and_socat_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tempfile.mkdtemp(prefix="xs-")
    monkeypatch.setenv("PATH", directory)
    with EmbeddedSSHGuest(directory + "/g") as guest, EmbeddedEngine(guest.directory, guest.engine_socket):
        guest.authorize(KEY_LINE)
        with Client(guest) as client:
            for command in (f"docker -H unix://{guest.engine_socket} system dial-stdio",
                            f"docker --config /nowhere -H unix://{guest.engine_socket} system dial-stdio",
                            f"socat - UNIX-CONNECT:{guest.engine_socket}", f"ncat -U {guest.engine_socket}"):
                assert client.ask(command, PING, b"OK").startswith(b"HTTP/1.1 200"), command
            code, _, err = client.run("ncat -U /nowhere.sock")
            assert code == 1 and b"cannot connect" in err
    shutil.rmtree(directory, ignore_errors=True)


# -- a password --------------------------------------------------------------------------------------------------------


def test_an_embedded_guest_accepts_its_password_and_a_key_installed_with_it(tmp_path: Path) -> None:
    with EmbeddedSSHGuest(str(tmp_path / "g"), password="right") as guest:
        transport = paramiko.Transport((guest.address, guest.port))
        try:
            transport.start_client(timeout=10)
            with pytest.raises(paramiko.AuthenticationException):
                transport.auth_password(guest.user, "wrong", fallback=False)
            assert transport.auth_password(guest.user, "right", fallback=False) == []
            channel = transport.open_session(timeout=10)
            channel.exec_command(f"echo '{KEY_LINE.strip()}' >>~/.ssh/authorized_keys")
            assert channel.recv_exit_status() == 0
        finally:
            transport.close()
        assert len(guest.authorized()) == 1


def test_a_guest_without_a_password_refuses_every_password(tmp_path: Path) -> None:
    with EmbeddedSSHGuest(str(tmp_path / "g")) as guest:
        transport = paramiko.Transport((guest.address, guest.port))
        try:
            transport.start_client(timeout=10)
            with pytest.raises(paramiko.BadAuthenticationType) as refused:
                transport.auth_password(guest.user, "", fallback=False)
            assert refused.value.allowed_types == ["publickey"]
        finally:
            transport.close()
