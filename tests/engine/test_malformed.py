"""Malformed messages of a guest that paramiko trusts."""

import contextlib
import socket
import struct
import threading
import time
from typing import Any, Callable, Iterator, List

import paramiko
import pytest
from paramiko.common import MSG_EXT_INFO, MSG_USERAUTH_FAILURE, MSG_USERAUTH_INFO_REQUEST

from tests.engine.peers import Server
from tests.waiting import until
from xscontainer.core.budget import CPU, FairRate, GuestBudget
from xscontainer.engine.ssh import connection as ssh
from xscontainer.engine.ssh.login import Guest
from xscontainer.errors import LoginEnded, SSHIncompatible, TransportLost
from xscontainer.settings import EngineSettings, GuestSettings

pytestmark = pytest.mark.real

QUICK = GuestSettings(connect_timeout=5.0, handshake_timeout=5.0, login_timeout=20.0)
HOST_KEY = paramiko.ECDSAKey.generate()
MANY = 0xffffffff


def _message(kind: int, *strings: str) -> paramiko.Message:
    message = paramiko.Message()
    message.add_byte(bytes([kind]))
    for string in strings:
        message.add_string(string)
    return message


class _Asking(paramiko.ServerInterface):
    """Asks very many questions instead of one for a password."""

    transport: Any = None

    def get_allowed_auths(self, username: str) -> str:
        return "keyboard-interactive"

    def check_auth_interactive(self, username: str, submethods: str) -> Any:
        message = _message(MSG_USERAUTH_INFO_REQUEST, "", "", "")
        message.add_int(MANY)
        self.transport._send_message(message)
        return paramiko.common.AUTH_PARTIALLY_SUCCESSFUL


class _Telling(_Asking):
    """Announces very many extensions before the login."""

    def check_auth_none(self, username: str) -> int:
        message = _message(MSG_EXT_INFO)
        message.add_int(MANY)
        message.add_string("server-sig-algs")
        message.add_string("ssh-rsa")
        self.transport._send_message(message)
        return paramiko.common.AUTH_FAILED


@pytest.fixture
def serve() -> Iterator[Callable[[Any], Server]]:
    """Start an SSH server with this behaviour."""
    started: List[Server] = []

    def make(policy: Any) -> Server:
        def run(peer: socket.socket) -> None:
            transport = paramiko.Transport(peer)
            policy.transport = transport
            transport.add_server_key(HOST_KEY)
            try:
                transport.start_server(server=policy, event=threading.Event())
                transport.join(30.0)
            finally:
                transport.close()

        started.append(Server(run))
        return started[-1]

    yield make
    for server in started:
        server.close()


@pytest.mark.parametrize("policy", [_Asking, _Telling], ids=["questions", "extensions"])
def test_a_message_that_announces_too_many_entries_is_refused(serve: Callable[[Any], Server], policy: Any) -> None:
    """paramiko loops over as many entries as announced, even if the packet cannot hold them."""
    server = serve(policy())
    began = time.monotonic()
    with Guest(["127.0.0.1"], server.port, QUICK) as met:
        with pytest.raises((LoginEnded, TransportLost)):
            met.by_password("core", "secret")
        assert time.monotonic() - began < 5.0
        met.transport.join(5.0)
        assert not met.transport.is_alive()


class _Babbling(_Asking):
    """Refuses with bytes that are not UTF-8."""

    def _refuse(self) -> int:
        message = _message(MSG_USERAUTH_FAILURE)
        message.add_string(b"\xff\xfe")
        message.add_boolean(False)
        self.transport._send_message(message)
        return paramiko.common.AUTH_FAILED

    def check_auth_none(self, username: str) -> int:
        return self._refuse()

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return self._refuse()


def test_text_that_is_not_utf_8_is_an_error_of_the_connection(serve: Callable[[Any], Server],
                                                              private_key: paramiko.PKey) -> None:
    server = serve(_Babbling())
    with Guest(["127.0.0.1"], server.port, QUICK) as met, pytest.raises((LoginEnded, TransportLost)):
        met.by_password("core", "secret")
    with pytest.raises(TransportLost, match="cannot be decoded"):
        ssh.connect(ssh.Target(("127.0.0.1",), server.port, "core", "/run/docker.sock"), private_key, QUICK,
                    EngineSettings())


def _packet(payload: bytes) -> bytes:
    padding = 4 + -(len(payload) + 9) % 8
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def _read_packet(source: Any) -> bytes:
    length, padding = struct.unpack(">IB", source.read(5))
    data: bytes = source.read(length - 1)
    return data[:length - 1 - padding]


