"""A diagnosis ends within 15 s, even if the guest stalls at any byte, trickles, floods or hangs after the login."""

import contextlib
import itertools
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Callable, List

import paramiko
import pytest

from tests.engine.peers import Script, Server, http_answer
from tests.need import need_program
from tests.verbs.diagnose.causes import asleep, on_socket, over_tls
from tests.verbs.diagnose.conftest import PROMISED, Scene
from xscontainer.core.diagnosis import Diagnosis
from xscontainer.simulator.guests import Guest
from xscontainer.simulator.guests.embedded import EmbeddedSSHGuest

pytestmark = pytest.mark.real

# Bytes after which sshd falls silent. A whole session up to the list is about 4000.
STALLS = (1, 20, 41, 60, 500, 1100, 1300, 1600, 1900, 2200, 2600, 3200)
# A login has a deadline of 6 s, and so has all that comes before it; what is longer may not be.
CAUSES_OF_SILENCE = {"GUEST_SILENT", "LOGIN_ENDED", "ENGINE_TIMEOUT", "TRANSPORT_LOST", "OK"}


class Relay:
    """Passes on what sshd says: at most ``most`` bytes, ``pause`` seconds before each of those after ``free``."""

    def __init__(self, guest: Guest, most: int, pause: float = 0.0, free: int = 0) -> None:
        self._guest, self._most, self._pause, self._free = guest, most, pause, free

    def __call__(self, peer: socket.socket) -> None:
        with socket.create_connection((self._guest.address, self._guest.port)) as sshd:
            up = threading.Thread(target=self._up, args=(peer, sshd))
            up.start()
            try:
                self._down(peer, sshd)
            finally:
                up.join()

    def _down(self, peer: socket.socket, sshd: socket.socket) -> None:
        passed = 0
        while passed < self._most:
            data = sshd.recv(1 if self._pause and passed >= self._free else min(4096, self._most - passed))
            if not data:
                break
            if self._pause and passed >= self._free:
                time.sleep(self._pause)
            peer.sendall(data)
            passed += len(data)

    @staticmethod
    def _up(peer: socket.socket, sshd: socket.socket) -> None:
        try:
            while True:
                data = peer.recv(4096)
                if not data:
                    break
                sshd.sendall(data)
        finally:
            sshd.shutdown(socket.SHUT_RDWR)


def at_once(calls: List[Callable[[], Any]]) -> List[Any]:
    """The results, in their order."""
    results: List[Any] = [None] * len(calls)

    def run(number: int) -> None:
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


NUMBERS = itertools.count(1)


def through(scene: Scene, relay: Relay) -> Diagnosis:
    """A diagnosis of another VM like it, whose sshd is behind this."""
    # At an address of its own: of several VMs at one, nobody knows which it is.
    address = f"127.77.{next(NUMBERS)}.1"
    with Server(relay, at=(address, 0)) as server:
        other = scene.another(address, server.port)
        return other.diagnose()


def test_a_guest_that_falls_silent_at_any_moment(scene: Scene) -> None:
    found = at_once([lambda most=most: through(scene, Relay(scene.guest, most)) for most in STALLS])  # type: ignore[misc]
    assert {one.code for one in found} <= CAUSES_OF_SILENCE, [one.code for one in found]
    # It got further each time, and fell silent in each part of the way.
    reached = [len(one.steps) for one in found]
    assert reached == sorted(reached)
    assert {one.steps[-1].step for one in found} >= {"ssh", "login", "socket"}, [one.steps[-1].step for one in found]


def test_a_guest_that_trickles(scene: Scene) -> None:
    relays = [Relay(scene.guest, 1 << 20, pause, free)
              for pause, free in ((0.05, 0), (0.5, 0), (0.5, 41), (0.3, 1600), (0.05, 1600), (0.1, 2200))]
    found = at_once([lambda relay=relay: through(scene, relay) for relay in relays])  # type: ignore[misc]
    assert {one.code for one in found} <= CAUSES_OF_SILENCE, [one.code for one in found]


def _endless_banner(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"welcome " * 1000 + b"\r\n")


def _drip_before_banner(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"\r\n")
        time.sleep(0.5)


def _random(peer: socket.socket) -> None:
    peer.sendall(b"SSH-2.0-x\r\n" + bytes(range(256)) * 4000)
    asleep(peer)


@pytest.mark.parametrize("serve", [_endless_banner, _drip_before_banner, _random])
def test_a_tar_pit(scene: Scene, serve: Any) -> None:
    with Server(serve) as server:
        scene.address("127.0.0.1", server.port)
        assert scene.diagnose().code in ("GUEST_NOT_SSH", "GUEST_SILENT")


