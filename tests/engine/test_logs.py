"""Reading and following the logs of containers: against scripted engines, real dockerd and real podman."""

import json
import re
import socket
import struct
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Type
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine import real
from tests.engine.conftest import ENGINE
from tests.engine.peers import VERSION_BODY, Script, Server, Sshd, engine_at, http_answer
from tests.engine.real import running
from tests.engine.test_podman import VERSION as PODMAN_VERSION
from tests.need import need
from tests.waiting import until
from xscontainer.core import memory_budget
from xscontainer.core.log_follow import Position
from xscontainer.core.log_lines import MOST_KEPT_BYTES, MOST_LINES
from xscontainer.engine import api
from xscontainer.engine.connection import EngineStream
from xscontainer.engine.log_follower import FOLLOWER_BYTES, FollowerSlots, LogFollower, follow_logs
from xscontainer.engine.log_stream import LogRefused, LogStream
from xscontainer.engine.logs import LogOptions, LogRead, read_logs
from xscontainer.engine.ssh import connection as ssh
from xscontainer.errors import (
    ArgumentError,
    Busy,
    ContainerNotFound,
    EngineGarbage,
    EngineLost,
    EngineTooMuch,
    LogsUnreadable,
    XSContainerError,
)
from xscontainer.simulator.engines.podman import PodmanEngine
from xscontainer.simulator.engines.real import RealEngine

NAME = "web_1"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def stamp(second: int) -> str:
    return f"2026-12-01T00:{second // 60:02d}:{second % 60:02d}.5Z"


def frame(text: str, second: int = 0, stream: int = 1) -> bytes:
    content = f"{stamp(second)} {text}\n".encode()
    return struct.pack(">BxxxL", stream, len(content)) + content


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def texts(found: LogRead) -> List[str]:
    return [line.text for line in found.lines]


@contextmanager
def speaking(socket_path: str, answers: Dict[str, Any], version: bytes = VERSION_BODY) -> "Iterator[Spoken]":
    script = Script({"/version": http_answer(version), **answers})
    with Server(script, socket_path), engine_at(socket_path, ENGINE) as engine:
        yield Spoken(engine, script)


class Spoken:
    def __init__(self, engine: api.Engine, script: Script) -> None:
        self.engine = engine
        self._script = script

    @property
    def queries(self) -> List[Dict[str, str]]:
        """The parameters of each request for a log."""
        return [{name: values[0] for name, values in parse_qs(asked.partition("?")[2]).items()}
                for asked in self._script.asked if "/logs" in asked]


Answering = Callable[[socket.socket, Dict[str, str]], None]


def by_query(answer: Answering) -> "Callable[[socket.socket, str], None]":
    def serve(peer: socket.socket, head: str) -> None:
        query = parse_qs(head.split()[1].partition("?")[2])
        answer(peer, {name: values[0] for name, values in query.items()})
    return serve


# --- reading


def test_lines_are_read_with_stream_and_stamp(socket_path: str) -> None:
    body = frame("out", 1) + frame("err", 2, stream=2)
    with speaking(socket_path, {"/logs": http_answer(body)}) as spoken:
        found = read_logs(spoken.engine, NAME, LogOptions(tail=50, since=1796084682240607979, until=1 << 62))
        assert [line[:3] for line in found.lines] == [("stdout", stamp(1), "out"), ("stderr", stamp(2), "err")]
        assert not found.truncated
        assert spoken.queries == [{"stdout": "1", "stderr": "1", "timestamps": "1", "tail": "50", "follow": "0",
                                   "since": "1796084682.240607979", "until": "4611686018.427387904"}]
        read_logs(spoken.engine, NAME, LogOptions(stdout=False))
        assert spoken.queries[1]["stdout"] == "0" and "since" not in spoken.queries[1]


def test_a_log_is_read_over_the_stream_of_the_request_before(socket_path: str) -> None:
    with speaking(socket_path, {"/logs": CHUNKED + chunk(frame("a")) + LAST_CHUNK}) as spoken:
        for _ in range(3):
            assert texts(read_logs(spoken.engine, NAME)) == ["a"]
        assert spoken.engine.connection.opened == 1


