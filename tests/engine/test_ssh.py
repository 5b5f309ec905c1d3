"""Connecting, host keys, login, and the end of a connection, on a real sshd."""

import base64
import contextlib
import os
import socket
import threading
import time
from typing import Any, Callable, List

import paramiko
import pytest

from tests.engine.conftest import ENGINE, QUICK
from tests.engine.peers import Script, Server, Sshd, http_answer
from tests.waiting import until
from xscontainer.access.opener import hang_up
from xscontainer.engine import api
from xscontainer.engine.ssh import connection as ssh
from xscontainer.engine.ssh import hostkeys
from xscontainer.errors import (
    ArgumentError,
    EngineLost,
    GuestSilent,
    GuestUnreachable,
    HostKeyChanged,
    HostKeyUnreadable,
    KeyNotAccepted,
    ScriptNotRun,
    ScriptSilent,
    TransportLost,
    XSContainerError,
)

pytestmark = pytest.mark.real

LIST = {"/containers/json": http_answer(b"[]")}
Connect = Callable[..., ssh.SSHConnection]
MakeSshd = Callable[..., Sshd]


def test_one_connection_and_one_login_serve_all_requests(make_sshd: MakeSshd, connect: Connect,
                                                         socket_path: str) -> None:
    sshd = make_sshd()
    with Server(Script(LIST), socket_path) as server:
        engine = api.Engine(connect(sshd), ENGINE)
        for _ in range(20):
            assert engine.containers() == []
        engine.close()
        assert server.connections == 1
    log = sshd.log()
    assert log.count("Accepted publickey") == 1
    assert log.count("Connection from") == 2  # the other connection tested if sshd was up
    assert "Failed" not in log


def test_the_socket_has_tcp_nodelay(make_sshd: MakeSshd, connect: Connect) -> None:
    sock = connect(make_sshd())._transport.sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_unpinned_host_key_is_reported_before_the_login(make_sshd: MakeSshd, connect: Connect) -> None:
    sshd = make_sshd()
    seen: List[Any] = []

    class Stop(Exception):
        pass

    def stop(blob: str, fingerprint: str) -> None:
        seen.append((blob, fingerprint))
        raise Stop

    with pytest.raises(Stop):
        connect(sshd, on_host_key=stop)
    assert seen[0][0] == sshd.host_key("ed25519").split()[1]
    assert seen[0][1].startswith("SHA256:")
    assert "Accepted" not in sshd.log()


@pytest.mark.parametrize("form", ["{blob}", "{kind} {blob}", "{kind} {blob} root@guest", "10.0.0.1 {kind} {blob}"])
def test_a_pinned_host_key_is_recognized(make_sshd: MakeSshd, connect: Connect, form: str) -> None:
    sshd = make_sshd()
    kind, blob = sshd.host_key("ed25519").split()[:2]
    asked: List[Any] = []
    connect(sshd, host_key=form.format(kind=kind, blob=blob), on_host_key=lambda *key: asked.append(key))
    assert not asked


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_a_guest_with_several_host_keys_shows_the_pinned_one(make_sshd: MakeSshd, connect: Connect, kind: str) -> None:
    sshd = make_sshd(host_keys="rsa ecdsa ed25519")
    pin = sshd.host_key(kind).split()[1]
    assert connect(sshd, host_key=pin).host_key.base64 == pin


def test_a_changed_host_key_names_both_keys_and_sends_no_login(make_sshd: MakeSshd, connect: Connect) -> None:
    sshd = make_sshd()
    pin = sshd.host_key("ed25519").split()[1]
    sshd.stop()
    sshd.new_host_keys("ed25519")
    sshd.start()
    shown = sshd.host_key("ed25519").split()[1]
    with pytest.raises(HostKeyChanged) as caught:
        connect(sshd, host_key=pin)
    for blob in (pin, shown):
        assert hostkeys.parse_pin(blob).fingerprint in str(caught.value)
    assert "Accepted" not in sshd.log()


