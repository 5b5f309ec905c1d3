"""The daemon's end of the plugin path."""

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from typing import Any, List

import pytest

from tests.need import need
from tests.plugin.conftest import Dom0
from tests.plugin.process import wait_until
from xscontainer.core import memory_budget as memory
from xscontainer.core.verb import QUICK
from xscontainer.errors import SocketUnusable
from xscontainer.plugin import forward
from xscontainer.plugin.admission import Admission
from xscontainer.service.server import Server
from xscontainer.settings import LONGEST_SOCKET

NOBODY = 65534


def ask(path: str, argument: bytes = b"x") -> bytes:
    return forward.ask_daemon(path, argument, 10.0)


def connected(path: str) -> socket.socket:
    """A caller whom a worker waits for."""
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(10)
    channel.connect(path)
    assert channel.recv(100) == forward.READY
    return channel


def test_socket_and_directory_are_roots_alone(dom0: Dom0) -> None:
    dom0.serve(lambda argument: b"")
    assert stat.S_IMODE(os.stat(dom0.socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(dom0.socket)).st_mode) == 0o700


def test_a_directory_that_others_may_write_to_is_refused(dom0: Dom0) -> None:
    os.mkdir(os.path.dirname(dom0.socket))
    os.chmod(os.path.dirname(dom0.socket), 0o777)
    with pytest.raises(SocketUnusable, match="may write"):
        dom0.serve(lambda argument: b"")