def test_the_newest_lines_are_kept_and_the_missing_ones_are_reported(socket_path: str) -> None:
    body = b"".join(frame(f"{index:04d}" + "x" * 200, index) for index in range(2000))
    with speaking(socket_path, {"/logs": http_answer(body)}) as spoken:
        found = read_logs(spoken.engine, NAME, LogOptions(tail=2000))
        assert found.truncated
        assert [text[:4] for text in texts(found)] == [f"{index:04d}" for index in range(2000 - len(found.lines), 2000)]
        assert MOST_KEPT_BYTES - 300 < sum(len(line.text) + len(line.stamp) + 2 for line in found.lines)
        assert sum(len(line.text) + len(line.stamp) + 2 for line in found.lines) <= MOST_KEPT_BYTES


def test_lines_that_are_too_long_to_read_are_asked_for_again_in_a_smaller_number(socket_path: str) -> None:
    def answer(peer: socket.socket, query: Dict[str, str]) -> None:
        peer.sendall(CHUNKED)
        for index in range(int(query["tail"])):
            peer.sendall(chunk(frame(f"{int(query['tail']) - index:04d}" + "x" * 30000)))
        peer.sendall(LAST_CHUNK)

    with speaking(socket_path, {"/logs": by_query(answer)}) as spoken:
        found = read_logs(spoken.engine, NAME, LogOptions(tail=1000))
        assert found.truncated and texts(found)[-1].startswith("0001") and 4 <= len(found.lines) <= 9
        assert [query["tail"] for query in spoken.queries] == ["1000", spoken.queries[1]["tail"]]


@pytest.mark.parametrize("body", [
    b"\x01\0\0\0\xff\xff\xff\xff" + b"x" * (9 << 20), frame("x" * 30000) * 300, struct.pack(">BxxxL", 1, 0) * 40000,
    b"2026\n" * 40000], ids=["a frame without end", "long lines", "empty frames", "short lines"])
def test_a_log_of_any_length_is_read_within_bounds(socket_path: str, body: bytes) -> None:
    with speaking(socket_path, {"/logs": http_answer(body)}) as spoken:
        with pytest.raises(EngineTooMuch) as raised:
            read_logs(spoken.engine, NAME, LogOptions(tail=5000))
        assert "fewer lines" in raised.value.hint
        assert len(spoken.queries) == 2


@pytest.mark.parametrize("answer, error", [
    (http_answer(frame("a") + b"HTTP/1.1"), EngineGarbage), (CHUNKED + chunk(frame("a")), EngineLost),
    (http_answer(b'{"message":"no such container"}', "404 Not Found"), ContainerNotFound),
])
def test_a_log_that_is_none_is_an_error(socket_path: str, answer: bytes, error: Type[XSContainerError]) -> None:
    def serve(peer: socket.socket, head: str) -> None:
        peer.sendall(answer)
        if answer.startswith(CHUNKED):
            peer.shutdown(socket.SHUT_RDWR)

    with speaking(socket_path, {"/logs": serve}) as spoken, pytest.raises(error):
        read_logs(spoken.engine, NAME)


@pytest.mark.parametrize("options", [LogOptions(tail=-1), LogOptions(tail=MOST_LINES + 1),
                                     LogOptions(stdout=False, stderr=False), LogOptions(since=-1),
                                     LogOptions(until=1 << 63)])
def test_options_out_of_bounds_are_refused_before_anything_is_asked(socket_path: str, options: LogOptions) -> None:
    with speaking(socket_path, {}) as spoken:
        for call in (read_logs, follow_logs):
            with pytest.raises(ArgumentError):
                call(spoken.engine, NAME, options)
        assert not spoken.queries