def test_a_host_key_of_another_kind_is_a_changed_key(make_sshd: MakeSshd, connect: Connect) -> None:
    sshd = make_sshd()
    pin = sshd.host_key("ed25519").split()[1]
    sshd.stop()
    sshd.new_host_keys("ecdsa")
    sshd.start()
    with pytest.raises(HostKeyChanged):
        connect(sshd, host_key=pin)


@pytest.mark.parametrize("pin", ["x", "AAAA", "no key at all", "AAAA" * 5000, "ssh-rsa", "\udc80\x00é",
                                 base64.b64encode(b"\x00\x00\x00\x07ssh-foo\x00").decode()])
def test_an_unreadable_pin_is_reported_without_a_connection(private_key: paramiko.PKey, pin: str) -> None:
    reached: List[None] = []
    with Server(lambda peer: reached.append(None)) as server:
        target = ssh.Target(("127.0.0.1",), server.port, "core", "/run/docker.sock", host_key=pin)
        with pytest.raises(HostKeyUnreadable):
            ssh.connect(target, private_key, QUICK, ENGINE)


def test_another_key_is_not_accepted(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    sshd = make_sshd()
    other = ssh.load_private_key(ssh.new_key_pair(2048).private)
    with pytest.raises(KeyNotAccepted):
        ssh.connect(ssh.Target(("127.0.0.1",), sshd.port, sshd.user, socket_path), other, QUICK, ENGINE)
    assert sshd.log().count("Failed publickey") == 1


def test_another_user_is_not_accepted(make_sshd: MakeSshd, connect: Connect) -> None:
    with pytest.raises(KeyNotAccepted) as caught:
        connect(make_sshd(), user="nobody-of-that-name")
    assert "nobody-of-that-name" in str(caught.value)


def test_a_guest_that_accepts_no_rsa_keys_is_reported(make_sshd: MakeSshd, connect: Connect) -> None:
    with pytest.raises(KeyNotAccepted):
        connect(make_sshd("PubkeyAcceptedAlgorithms ssh-ed25519"))


def test_a_guest_that_requires_a_second_factor_is_reported(make_sshd: MakeSshd, connect: Connect) -> None:
    with pytest.raises(KeyNotAccepted):
        connect(make_sshd("AuthenticationMethods publickey,publickey"))


@pytest.mark.parametrize("user", ["", "a b", "\udc80", "x" * 200, "a\n", "ü"], ids=repr)
def test_an_impossible_user_name_is_refused(private_key: paramiko.PKey, user: str) -> None:
    with pytest.raises(ArgumentError):
        ssh.connect(ssh.Target(("127.0.0.1",), 1, user, "/run/docker.sock"), private_key, QUICK, ENGINE)


@pytest.mark.parametrize("path", ["docker.sock", "/a b", "/a;b", "/a$(b)", "/a'b", "/a\nb", "/" + "a" * 120, "/é"])
def test_a_path_that_could_be_a_command_is_refused(private_key: paramiko.PKey, path: str) -> None:
    with pytest.raises(ArgumentError):
        ssh.connect(ssh.Target(("127.0.0.1",), 1, "core", path), private_key, QUICK, ENGINE)


# --- servers that are no sshd


def _banner(peer: socket.socket) -> None:
    peer.sendall(b"SSH-2.0-OpenSSH_9.0\r\n")


def _silent(peer: socket.socket) -> None:
    peer.recv(65536)
    while peer.recv(65536):
        pass


def _endless_greeting(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"x" * 65536)


def _many_lines(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"hello\r\n" * 1000)


def _http(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def _slow_greeting(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"S")
        time.sleep(0.05)


def _then_silent(peer: socket.socket) -> None:
    _banner(peer)
    _silent(peer)


def _then_garbage(peer: socket.socket) -> None:
    _banner(peer)
    peer.sendall(os.urandom(100000))
    _silent(peer)


def _then_huge_packet(peer: socket.socket) -> None:
    _banner(peer)
    peer.sendall(b"\x7f\xff\xff\xf4")
    while True:
        peer.sendall(b"\0" * 65536)


def _old(peer: socket.socket) -> None:
    peer.sendall(b"SSH-1.5-old\r\n")
    _silent(peer)


@pytest.mark.parametrize("peer", [_banner, _silent, _endless_greeting, _many_lines, _http, _slow_greeting, _then_silent,
                                  _then_garbage, _then_huge_packet, _old, lambda peer: None],
                         ids=lambda peer: peer.__name__)
def test_a_server_that_is_no_sshd_is_reported_in_time(private_key: paramiko.PKey, peer: Any) -> None:
    settings = QUICK._replace(handshake_timeout=0.5)
    with Server(peer) as server:
        started = time.monotonic()
        with pytest.raises(GuestSilent):
            ssh.connect(ssh.Target(("127.0.0.1",), server.port, "core", "/run/docker.sock"), private_key, settings,
                        ENGINE)
        assert time.monotonic() - started < 3.0


def test_a_login_without_an_answer_has_a_deadline(make_sshd: MakeSshd, connect: Connect) -> None:
    sshd = make_sshd()
    with pytest.raises(GuestSilent):
        connect(sshd, QUICK._replace(login_timeout=0.5), on_host_key=lambda *key: sshd.freeze())


def test_a_closed_port_is_refused(private_key: paramiko.PKey) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        target = ssh.Target(("127.0.0.1", "::1"), taken.getsockname()[1], "core", "/run/docker.sock")
        with pytest.raises(GuestUnreachable) as caught:
            ssh.connect(target, private_key, QUICK, ENGINE)
    assert "127.0.0.1" in str(caught.value) and "::1" in str(caught.value)


def test_a_target_without_addresses_is_unreachable(private_key: paramiko.PKey) -> None:
    with pytest.raises(GuestUnreachable):
        ssh.connect(ssh.Target((), 22, "core", "/run/docker.sock"), private_key, QUICK, ENGINE)


@pytest.mark.parametrize("addresses", [("192.0.2.1", "127.0.0.1"), ("not an address", "127.0.0.1"),
                                       ("127.99.99.99", "127.0.0.1"), ("127.0.0.1", "192.0.2.1")])
def test_an_address_that_does_not_answer_costs_little(make_sshd: MakeSshd, connect: Connect, addresses: Any) -> None:
    sshd = make_sshd()
    started = time.monotonic()
    connection = connect(sshd, addresses=addresses)
    assert connection.address == "127.0.0.1"
    assert time.monotonic() - started < 2.0
    assert sshd.log().count("Accepted publickey") == 1


# --- several addresses, of which only one is the VM's


def _another_sshd(peer: socket.socket) -> None:
    """Serve an SSH server with another host key that accepts no login."""
    transport = paramiko.Transport(peer)
    transport.add_server_key(paramiko.ECDSAKey.generate())
    try:
        transport.start_server(server=paramiko.ServerInterface(), event=threading.Event())
        transport.join(30.0)
    finally:
        transport.close()


def _ftp(peer: socket.socket) -> None:
    peer.sendall(b"220 ftp.example\r\n")
    _silent(peer)


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "unpinned"])
@pytest.mark.parametrize("other_machine", [_ftp, _another_sshd, _silent, lambda peer: None],
                         ids=["ftp", "sshd", "silent", "hangs up"])
