"""Each socket is closed, no matter which step fails between its creation and its use."""

import errno
import os
import socket
from typing import Any, Callable, Set

import paramiko
import pytest

from tests.engine.conftest import ENGINE, QUICK
from tests.engine.peers import Script, Server, Sshd, read_head
from tests.engine.tls_peers import Authority, connect, over_tls, server_context
from tests.waiting import until
from xscontainer.engine import dial as dialling
from xscontainer.engine.dial import dial
from xscontainer.engine.ssh import connection as ssh
from xscontainer.engine.ssh import handshake as ssh_handshake
from xscontainer.engine.tls import connection as tls
from xscontainer.engine.tls import handshake as tls_handshake
from xscontainer.errors import GuestUnreachable


def held() -> Set[str]:
    """Return the sockets of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + name)
        except OSError:
            continue  # the descriptor of the directory itself
        if target.startswith("socket:"):
            found.add(target)
    return found


class Injected(Exception):
    """An exception that no code expects."""


def failing(error: BaseException) -> "Callable[..., Any]":
    def fail(*_: Any, **__: Any) -> Any:
        raise error
    return fail


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
def test_an_address_whose_socket_options_fail_does_not_answer(monkeypatch: pytest.MonkeyPatch, addresses: Any) -> None:
    monkeypatch.setattr(dialling, "_tune", failing(OSError(errno.EINVAL, "Invalid argument")))
    with Server(read_head, at=("0.0.0.0", 0)) as server:
        with pytest.raises(GuestUnreachable, match="Invalid argument") as caught:
            dial(addresses, server.port, 5.0, 30.0)
        assert caught.value  # whose traceback references all local variables
        until(lambda: server.connections == len(addresses) and not server._open, "a connection is still open")


def test_the_next_address_is_tried_if_socket_options_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    tune, seen = dialling._tune, []

    def once(sock: socket.socket, dead_after: float) -> None:
        seen.append(sock.getpeername()[0])
        if len(seen) == 1:
            raise OSError(errno.EINVAL, "Invalid argument")
        tune(sock, dead_after)

    monkeypatch.setattr(dialling, "_tune", once)
    with Server(read_head, at=("0.0.0.0", 0)) as server:
        answered = dial(["127.0.0.1", "127.0.0.2"], server.port, 5.0, 30.0)
        answered.sock.close()
        assert (seen, answered.address) == (["127.0.0.1", "127.0.0.2"], "127.0.0.2")


@pytest.mark.parametrize("owner, name", [
    (dialling, "_tune"), (tls_handshake, "_set_keepalive"), (tls.certs, "vms_named"), (tls.certs, "fingerprint"),
    (tls, "TLSStream")])
def test_no_socket_is_left_behind_over_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, owner: Any,
                                           name: str) -> None:
    authority = Authority.new()
    with Server(over_tls(server_context(str(tmp_path), authority), Script())) as server:
        monkeypatch.setattr(owner, name, failing(Injected()))
        with pytest.raises(Injected) as caught:
            connect(authority.credentials, server.port)
        assert caught.value
        until(lambda: server.connections and not server._open, "a connection is still open")


@pytest.mark.real
@pytest.mark.parametrize("owner, name", [
    (dialling, "_tune"), (ssh, "GuestTransport"), (ssh_handshake, "_exchange_keys"), (ssh.hostkeys, "check"),
    (ssh, "log_in"), (ssh, "SSHConnection"), (ssh.GuestTransport, "watch")])
def test_no_socket_is_left_behind_over_ssh(monkeypatch: pytest.MonkeyPatch, make_sshd: Callable[..., Sshd],
                                           private_key: paramiko.PKey, owner: Any, name: str) -> None:
    target = ssh.Target(("127.0.0.1",), make_sshd().port, "root", "/nonexistent")
    before = held()
    monkeypatch.setattr(owner, name, failing(Injected()))
    with pytest.raises(Injected) as caught:
        ssh.connect(target, private_key, QUICK, ENGINE)
    assert caught.value and not held() - before