# As dockerd 20.10 and podman 4.3 answer; the journald texts as in podman's issues 15159 and 18987.
NOT_READABLE = [
    ("501 Not Implemented", "configured logging driver does not support reading", "none", "--log-driver local"),
    ("501 Not Implemented", "configured logging driver does not support reading", "syslog", "cache-disabled"),
    ("500 Internal Server Error", "failed to obtain logs for Container 'x': this container is using the 'none' log "
     "driver, cannot read logs: this container is not logging output", "none", "--log-driver local"),
    ("500 Internal Server Error", "failed to obtain logs: this container is using the 'passthrough' log driver, cannot "
     "read logs: this container is not logging output", "passthrough", "journalctl -u"),
    ("500 Internal Server Error", "failed to get journal cursor: failed to get cursor: cannot assign requested address",
     "journald", "systemd-journal"),
]


@pytest.mark.parametrize("status, said, driver, hint", NOT_READABLE)
@pytest.mark.parametrize("follow", [False, True], ids=["read", "follow"])
def test_a_driver_that_cannot_be_read_is_named_with_what_helps(
        socket_path: str, status: str, said: str, driver: str, hint: str, follow: bool) -> None:
    inspected = http_answer(json.dumps({"Id": "0" * 64, "HostConfig": {"LogConfig": {"Type": driver}}}).encode())
    refused = http_answer(json.dumps({"message": said}).encode(), status)
    with speaking(socket_path, {"/logs": refused, "/json": inspected}) as spoken:
        with pytest.raises(LogsUnreadable) as raised:
            (follow_logs if follow else read_logs)(spoken.engine, NAME)
        assert f"driver {driver} " in raised.value.message and hint in raised.value.hint


def test_a_driver_that_the_engine_does_not_name_is_an_error_all_the_same(socket_path: str) -> None:
    refused = http_answer(b'{"message": "configured logging driver does not support reading"}', "501 Not Implemented")
    with speaking(socket_path, {"/logs": refused}) as spoken, pytest.raises(LogsUnreadable) as raised:
        read_logs(spoken.engine, NAME)
    assert "(not known)" in raised.value.message


# --- following


def taken(follower: LogFollower, number: int, seconds: float = 20.0) -> List[str]:
    """Return the text of so many lines."""
    found: List[str] = []
    deadline = time.monotonic() + seconds
    while len(found) < number:
        assert time.monotonic() < deadline, found
        batch = follower.get(1.0)
        if batch is not None:
            found += [line.text for line in batch.lines]
            assert not batch.dropped
    return found


def to_the_end(follower: LogFollower) -> List[str]:
    found: List[str] = []
    while not follower.ended:
        batch = follower.get(20.0)
        found += [line.text for line in batch.lines] if batch is not None else []
    return found


def test_lines_are_followed_until_the_container_ends(socket_path: str) -> None:
    more = threading.Event()

    def serve(peer: socket.socket, head: str) -> None:
        data = frame("one", 1) + frame("two", 2)
        peer.sendall(CHUNKED + chunk(data[:10]))
        peer.sendall(chunk(data[10:]))
        more.wait(20)
        peer.sendall(chunk(frame("three", 3)[:-1]) + LAST_CHUNK)

    with speaking(socket_path, {"/logs": serve}) as spoken, follow_logs(spoken.engine, NAME) as follower:
        assert taken(follower, 2) == ["one", "two"]
        assert follower.get(0.01) is None and not follower.ended
        more.set()
        assert to_the_end(follower) == ["three"]
        assert follower.get(0.01) is None
        assert spoken.queries[0]["follow"] == "1" and spoken.queries[0]["tail"] == "100"


@pytest.mark.parametrize("beginning", [
    CHUNKED + chunk(frame("one", 1)), CHUNKED + chunk(frame("one", 1)) + b"5\r\nab", b"HTTP/1.1 20",
    b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + frame("one", 1)],
    ids=["between chunks", "in a chunk", "in the head", "before its length"])
def test_a_connection_that_ends_within_a_log_is_a_loss(socket_path: str, beginning: bytes) -> None:
    def serve(peer: socket.socket, head: str) -> None:
        peer.sendall(beginning)
        peer.shutdown(socket.SHUT_RDWR)

    with speaking(socket_path, {"/logs": serve}) as spoken, pytest.raises(EngineLost):
        with follow_logs(spoken.engine, NAME) as follower:
            to_the_end(follower)