def test_another_machine_at_the_first_address_is_passed_over(make_sshd: MakeSshd, connect: Connect, other_machine: Any,
                                                             pinned: bool) -> None:
    sshd = make_sshd()
    own = sshd.host_key("ed25519").split()[1]
    seen: List[str] = []
    with Server(other_machine, at=("127.0.0.2", sshd.port)):
        connection = connect(sshd, QUICK._replace(handshake_timeout=0.5), lambda key, _: seen.append(key),
                             addresses=("127.0.0.2", "127.0.0.1"), host_key=own if pinned else None)
        assert connection.address == "127.0.0.1"
    assert seen[-1:] == ([] if pinned else [own])  # the last key is the VM's


def test_other_machines_at_all_addresses_give_one_error(private_key: paramiko.PKey) -> None:
    """The error that says most about the VM is raised and names all addresses. No address is tried twice."""
    pin = paramiko.ECDSAKey.generate().get_base64()
    with Server(_ftp) as first, Server(_another_sshd, at=("127.0.0.2", first.port)) as second, \
            Server(_silent, at=("127.0.0.3", first.port)) as third:
        target = ssh.Target(("127.0.0.1", "127.0.0.2", "127.0.0.3"), first.port, "core", "", pin)
        with pytest.raises(HostKeyChanged) as caught:
            ssh.connect(target, private_key, QUICK._replace(handshake_timeout=0.5), ENGINE)
        assert all(address in caught.value.message for address in target.addresses), caught.value.message
        assert caught.value.shown and caught.value.pinned
        with pytest.raises(KeyNotAccepted, match="127.0.0.2"):
            ssh.connect(target._replace(host_key=None), private_key, QUICK._replace(handshake_timeout=0.5), ENGINE)
        assert [server.connections for server in (first, second, third)] == [2, 2, 2]