def test_the_socket_of_a_dead_daemon_is_replaced(dom0: Dom0) -> None:
    os.mkdir(os.path.dirname(dom0.socket), 0o700)
    for name in (dom0.socket, dom0.socket + "~"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(name)
    open(dom0.socket + ".lock", "w").close()
    dom0.serve(lambda argument: argument)
    assert ask(dom0.socket, b"alive") == b"alive"


def test_a_second_daemon_is_refused_and_the_first_keeps_serving(dom0: Dom0) -> None:
    dom0.serve(lambda argument: b"first")
    with pytest.raises(SocketUnusable, match="Another daemon"):
        dom0.serve(lambda argument: b"second")
    assert ask(dom0.socket) == b"first"


def test_a_path_beyond_the_kernels_limit_is_refused(dom0: Dom0) -> None:
    path = os.path.join(dom0.directory, "x" * LONGEST_SOCKET)
    with pytest.raises(SocketUnusable, match="longer"):
        Server(path, lambda argument: b"", 1).start()


def test_the_longest_path_serves(dom0: Dom0) -> None:
    directory = os.path.join(dom0.directory, "run")
    path = os.path.join(directory, "x" * (LONGEST_SOCKET - len(directory) - 1))
    server = Server(path, lambda argument: argument, 1)
    server.start()
    try:
        assert ask(path, b"fine") == b"fine"
    finally:
        server.stop()


def test_the_server_stops_and_starts_again(dom0: Dom0) -> None:
    server = dom0.serve(lambda argument: argument)
    for _ in range(3):
        assert ask(dom0.socket, b"here") == b"here"
        assert server.stop()
        assert not os.path.exists(dom0.socket)
        with pytest.raises(forward.NotTaken):
            ask(dom0.socket)
        server.start()


def test_stop_ends_silent_callers(dom0: Dom0) -> None:
    server = dom0.serve(lambda argument: argument)
    silent = [connected(dom0.socket) for _ in range(5)]
    try:
        started = time.monotonic()
        assert server.stop()
        assert time.monotonic() - started < 2
    finally:
        for channel in silent:
            channel.close()


def test_stop_lets_a_call_at_work_finish_and_reply(dom0: Dom0) -> None:
    entered, stopping = threading.Event(), threading.Event()
    replies: List[bytes] = []

    def handler(argument: bytes) -> bytes:
        entered.set()
        stopping.wait(10)
        return b"done"

    server = dom0.serve(handler)
    caller = threading.Thread(target=lambda: replies.append(ask(dom0.socket)))
    caller.start()
    assert entered.wait(10)
    ender = threading.Thread(target=server.stop)
    ender.start()
    wait_until(lambda: not os.path.exists(dom0.socket) or server._stop.is_set(), "stop has begun")
    stopping.set()
    ender.join(10)
    caller.join(10)
    assert replies == [b"done"]


def test_stop_does_not_wait_for_ever(dom0: Dom0) -> None:
    entered, release = threading.Event(), threading.Event()

    def handler(argument: bytes) -> bytes:
        entered.set()
        release.wait(30)
        return b""

    server = dom0.serve(handler)
    with connected(dom0.socket) as channel:
        channel.sendall(forward.MAGIC + b"1\nx")
        channel.shutdown(socket.SHUT_WR)
        assert entered.wait(10)
        started = time.monotonic()
        assert not server.stop(grace=0.2)
        assert 0.2 <= time.monotonic() - started < 2
    release.set()


def test_no_more_workers_than_allowed(dom0: Dom0) -> None:
    lock = threading.Lock()
    inside, most = 0, 0
    full = threading.Barrier(3)

    def handler(argument: bytes) -> bytes:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        full.wait(10)
        with lock:
            inside -= 1
        return b"done"

    dom0.serve(handler, workers=3)
    replies: List[bytes] = []
    callers = [threading.Thread(target=lambda: replies.append(ask(dom0.socket))) for _ in range(9)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert replies == [b"done"] * 9
    assert most == 3


def test_callers_above_the_number_of_threads_get_busy(dom0: Dom0) -> None:
    release = threading.Event()

    def handler(argument: bytes) -> bytes:
        release.wait(60)
        return b"done"

    dom0.serve(handler, workers=2)
    working = [connected(dom0.socket) for _ in range(2)]
    try:
        replies: List[str] = []

        def call() -> None:
            try:
                replies.append(str(ask(dom0.socket)))
            except forward.Busy:
                replies.append("busy")

        callers = [threading.Thread(target=call) for _ in range(200)]  # more than the socket's queue holds
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
        assert replies == ["busy"] * 200
        release.set()
        for channel in working:
            channel.sendall(forward.MAGIC + b"1\nx")
            channel.shutdown(socket.SHUT_WR)
            assert channel.recv(100) == forward.MAGIC + b"4\ndone"
    finally:
        release.set()
        for channel in working:
            channel.close()
    assert ask(dom0.socket) == b"done"


@pytest.mark.parametrize("said", [
    b"",
    b"x",
    forward.MAGIC,
    forward.MAGIC + b"5\nfour",
    forward.MAGIC + b"5\nlonger",
    forward.MAGIC + b"-4\nfour",
    forward.MAGIC + b"4 \nfour",
    forward.MAGIC + b"04\nfour",
    b"GET / HTTP/1.1\r\n\r\n",
    forward.MAGIC + b"%d\n" % (forward.LONGEST_CALL + 1) + b"x" * (forward.LONGEST_CALL + 1),
    b"\n" * 300000,
], ids=["nothing", "byte", "header", "short", "long", "negative", "space", "zero", "http", "beyond-limit", "flood"])
def test_an_incomplete_call_is_not_served(dom0: Dom0, said: bytes) -> None:
    calls: List[bytes] = []

    def handler(argument: bytes) -> bytes:
        calls.append(argument)
        return b"served"

    dom0.serve(handler, workers=1)
    with connected(dom0.socket) as channel:
        try:
            channel.sendall(said)
            channel.shutdown(socket.SHUT_WR)
            assert channel.recv(100) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass  # it had enough before all was said
    assert ask(dom0.socket, b"next") == b"served"
    assert calls == [b"next"]


def test_the_longest_call_is_served(dom0: Dom0) -> None:
    dom0.serve(lambda argument: b"%d" % len(argument))
    assert ask(dom0.socket, b"x" * forward.LONGEST_CALL) == b"%d" % forward.LONGEST_CALL


def test_a_call_that_raises_costs_its_caller_only(dom0: Dom0) -> None:
    def handler(argument: bytes) -> bytes:
        if argument == b"bad":
            raise KeyError("no")
        return b"good"

    dom0.serve(handler, workers=1)
    with pytest.raises(forward.Lost):
        ask(dom0.socket, b"bad")
    assert ask(dom0.socket, b"fine") == b"good"


def test_a_caller_that_went_away_costs_nothing(dom0: Dom0) -> None:
    dom0.serve(lambda argument: b"x" * (1 << 22), workers=1)
    for _ in range(3):
        with connected(dom0.socket) as channel:
            channel.sendall(forward.MAGIC + b"1\nx")
            channel.shutdown(socket.SHUT_WR)
    assert len(ask(dom0.socket)) == 1 << 22


def test_callers_that_do_not_read_their_reply_hold_no_worker(dom0: Dom0) -> None:
    entrance = Admission(2)

    def handler(argument: bytes) -> bytes:
        with entrance.admitted("get_inspect", "vm", QUICK):
            return b"x" * (1 << 22)

    dom0.serve(handler, workers=40)
    slow = []
    try:
        for _ in range(20):
            channel = connected(dom0.socket)
            slow.append(channel)
            channel.sendall(forward.MAGIC + b"1\nx")
            channel.shutdown(socket.SHUT_WR)
            assert channel.recv(10)  # its reply has begun
        assert not entrance._working
        assert len(ask(dom0.socket)) == 1 << 22
    finally:
        for channel in slow:
            channel.close()


def test_silent_callers_hold_no_worker(dom0: Dom0) -> None:
    entrance = Admission(2)

    def handler(argument: bytes) -> bytes:
        with entrance.admitted("get_top", "vm", QUICK):
            return argument

    server = dom0.serve(handler, workers=40)
    silent = [connected(dom0.socket) for _ in range(20)]
    try:
        assert ask(dom0.socket, b"served") == b"served"
    finally:
        for channel in silent:
            channel.close()
    wait_until(lambda: not server._calls, "all have hung up")


def test_accepting_goes_on_after_an_error(dom0: Dom0) -> None:
    class Troubled(Server):
        troubles = 2

        def _accept(self) -> None:
            if self.troubles:
                self.troubles -= 1
                raise OSError(24, "Too many open files")
            super()._accept()

    server = Troubled(dom0.socket, lambda argument: argument, 2)
    server.start()
    try:
        assert ask(dom0.socket, b"still") == b"still"
    finally:
        server.stop()


def test_another_users_process_is_refused(dom0: Dom0) -> None:
    """Even if the modes were loosened by mistake: the kernel tells who calls."""
    need(os.geteuid() == 0, "root, to run a process as another user")
    calls: List[bytes] = []

    def handler(argument: bytes) -> bytes:
        calls.append(argument)
        return b""

    dom0.serve(handler)
    program = ("import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(10); os.chdir(sys.argv[1]); "
               f"os.setgid({NOBODY}); os.setuid({NOBODY}); s.connect('daemon.sock'); print(s.recv(100))")
    directory = os.path.dirname(dom0.socket)
    command = [sys.executable, "-IS", "-c", program, directory]
    strict = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    assert b"PermissionError" in strict.stderr
    os.chmod(dom0.socket, 0o666)
    os.chmod(directory, 0o755)
    loose = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    assert loose.stdout == b"b''\n", loose.stderr
    assert calls == []


def test_many_calls_leave_nothing_behind(dom0: Dom0) -> None:
    server: Any = dom0.serve(lambda argument: argument)
    for number in range(200):
        assert ask(dom0.socket, b"%d" % number) == b"%d" % number
    wait_until(lambda: not server._calls, "all callers hung up")
    assert len(server._threads) < 20


@pytest.mark.parametrize("reads", [True, False])
def test_the_memory_of_a_reply_counts_until_it_is_sent_or_the_caller_has_gone(dom0: Dom0, reads: bool) -> None:
    reply = b"x" * (8 << 20)

    def handler(argument: bytes) -> bytes:
        memory.keep("a guest", len(reply))
        return reply

    dom0.serve(handler)
    with connected(dom0.socket) as caller:
        caller.sendall(forward.MAGIC + b"1\nx")
        caller.shutdown(socket.SHUT_WR)
        wait_until(lambda: memory.BUDGET.total, "the claim")
        assert caller.recv(1) == forward.MAGIC[:1]
        assert memory.BUDGET.total == len(reply)  # a caller that does not read does not shorten it
        while reads and caller.recv(1 << 20):
            pass
    wait_until(lambda: memory.BUDGET.total == 0, "its release")