def test_a_log_can_be_followed_whose_first_line_comes_late(socket_path: str) -> None:
    """podman accepts a request together with the first line."""
    more = threading.Event()

    def serve(peer: socket.socket, head: str) -> None:
        more.wait(20)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Enc")
        peer.sendall(b"oding: chunked\r\n\r\n" + chunk(frame("late")) + LAST_CHUNK)

    with speaking(socket_path, {"/logs": serve}) as spoken, follow_logs(spoken.engine, NAME) as follower:
        assert follower.get(0.01) is None
        more.set()
        assert to_the_end(follower) == ["late"]


def test_a_refusal_that_comes_late_is_an_error_of_the_reader(socket_path: str) -> None:
    more = threading.Event()

    def serve(peer: socket.socket, head: str) -> None:
        more.wait(20)
        peer.sendall(http_answer(b'{"message": "this container is using the \'none\' log driver, cannot read logs: '
                                 b'this container is not logging output"}', "500 Internal Server Error"))

    with speaking(socket_path, {"/logs": serve}) as spoken, follow_logs(spoken.engine, NAME) as follower:
        more.set()
        with pytest.raises(LogsUnreadable):
            to_the_end(follower)


def test_close_wakes_the_reader_from_any_thread(socket_path: str) -> None:
    with speaking(socket_path, {"/logs": lambda peer, head: peer.sendall(CHUNKED) or peer.recv(1)}) as spoken:
        follower = follow_logs(spoken.engine, NAME)
        found: List[Any] = []
        reader = threading.Thread(target=lambda: found.append(follower.get()))
        reader.start()
        assert not found
        follower.close()
        follower.close()
        reader.join(10)
        assert found == [None] and follower.get(0.0) is None


def test_the_end_of_the_engine_ends_its_followers_without_an_error(socket_path: str) -> None:
    with speaking(socket_path, {"/logs": lambda peer, head: peer.sendall(CHUNKED) or peer.recv(1)}) as spoken:
        follower = follow_logs(spoken.engine, NAME)
        spoken.engine.close()
        assert follower.closed and follower.get(5.0) is None


class GrowingLog:
    """A container's log as a podman serves it that cannot follow journald."""

    def __init__(self, follows: bool = False, version: bytes = json.dumps(PODMAN_VERSION).encode()) -> None:
        self._version = version
        self.lines: List[Tuple[int, str]] = []
        self.runs = True
        self.removed = False
        self._follows = follows

    def answers(self) -> Dict[str, Any]:
        return {"/logs": by_query(self._log), "/json": self._inspect, "/version": http_answer(self._version)}

    def _log(self, peer: socket.socket, query: Dict[str, str]) -> None:
        if query["follow"] == "1" and not self._follows:
            peer.sendall(http_answer(json.dumps({"message": (
                "failed to obtain logs for Container 'web_1': using --follow with the journald --log-driver but "
                "without the journald --events-backend (file) is not supported")}).encode(),
                "500 Internal Server Error"))
            return
        if self.removed:
            peer.sendall(http_answer(b'{"message": "no such container"}', "404 Not Found"))
            return
        since = float(query.get("since", "0"))
        chosen = [(second, text) for second, text in self.lines if 1796083200.5 + second >= since]
        if query["tail"] != "all":
            chosen = chosen[len(chosen) - min(len(chosen), int(query["tail"])):]
        body = b"".join(frame(text, second) for second, text in chosen)
        peer.sendall(http_answer(body) if query["follow"] == "0" else CHUNKED + (chunk(body) if body else b""))
        if query["follow"] == "1":
            peer.shutdown(socket.SHUT_RDWR)

    def _inspect(self, peer: socket.socket, head: str) -> None:
        if self.removed:
            peer.sendall(http_answer(b'{"message": "no such container"}', "404 Not Found"))
        else:
            peer.sendall(http_answer(json.dumps({"Id": "0" * 64, "State": {"Running": self.runs}}).encode()))


