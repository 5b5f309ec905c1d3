import os
from typing import Any, Callable, Iterator, List

import paramiko
import pytest

from tests.engine.peers import SocketConnection, Sshd
from tests.need import need, need_program
from xscontainer.engine.ssh import connection as ssh
from xscontainer.settings import EngineSettings, GuestSettings
from xscontainer.simulator.guests import OpenSSHGuest

QUICK = GuestSettings(connect_timeout=5.0, handshake_timeout=5.0, login_timeout=5.0)
ENGINE = EngineSettings(request_timeout=10.0)


@pytest.fixture(scope="session")
def key_pair() -> ssh.KeyPair:
    return ssh.new_key_pair(2048)


@pytest.fixture(scope="session")
def private_key(key_pair: ssh.KeyPair) -> paramiko.PKey:
    return ssh.load_private_key(key_pair.private)


@pytest.fixture
def socket_path(tmp_path: Any) -> str:
    return str(tmp_path / "engine.sock")


@pytest.fixture
def make_sshd(tmp_path: Any, key_pair: ssh.KeyPair) -> Iterator[Callable[..., Sshd]]:
    """Start an sshd: (options, host_keys="ed25519")."""
    need_program("sshd", "openssh-server")
    need_program("ssh-keygen", "openssh-client")
    need(not OpenSSHGuest.missing(), OpenSSHGuest.missing())
    started: List[Sshd] = []

    def make(options: str = "", host_keys: str = "ed25519", **more: Any) -> Sshd:
        directory = str(tmp_path / f"sshd{len(started)}")
        os.mkdir(directory)
        started.append(Sshd(directory, key_pair.public, options, host_keys, **more))
        return started[-1].start()

    yield make
    for sshd in started:
        sshd.stop()


@pytest.fixture
def connect(private_key: paramiko.PKey, socket_path: str) -> Iterator[Callable[..., ssh.SSHConnection]]:
    """Connect to an Sshd: (sshd, settings=QUICK, on_host_key=None, **fields of Target)."""
    opened: List[ssh.SSHConnection] = []

    def make(sshd: Sshd, settings: GuestSettings = QUICK, on_host_key: Any = None, engine: EngineSettings = ENGINE,
             **fields: Any) -> ssh.SSHConnection:
        target = ssh.Target(("127.0.0.1",), sshd.port, sshd.user, socket_path)._replace(**fields)
        opened.append(ssh.connect(target, private_key, settings, engine, on_host_key))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


@pytest.fixture
def plain(socket_path: str) -> Iterator[SocketConnection]:
    """A connection to socket_path without SSH."""
    connection = SocketConnection(socket_path)
    yield connection
    connection.close()
