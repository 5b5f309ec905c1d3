"""A guest whose messages are not what they should be, where paramiko believes them."""

import socket
import threading
import time
from typing import Any, Callable, Iterator, List

import paramiko
import pytest
from paramiko.common import MSG_EXT_INFO, MSG_USERAUTH_FAILURE, MSG_USERAUTH_INFO_REQUEST

from tests.engine.peers import Server
from xscontainer.engine import ssh
from xscontainer.engine.login import Guest
from xscontainer.errors import LoginEnded, TransportLost
from xscontainer.settings import EngineSettings, SSHSettings

pytestmark = pytest.mark.real

QUICK = SSHSettings(connect_timeout=5.0, banner_timeout=5.0, auth_timeout=20.0)
HOST_KEY = paramiko.ECDSAKey.generate()
MANY = 0xffffffff


def _message(kind: int, *strings: str) -> paramiko.Message:
    message = paramiko.Message()
    message.add_byte(bytes([kind]))
    for string in strings:
        message.add_string(string)
    return message


class _Asking(paramiko.ServerInterface):
    """Takes a password as the answer to a question, of which it has very many."""

    transport: Any = None

    def get_allowed_auths(self, username: str) -> str:
        return "keyboard-interactive"

    def check_auth_interactive(self, username: str, submethods: str) -> Any:
        message = _message(MSG_USERAUTH_INFO_REQUEST, "", "", "")
        message.add_int(MANY)
        self.transport._send_message(message)
        return paramiko.common.AUTH_PARTIALLY_SUCCESSFUL


class _Telling(_Asking):
    """Tells of very many extensions before anybody has logged in."""

    def check_auth_none(self, username: str) -> int:
        message = _message(MSG_EXT_INFO)
        message.add_int(MANY)
        message.add_string("server-sig-algs")
        message.add_string("ssh-rsa")
        self.transport._send_message(message)
        return paramiko.common.AUTH_FAILED


@pytest.fixture
def serve() -> Iterator[Callable[[Any], Server]]:
    """Starts an SSH server that behaves like this."""
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
def test_a_count_is_not_believed(serve: Callable[[Any], Server], policy: Any) -> None:
    """One of more entries than the packet can hold: paramiko would go through all of them."""
    server = serve(policy())
    began = time.monotonic()
    with Guest(["127.0.0.1"], server.port, QUICK) as met:
        with pytest.raises((LoginEnded, TransportLost)):
            met.by_password("core", "secret")
        assert time.monotonic() - began < 5.0
        met.transport.join(5.0)
        assert not met.transport.is_alive()


class _Babbling(_Asking):
    """Refuses, in bytes that are no text."""

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


def test_a_text_that_is_none(serve: Callable[[Any], Server], private_key: paramiko.PKey) -> None:
    server = serve(_Babbling())
    with Guest(["127.0.0.1"], server.port, QUICK) as met, pytest.raises((LoginEnded, TransportLost)):
        met.by_password("core", "secret")
    with pytest.raises(TransportLost, match="nobody can read"):
        ssh.connect(ssh.Target(("127.0.0.1",), server.port, "core", "/run/docker.sock"), private_key, QUICK,
                    EngineSettings())
