"""The text that a server sends instead of an identification string is quoted, and recognized if it is of an sshd."""

import os
import socket
import subprocess
import time
from typing import Any, Callable, List, Type

import paramiko
import pytest

from tests.engine.conftest import ENGINE, QUICK
from tests.engine.peers import Server, Sshd
from xscontainer.engine.ssh import banner
from xscontainer.engine.ssh import connection as ssh
from xscontainer.errors import GuestNotSSH, GuestSilent, LoginEnded, SSHBusy, SSHClosed, SSHPenalty


@pytest.mark.parametrize("said, kind", [
    (b"Exceeded MaxStartups\r\n", SSHBusy), (b"Too many connections, try again later\r\n", SSHBusy),
    (b"Not allowed at this time\r\n", SSHPenalty), (b"access denied\n", SSHClosed),
    (b"Your address is BLOCKED\n", SSHClosed), (b"", SSHClosed), (b"SS", GuestSilent), (b"\r\n\r\n", GuestNotSSH),
    (b"HTTP/1.1 403 Forbidden\r\n", GuestNotSSH), (b"220 mail.example ESMTP\r\n", GuestNotSSH),
    (b"421 Too many connections from your host\r\n", GuestNotSSH), (b"\x15\x03\x03\x00\x02\x02\x0a", GuestNotSSH)])
def test_each_rejection_before_the_handshake_has_its_own_error(said: bytes, kind: Type[GuestSilent]) -> None:
    error = banner.missing(said, True, 5.0, "10.0.0.5 port 22")
    assert type(error) is kind and "10.0.0.5 port 22" in error.message


@pytest.mark.parametrize("said", [b"Exceeded MaxStartups\x1b[2J\r\n", b"denied \xff\xfe", b"hello \xe2\x80\xae"])
def test_a_rejection_is_quoted_without_control_characters(said: bytes) -> None:
    message = banner.missing(said, True, 5.0, "10.0.0.5 port 22").message
    assert said.split()[0].decode("ascii", "ignore").rstrip("\x1b") in message and message.isprintable()


def test_a_server_that_sends_nothing_is_silent() -> None:
    assert type(banner.missing(b"", False, 5.0, "10.0.0.5 port 22")) is GuestSilent


@pytest.mark.real
def test_an_sshd_at_its_limit_of_logins_is_busy(make_sshd: Callable[..., Sshd], private_key: paramiko.PKey) -> None:
    """OpenSSH sends a reason since 8.4. Older releases close the connection."""
    sshd = make_sshd("MaxStartups 2")
    held: List[socket.socket] = []
    try:
        deadline = time.monotonic() + 10.0
        while len(held) < 2:  # the connections that tested the start may still count
            assert time.monotonic() < deadline
            other = socket.create_connection(("127.0.0.1", sshd.port), 10.0)
            if other.recv(100).startswith(b"SSH-"):
                held.append(other)
            else:
                other.close()
        version = subprocess.run(["ssh", "-V"], stderr=subprocess.PIPE, check=True).stderr
        old = version.startswith((b"OpenSSH_7", b"OpenSSH_8.0", b"OpenSSH_8.1", b"OpenSSH_8.2", b"OpenSSH_8.3"))
        with pytest.raises(SSHClosed if old else SSHBusy):
            ssh.connect(ssh.Target(("127.0.0.1",), sshd.port, sshd.user, ""), private_key, QUICK, ENGINE)
    finally:
        for other in held:
            other.close()


class _NoMore(paramiko.ServerInterface):
    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_FAILED


def _saying_why(peer: socket.socket) -> Any:
    transport = paramiko.Transport(peer)
    transport.add_server_key(paramiko.ECDSAKey.generate())

    def disconnect(_message: paramiko.Message) -> None:
        goodbye = paramiko.Message()
        goodbye.add_byte(bytes([paramiko.common.MSG_DISCONNECT]))
        goodbye.add_int(2)
        goodbye.add_string("Too many\x1b[2J authentication failures")
        goodbye.add_string("")
        transport._send_message(goodbye)
        peer.shutdown(socket.SHUT_WR)

    # A login begins with this message.
    transport._handler_table = {**transport._handler_table, paramiko.common.MSG_SERVICE_REQUEST: disconnect}
    transport.start_server(server=_NoMore())
    transport.join(20.0)


def test_the_reason_of_a_server_that_ends_a_login_is_quoted(private_key: paramiko.PKey) -> None:
    with Server(_saying_why) as server, pytest.raises(LoginEnded, match="Too many.* authentication failures") as caught:
        ssh.connect(ssh.Target(("127.0.0.1",), server.port, "core", ""), private_key, QUICK, ENGINE)
    assert caught.value.message.isprintable()
    assert os.linesep not in caught.value.message