def test_a_log_in_the_journal_is_polled_where_podman_cannot_follow_it(socket_path: str) -> None:
    log = GrowingLog()
    log.lines = [(1, "one"), (2, "two"), (2, "two")]
    with speaking(socket_path, log.answers()) as spoken:
        with follow_logs(spoken.engine, NAME, LogOptions(tail=2)) as follower:
            assert follower.polls
            assert taken(follower, 2) == ["two", "two"]
            log.lines += [(2, "two"), (3, "three")]
            assert taken(follower, 2) == ["two", "three"]
            log.lines.append((4, "last"))
            log.runs = False
            assert to_the_end(follower) == ["last"]


def test_a_poller_told_to_skip_the_old_lines_begins_with_the_next(socket_path: str) -> None:
    log = GrowingLog()
    log.lines = [(1, "old"), (2, "older")]
    with speaking(socket_path, log.answers()) as spoken:
        with follow_logs(spoken.engine, NAME, LogOptions(tail=0)) as follower:
            assert follower.get(0.01) is None
            log.lines.append((3, "new"))
            assert taken(follower, 1) == ["new"]
            log.removed = True
            assert to_the_end(follower) == []


def test_a_guest_with_room_for_one_session_is_polled(socket_path: str) -> None:
    log = GrowingLog(follows=True)
    log.lines = [(1, "one")]
    with speaking(socket_path, log.answers()) as spoken:
        spoken.engine.connection.room = 1
        with follow_logs(spoken.engine, NAME) as follower:
            assert follower.polls and taken(follower, 1) == ["one"]


@pytest.mark.parametrize("version", [VERSION_BODY, json.dumps(PODMAN_VERSION).encode()], ids=["docker", "podman"])
def test_following_goes_on_from_a_position_without_lines_twice(socket_path: str, version: bytes) -> None:
    log = GrowingLog(follows=True, version=version)
    log.lines = [(1, "a"), (2, "b"), (2, "b")]
    position = Position()
    seen: List[str] = []
    with speaking(socket_path, log.answers()) as spoken:
        for more in ([(2, "b"), (3, "c")], [], [(3, "c"), (4, "d")]):
            with follow_logs(spoken.engine, NAME, LogOptions(tail=2), position) as follower:
                with pytest.raises(EngineLost):
                    while True:
                        batch = follower.get(20.0)
                        seen += [line.text for line in batch.lines] if batch else []
            log.lines += more
        with follow_logs(spoken.engine, NAME, LogOptions(tail=2), position) as follower, pytest.raises(EngineLost):
            while True:
                batch = follower.get(20.0)
                seen += [line.text for line in batch.lines] if batch else []
        assert seen == ["b", "b", "b", "c", "c", "d"]


def test_a_flood_is_dropped_and_counted_line_by_line(socket_path: str) -> None:
    lines = 20000

    def serve(peer: socket.socket, head: str) -> None:
        peer.sendall(CHUNKED)
        for start in range(0, lines, 500):
            peer.sendall(chunk(b"".join(frame(str(start + index)) for index in range(500))))
        peer.sendall(LAST_CHUNK)

    shown: List[str] = []
    dropped = 0
    with speaking(socket_path, {"/logs": serve}) as spoken:
        with follow_logs(spoken.engine, NAME, clock=lambda: 0.0) as follower:  # no time passes
            while not follower.ended:
                batch = follower.get(20.0)
                if batch is not None:
                    shown += [line.text for line in batch.lines]
                    dropped += batch.dropped
    assert shown == [str(index) for index in range(400)] and dropped == lines - 400


def test_a_reader_that_reads_nothing_makes_the_engine_wait(socket_path: str) -> None:
    sent = [0]

    def serve(peer: socket.socket, head: str) -> None:
        peer.settimeout(0.5)
        peer.sendall(CHUNKED)
        piece = chunk(frame("x" * 1000))
        while sent[0] < 64 << 20:
            peer.sendall(piece)
            sent[0] += len(piece)

    with speaking(socket_path, {"/logs": serve}) as spoken, follow_logs(spoken.engine, NAME) as follower:
        assert follower.get(20.0) is not None
        until(lambda: sent[0] == stalled(sent), "the engine goes on sending")
        assert sent[0] < 4 << 20