@pytest.mark.parametrize("fault", ["channel-silent", "no-forwarding", "no-exec"])
def test_channels_that_hang_or_are_refused(make_scene: Callable[..., Scene], fault: str) -> None:
    scene = make_scene(kind=EmbeddedSSHGuest)
    for kind in {fault, "no-forwarding"} if fault != "channel-silent" else {fault}:
        scene.guest.faults.set(kind)
    found = scene.diagnose()
    assert found.code in {"channel-silent": ("ENGINE_TIMEOUT",), "no-exec": ("SCRIPT_NOT_RUN",)}.get(fault, ("OK",))


def test_a_resolver_that_hangs(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = tmp_path / "getent"
    resolver.write_text(f"#!/bin/sh\nexec {need_program('sleep')} 60\n")
    resolver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    scene.tune("guest", connect_timeout=60.0)
    scene.put(ADDRESS="docker.example")
    assert scene.diagnose().code == "NAME_UNRESOLVED"


def _drip(peer: socket.socket, head: str = "") -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        peer.sendall(b"X: y\r\n")
        time.sleep(0.2)


def _drip_body(peer: socket.socket, head: str = "") -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[")
    while True:
        peer.sendall(b" ")
        time.sleep(0.2)


@pytest.mark.parametrize("answers", [{"/version": _drip}, {"/containers/json": _drip_body}], ids=["head", "body"])
def test_an_engine_that_trickles(make_scene: Callable[..., Scene], answers: Any) -> None:
    with contextlib.ExitStack() as stack:
        assert on_socket(make_scene, stack, Script(answers)).diagnose().code in ("ENGINE_TIMEOUT", "ENGINE_GARBAGE")


def test_an_engine_behind_a_program_hangs(make_scene: Callable[..., Scene]) -> None:
    """Each program that stands in would wait for it as long as it may."""
    need_program("socat", "socat")
    with contextlib.ExitStack() as stack:
        scene = on_socket(lambda: make_scene(options={"AllowStreamLocalForwarding": "no"}), stack, asleep)
        assert scene.diagnose().code == "ENGINE_TIMEOUT"


def test_many_addresses_of_which_only_the_last_answers(scene: Scene) -> None:
    """The guest falls silent during the key exchange."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(Relay(scene.guest, 60), at=("127.0.2.1", 0)))
        silent = [f"127.0.1.{number}" for number in range(1, 16)]
        for address in silent:
            full = stack.enter_context(socket.socket())
            full.bind((address, server.port))
            full.listen(0)
            for _ in range(4):  # what does not fit into the backlog is not answered at all
                caller = stack.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex((address, server.port))
        scene.address("127.0.2.1", server.port)
        scene.pool.set_networks(scene.ref, {f"{number}/ip": address
                                            for number, address in enumerate(silent + ["127.0.2.1"])})
        assert scene.diagnose().code == "GUEST_SILENT"


class _Welcoming(paramiko.ServerInterface):
    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED


def test_keys_that_are_never_exchanged(scene: Scene) -> None:
    """Nothing may be sent meanwhile, and so nothing can be closed."""
    over = threading.Event()

    def serve(peer: socket.socket) -> None:
        transport: Any = paramiko.Transport(peer)
        transport.add_server_key(paramiko.ECDSAKey.generate())
        try:
            transport.start_server(server=_Welcoming(), event=threading.Event())
            while not transport.accept(10.0).recv(1000):
                pass  # only to see whether it opens
            transport.packetizer.read_message = lambda: (over.wait(30.0), paramiko.Message())
            transport._send_kex_init()
            over.wait(30.0)
        finally:
            transport.close()

    with Server(serve) as server:
        try:
            scene.address("127.0.0.1", server.port)
            assert scene.diagnose().code in CAUSES_OF_SILENCE
        finally:
            over.set()


def test_an_engine_over_tls_that_trickles(scene: Scene) -> None:
    with contextlib.ExitStack() as stack:
        found = over_tls(scene, stack, _drip).diagnose()
        assert found.code in ("ENGINE_TIMEOUT", "ENGINE_GARBAGE"), found
    with contextlib.ExitStack() as stack:
        found = over_tls(scene, stack, Script({"/containers/json": http_answer(b"[]"), "/_ping": _drip})).diagnose()
        assert found.code in ("ENGINE_TIMEOUT", "ENGINE_GARBAGE"), found


def test_a_slow_but_honest_guest_is_well(scene: Scene) -> None:
    """Two milliseconds for each byte: a session takes some seconds, and that is no reason to call it broken."""
    found = through(scene, Relay(scene.guest, 1 << 20, 0.002, 0))
    assert found.code == "OK", found
    assert found.facts["ms"] < PROMISED * 1000