def _string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def _number(number: int) -> bytes:
    return _string(number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


@pytest.mark.parametrize("prime", [-(1 << 2000) - 12345, (1 << 8192) - 1], ids=["negative", "8192 bits"])
def test_a_diffie_hellman_group_of_the_guests_choice_is_not_used(private_key: paramiko.PKey, prime: int) -> None:
    """With such a group paramiko searches for a number forever, or calculates for seconds while all threads wait."""
    def serve(peer: socket.socket) -> None:
        peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        source = peer.makefile("rb")
        try:
            source.readline()
            lists = [b"diffie-hellman-group-exchange-sha256", b"ssh-ed25519", b"aes128-ctr", b"aes128-ctr",
                     b"hmac-sha2-256", b"hmac-sha2-256", b"none", b"none", b"", b""]
            peer.sendall(_packet(b"\x14" + bytes(16) + b"".join(map(_string, lists)) + bytes(5)))
            _read_packet(source)
            _read_packet(source)
            peer.sendall(_packet(b"\x1f" + _number(prime) + _number(2)))
            _read_packet(source)
            blob = _string(b"ssh-ed25519") + _string(bytes(32))
            peer.sendall(_packet(b"\x21" + _string(blob) + _number(3) + _string(bytes(83))))
            _read_packet(source)
        except struct.error:
            pass  # the connection was closed
        finally:
            source.close()

    with Server(serve) as server:
        began, spent = time.monotonic(), time.process_time()
        with pytest.raises(SSHIncompatible):
            ssh.connect(ssh.Target(("127.0.0.1",), server.port, "core", ""), private_key, QUICK, EngineSettings())
        assert time.monotonic() - began < QUICK.handshake_timeout
        until(lambda: not any(isinstance(thread, paramiko.Transport) for thread in threading.enumerate()))
        # A calculation that holds the GIL shows as CPU time.
        assert time.process_time() - spent < 0.5


class _Welcoming(paramiko.ServerInterface):
    """Accepts each login, then calls ``_after`` with the guest's side of the connection."""

    transport: Any = None

    def __init__(self, after: "Callable[[paramiko.Transport], None]") -> None:
        self._after = after

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        threading.Thread(target=self._run).start()
        return paramiko.common.AUTH_SUCCESSFUL

    def _run(self) -> None:
        while self.transport.is_active() and not self.transport.is_authenticated():
            time.sleep(0.01)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while self.transport.is_active():
                self._after(self.transport)


def _ignore_me(transport: paramiko.Transport) -> None:
    message = _message(paramiko.common.MSG_IGNORE, "x")
    transport._send_message(message)


def _another_key(transport: paramiko.Transport) -> None:
    transport.renegotiate_keys()


class _Counted(GuestBudget):
    """A budget that records its charges."""

    charged_in_all = 0.0

    def charge(self, cpu: float) -> None:
        self.charged_in_all += cpu
        super().charge(cpu)


@pytest.mark.parametrize("mute", [False, True], ids=["heard", "held"])
def test_useless_messages_are_read_within_the_guests_budget(serve: Callable[[Any], Server], private_key: paramiko.PKey,
                                                            mute: bool) -> None:
    """The guest stays connected, and TCP slows it down."""
    rate = CPU._replace(each=0.001, total=0.001, quantum=60.0) if mute else CPU
    budget = _Counted("guest", FairRate(rate))
    began = time.monotonic()
    server = serve(_Welcoming(_ignore_me))
    connection = ssh.connect(ssh.Target(("127.0.0.1",), server.port, "core", "", budget=budget), private_key, QUICK,
                             EngineSettings())
    try:
        until(lambda: budget.throttled_for() > 2.0, "it is never held back", 60.0)
        assert budget.charged_in_all <= CPU.burst + CPU.each * (time.monotonic() - began) + 0.1
        assert not connection.closed
        connection.hang_up()  # wakes the reading thread
    finally:
        connection.close()
    assert not connection._transport.is_alive()


def test_a_guest_that_repeats_key_exchanges_loses_its_connection(serve: Callable[[Any], Server],
                                                                 private_key: paramiko.PKey) -> None:
    server = serve(_Welcoming(_another_key))
    connection = ssh.connect(ssh.Target(("127.0.0.1",), server.port, "core", ""), private_key, QUICK, EngineSettings())
    try:
        until(lambda: connection.closed, "it is still connected", 90.0)
        with pytest.raises(TransportLost, match="too many key exchanges"):
            connection.open_stream(1.0)
    finally:
        connection.close()


def test_hang_up_does_not_wait_for_the_reading_thread(serve: Callable[[Any], Server],
                                                      private_key: paramiko.PKey) -> None:
    """The thread that serves many VMs must not wait for one connection."""
    server = serve(_Welcoming(lambda transport: time.sleep(0.1)))
    connection = ssh.connect(ssh.Target(("127.0.0.1",), server.port, "core", ""), private_key, QUICK, EngineSettings())
    at_it, go_on = threading.Event(), threading.Event()

    def busy() -> None:
        at_it.set()
        go_on.wait(10.0)

    connection._transport.packetizer._acknowledge = busy
    connection._transport._send_keepalive()  # the guest answers it
    assert at_it.wait(10.0)
    try:
        began = time.monotonic()
        connection.hang_up()
        assert time.monotonic() - began < 5.0
        assert connection.closed
    finally:
        go_on.set()
        connection.close()
    assert not connection._transport.is_alive()