def stalled(sent: List[int]) -> Optional[int]:
    before = sent[0]
    time.sleep(0.05)
    return before


def test_a_vm_and_a_host_have_so_many_followers_at_most() -> None:
    slots = FollowerSlots(each=2, total=3)
    for owner in ("a", "a", "b"):
        slots.take(owner)
    for owner, whose in (("a", "VM"), ("b", "host"), ("c", "host")):
        with pytest.raises(Busy, match=whose):
            slots.take(owner)
    slots.release("a")
    slots.take("c")
    for owner in ("a", "b", "c"):
        slots.release(owner)
    slots.take("a")
    slots.take("a")


def test_the_memory_of_followers_is_charged_to_their_guest_until_they_close(socket_path: str) -> None:
    budget = memory_budget.Budget()
    with Server(Script({"/logs": lambda peer, head: peer.sendall(CHUNKED) or peer.recv(1)}), socket_path), \
            engine_at(socket_path, ENGINE, api.Limits(memory=budget)) as engine:
        followers = [follow_logs(engine, NAME) for _ in range(5)]
        assert budget.total == 5 * FOLLOWER_BYTES
        followers[0].close()
        assert budget.total == 4 * FOLLOWER_BYTES
    assert budget.total == 0


def test_a_follower_that_cannot_be_opened_holds_no_memory(socket_path: str) -> None:
    budget = memory_budget.Budget()
    with Server(Script({"/logs": http_answer(b"{}", "404 Not Found")}), socket_path), \
            engine_at(socket_path, ENGINE, api.Limits(memory=budget)) as engine:
        with pytest.raises(ContainerNotFound):
            follow_logs(engine, NAME)
    assert budget.total == 0


class Pieces(EngineStream):
    """A stream that has received these pieces."""

    def __init__(self, pieces: List[bytes]) -> None:
        self._pieces = pieces

    def sendall(self, data: bytes) -> None:
        pass

    def receive(self, limit: int, timeout: Optional[float]) -> Optional[bytes]:
        return self._pieces.pop(0)[:limit] if self._pieces else b""

    def close(self) -> None:
        pass

    @property
    def stale(self) -> bool:
        return False


HEADS = st.sampled_from([CHUNKED, b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\n",
                         b"HTTP/1.1 "])
BODIES = st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(chunk), st.just(chunk(frame("a"))),
                   st.just(frame("a")), st.just(LAST_CHUNK))


@given(head=HEADS, bodies=st.lists(BODIES, max_size=6), cut=st.integers(1, 40))
def test_any_bytes_are_lines_or_one_of_our_errors(head: bytes, bodies: List[bytes], cut: int) -> None:
    def outcome(size: int) -> Any:
        data = head + b"".join(bodies)
        source = LogStream(Pieces([data[start:start + size] for start in range(0, len(data), size)]), "/")
        found: List[Any] = []
        try:
            for _ in range(2 * len(data) + 2):
                found += source.get(0.0).lines
        except (LogRefused, XSContainerError) as error:
            return type(error)  # lines of the same read may be lost with it
        return found, source.ended

    assert outcome(cut) == outcome(10 ** 6)


# --- real engines


class Kind(NamedTuple):
    """A kind of engine, with the logging drivers that it can read."""

    make: Type[RealEngine]
    drivers: Tuple[str, ...]

    def missing(self) -> str:
        return self.make.missing()


DOCKER = Kind(RealEngine, ("json-file", "local"))
PODMAN = Kind(PodmanEngine, ("k8s-file",))
KINDS = {"docker": DOCKER, "podman": PODMAN}
EACH_DRIVER = [(kind, driver) for kind in KINDS for driver in KINDS[kind].drivers]