def test_a_machine_with_the_pinned_key_is_the_vm(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    """No other address is tried after that."""
    sshd = make_sshd()
    with Server(_another_sshd, at=("127.0.0.2", sshd.port)) as other, pytest.raises(KeyNotAccepted):
        connect(sshd, addresses=("127.0.0.1", "127.0.0.2"), user="nobody-there",
                host_key=sshd.host_key("ed25519").split()[1])
    assert other.connections == 0


def test_several_silent_machines_share_one_deadline(private_key: paramiko.PKey) -> None:
    settings = QUICK._replace(connect_timeout=1.0, handshake_timeout=1.0, login_timeout=1.0)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(Server(_silent)).port
        others = [f"127.0.0.{number}" for number in range(2, 17)]
        for address in others:
            stack.enter_context(Server(_silent, at=(address, port)))
        began = time.monotonic()
        with pytest.raises(GuestSilent):
            ssh.connect(ssh.Target(("127.0.0.1", *others), port, "core", ""), private_key, settings, ENGINE)
        assert time.monotonic() - began < 5.5  # to connect, to greet, to exchange keys, to log in


# --- commands


def test_run_returns_status_and_output_within_its_limits(make_sshd: MakeSshd, connect: Connect) -> None:
    connection = connect(make_sshd())
    answer = connection.run('echo "$1"; exit 3', "a b", deadline=time.monotonic() + 30.0)
    assert (answer.status, answer.output) == (3, b"a b")
    with pytest.raises(ScriptNotRun, match="more than 10 bytes"):
        connection.run("echo 12345678901234567890123456789012345678901234567890", deadline=time.monotonic() + 30.0,
                       most=10)
    with pytest.raises(ScriptSilent):
        connection.run("sleep 60", deadline=time.monotonic() + 0.5)
    assert not connection.closed


# --- the end


def test_close_is_prompt_and_wakes_readers(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    sshd = make_sshd()
    caught: List[BaseException] = []
    with Server(_silent, socket_path):
        connection = connect(sshd)
        stream = connection.open_stream(5)

        def read() -> None:
            try:
                stream.receive(100, None)
            except XSContainerError as error:
                caught.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        started = time.monotonic()
        connection.close()
        assert time.monotonic() - started < 3.0
        reader.join(5)
        connection.close()
        assert not reader.is_alive() and connection.closed
    assert isinstance(caught[0], TransportLost)
    with pytest.raises(TransportLost):
        connection.open_stream(1)


def test_hang_up_does_not_wait_for_a_stalled_guest(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    """During a key exchange nothing else may be sent, not even the end of a channel."""
    begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Server(Script({"/containers/json": http_answer(b"[]"), "/events": begun}), socket_path):
        connection = connect(make_sshd())
        engine = api.Engine(connection, ENGINE)
        events = engine.events()
        assert engine.containers() == []
        connection._transport.clear_to_send.clear()  # what paramiko does when the guest begins
        started = time.monotonic()
        hang_up(engine)
        assert time.monotonic() - started < 5.0
        assert connection.closed and events.get(5.0) is None


def test_a_connection_is_closed_when_sshd_ends(make_sshd: MakeSshd, connect: Connect) -> None:
    sshd = make_sshd()
    connection = connect(sshd)
    sshd.stop()
    until(lambda: connection.closed, seconds=5)
    connection.close()
    assert connection.closed


def test_a_connection_that_ends_right_after_the_login_is_lost(make_sshd: MakeSshd, connect: Connect) -> None:
    sshd, shells = make_sshd(), []

    def end_it(shell: Any, address: str, host_key: Any) -> None:
        shells.append(shell)
        shell._transport.close()

    with pytest.raises(TransportLost) as raised:
        connect(sshd, judge=end_it)
    assert f"127.0.0.1 port {sshd.port}" in str(raised.value)
    with pytest.raises(TransportLost):
        assert shells[0].own_address


@pytest.mark.parametrize("busy", [False, True])
def test_a_dead_peer_is_noticed(make_sshd: MakeSshd, connect: Connect, socket_path: str, busy: bool) -> None:
    sshd = make_sshd()
    with Server(_silent, socket_path):
        connection = connect(sshd, QUICK._replace(keepalive=0.2, dead_after=1.0))
        stream = connection.open_stream(5)
        # The guest is alive: its answers to keepalives keep the connection open.
        assert stream.receive(100, 2.0) is None and not connection.closed
        sshd.freeze()
        started = time.monotonic()
        if busy:  # a writer whose data the peer no longer reads
            with pytest.raises((TransportLost, EngineLost)):
                while True:
                    stream.sendall(b"x" * 1000000)
        else:
            with pytest.raises(TransportLost):
                stream.receive(100, 10.0)
        until(lambda: connection.closed, seconds=5)
        assert time.monotonic() - started < 3.0


def test_a_liveness_probe_is_sent_at_once(make_sshd: MakeSshd, connect: Connect) -> None:
    """Without a probe the connection would sleep for 15 s."""
    sshd = make_sshd()
    connection = connect(sshd)
    for _ in range(3):
        connection.probe_liveness(0.5)
        time.sleep(0.3)
    time.sleep(0.8)
    assert not connection.closed
    sshd.freeze()
    connection.probe_liveness(0.5)
    assert until(lambda: connection.closed, seconds=3) < 1.5
    assert "reports another address" in connection._transport.packetizer.ended


def test_an_idle_connection_sleeps(make_sshd: MakeSshd, connect: Connect) -> None:
    connection = connect(make_sshd(), QUICK._replace(keepalive=1.0))
    waits: List[float] = []
    sock = connection._transport.sock
    check = connection._transport.packetizer._check_keepalive

    def count() -> None:
        waits.append(time.monotonic())
        check()

    connection._transport.packetizer._check_keepalive = count
    deadline = time.monotonic() + 3.5
    while time.monotonic() < deadline:
        time.sleep(deadline - time.monotonic())
    assert sock.gettimeout() == 1.0
    assert 2 <= len(waits) <= 4


def test_a_key_exchange_does_not_disturb_requests(make_sshd: MakeSshd, connect: Connect, socket_path: str) -> None:
    body = b"[" + b'"123456",' * 40000 + b"1]"
    sshd = make_sshd("RekeyLimit 300K")
    with Server(Script({"/containers/json": http_answer(body)}), socket_path):
        engine = api.Engine(connect(sshd), ENGINE)
        for _ in range(3):  # a dozen times each
            assert engine.containers() == []
        engine.close()


def test_a_guest_that_sends_data_on_an_idle_channel_loses_its_connection(make_sshd: MakeSshd, connect: Connect,
                                                                         socket_path: str) -> None:
    """The data would be kept in memory, for each channel of each guest."""
    talk = threading.Event()

    def answer(peer: socket.socket, head: str) -> None:
        peer.sendall(http_answer(b"[]"))
        talk.wait(10)
        peer.sendall(b"x" * 20000)

    with Server(Script({"/containers/json": answer}), socket_path):
        connection = connect(make_sshd())
        engine = api.Engine(connection, ENGINE)
        assert engine.containers() == []
        assert not connection.closed
        talk.set()
        until(lambda: connection.closed)
        engine.close()