WRITES = ["sh", "-c", "echo out; echo err >&2; printf '\\033[31mred\\377\\n'; printf nolf"]
LONG = ["sh", "-c", "/bin/busybox head -c 30000 /dev/zero | /bin/busybox tr '\\0' x; echo; echo after"]
TICKS = ["sh", "-c", "i=0; while true; do i=$((i+1)); echo tick $i; sleep 0.05; done"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: Any) -> Iterator[Dict[str, RealEngine]]:
    """The engines that can run here, by kind."""
    with ExitStack() as stack:
        yield {kind: stack.enter_context(running(KINDS[kind].make(str(tmp_path_factory.mktemp(kind[:1])))))
               for kind in KINDS if not KINDS[kind].missing()}


@pytest.fixture
def reach(engines: Dict[str, RealEngine], make_sshd: Callable[..., Sshd],
          connect: Callable[..., ssh.SSHConnection]) -> "Iterator[Callable[[str], Any]]":
    """Return (the engine of a kind, an Engine over SSH to it)."""
    opened: List[api.Engine] = []

    def get(kind: str) -> Any:
        need(kind in engines, KINDS[kind].missing())
        opened.append(api.Engine(connect(make_sshd(), socket=engines[kind].socket_path), ENGINE))
        return engines[kind], opened[-1]

    yield get
    for engine in opened:
        engine.close()


@contextmanager
def written(server: RealEngine, command: List[str], **options: Any) -> Iterator[str]:
    """The id of a container that runs this command."""
    identifier = server.run("log_1.x", command, **options)
    try:
        yield identifier
    finally:
        server.do("remove", identifier)
        server.client().close()


def with_driver(driver: str) -> Dict[str, Any]:
    return {"HostConfig": {"LogConfig": {"Type": driver, "Config": {}}}}


def ended(server: RealEngine, identifier: str) -> None:
    until(lambda: not server.client().inspect_container(identifier)["State"]["Running"], "it does not end")


@pytest.mark.real
@pytest.mark.parametrize("kind, driver", EACH_DRIVER)
@pytest.mark.parametrize("tty", [False, True], ids=["frames", "terminal"])
def test_each_driver_that_can_be_read_is_read(reach: "Callable[[str], Any]", kind: str, driver: str,
                                              tty: bool) -> None:
    server, engine = reach(kind)
    with written(server, WRITES, Tty=tty, **with_driver(driver)) as identifier:
        ended(server, identifier)
        for called in (identifier, identifier[:12], "log_1.x"):
            found = read_logs(engine, called)
            assert sorted(texts(found)) == sorted(["out", "err", "\x1b[31mred\ufffd", "nolf"]) and not found.truncated
            assert all(line.stamp.startswith("20") for line in found.lines)
            streams = {line.text: line.stream for line in found.lines}
            assert streams["out"] == "stdout" and streams["err"] == ("stdout" if tty else "stderr")
        if not tty:
            assert texts(read_logs(engine, identifier, LogOptions(stdout=False))) == ["err"]
        assert texts(read_logs(engine, identifier, LogOptions(tail=1))) in (["nolf"], ["err"])  # written at once
        assert len(read_logs(engine, identifier, LogOptions(tail=3)).lines) == 3
        assert read_logs(engine, identifier, LogOptions(tail=0)).lines == ()
        assert read_logs(engine, identifier, LogOptions(until=10 ** 18)).lines == ()
        assert len(read_logs(engine, identifier, LogOptions(since=10 ** 18)).lines) == 4
        with follow_logs(engine, identifier) as follower:
            assert sorted(to_the_end(follower)) == sorted(texts(found))
    with pytest.raises(ContainerNotFound):
        read_logs(engine, "no-such-container")


@pytest.mark.real
@pytest.mark.parametrize("kind, driver", EACH_DRIVER)
@pytest.mark.parametrize("tty", [False, True], ids=["frames", "terminal"])
def test_a_long_line_is_one_line_again(reach: "Callable[[str], Any]", kind: str, driver: str, tty: bool) -> None:
    server, engine = reach(kind)
    with written(server, LONG, Tty=tty, **with_driver(driver)) as identifier:
        ended(server, identifier)
        found = texts(read_logs(engine, identifier))
        if kind == "podman" and tty:  # it stores parts of any length, whose stamps look like text
            found = [re.sub("20[0-9:T-]+Z ", "", text) for text in found]
        assert found == ["x" * 30000, "after"]


@pytest.mark.real
@pytest.mark.parametrize("kind, driver", [("docker", "none"), ("podman", "none"), ("podman", "passthrough")])
def test_a_real_driver_that_cannot_be_read_is_named(reach: "Callable[[str], Any]", kind: str, driver: str) -> None:
    server, engine = reach(kind)
    with written(server, WRITES, **with_driver(driver)) as identifier:
        for call in (read_logs, follow_logs):
            with pytest.raises(LogsUnreadable, match=f"driver {driver} "):
                call(engine, identifier)


def journal_runs() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex("/run/systemd/journal/socket") == 0


# systemd-journald runs in no container. To run it there all the same: "unshare --mount", then a tmpfs on /run with the
# directory systemd/journal, then /lib/systemd/systemd-journald.
@pytest.mark.real
@pytest.mark.parametrize("kind, driver", [
    (kind, "journald" if journal_runs() else KINDS[kind].drivers[0]) for kind in sorted(KINDS)])
def test_a_real_log_is_read_and_followed_with_the_driver_of_the_machine(reach: "Callable[[str], Any]", kind: str,
                                                                        driver: str) -> None:
    server, engine = reach(kind)
    with written(server, TICKS, **with_driver(driver)) as identifier:
        until(lambda: read_logs(engine, identifier).lines, "the log has no line")
        with follow_logs(engine, identifier, LogOptions(tail=0)) as follower:
            assert len(taken(follower, 3)) >= 3
            # podman's events are in a file here.
            assert follower.polls is (kind == "podman" and driver == "journald")


@pytest.mark.real
@pytest.mark.parametrize("kind, driver", EACH_DRIVER)
def test_a_real_log_is_followed_over_a_lost_stream_to_its_end(reach: "Callable[[str], Any]", kind: str,
                                                              driver: str) -> None:
    server, engine = reach(kind)
    position = Position()
    with written(server, TICKS, StopSignal="SIGKILL", **with_driver(driver)) as identifier:
        seen: List[str] = []
        for _ in range(3):
            with follow_logs(engine, identifier, position=position) as follower:
                seen += taken(follower, 5)
        with follow_logs(engine, identifier, position=position) as follower:
            server.do("stop", identifier)
            seen += to_the_end(follower)
        everything = texts(read_logs(engine, identifier, LogOptions(tail=MOST_LINES)))
        assert seen == everything == [f"tick {index + 1}" for index in range(len(everything))]


@pytest.mark.real
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_silent_container_is_followed_from_its_first_line(reach: "Callable[[str], Any]", kind: str) -> None:
    server, engine = reach(kind)
    with written(server, ["sh", "-c", "while ! test -e /tmp/go; do sleep 0.05; done; echo went"]) as identifier:
        with follow_logs(engine, identifier) as follower:
            assert follower.get(0.05) is None
            client = server.client()
            client.exec_start(client.exec_create(identifier, ["sh", "-c", "echo > /tmp/go"])["Id"])
            assert taken(follower, 1) == ["went"]
            assert to_the_end(follower) == []


@pytest.mark.real
def test_the_requests_of_an_engine_go_on_beside_followers(reach: "Callable[[str], Any]") -> None:
    server, engine = reach("docker")
    with written(server, TICKS, StopSignal="SIGKILL") as identifier, engine.events() as events:
        followers = [follow_logs(engine, identifier) for _ in range(4)]
        for follower in followers:
            taken(follower, 1)
        assert engine.count() == 1
        engine.stop(identifier)
        assert "die" in real.actions(events, "die")
        for follower in followers:
            to_the_end(follower)
            follower.close()
