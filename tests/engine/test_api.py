"""The verbs and the event stream against scripted engines, without SSH."""

import json
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Callable, List

import pytest

from tests.engine.conftest import ENGINE
from tests.engine.peers import OK_PING, Script, Server, SocketConnection, http_answer
from tests.waiting import until
from xscontainer.core import memory_budget as memory
from xscontainer.core.container import containers_from_api
from xscontainer.engine import api, api_version, listing
from xscontainer.engine.calls import DEFAULT_LIMITS
from xscontainer.engine.events import EventStream
from xscontainer.errors import (
    ArgumentError,
    ContainerConflict,
    ContainerNotFound,
    EngineError,
    EngineGarbage,
    EngineLost,
    EngineRefused,
    EngineTimeout,
    EngineTooMuch,
    EngineTooOld,
    EngineUnavailable,
    XSContainerError,
)
from xscontainer.monitoring.vm import feed as monitoring_feed
from xscontainer.monitoring.vm.feed import MOST_EVENTS

ID = "a" * 64


def engine_of(connection: SocketConnection, limits: api.Limits = DEFAULT_LIMITS, **settings: Any) -> api.Engine:
    return api.Engine(connection, ENGINE._replace(**settings), limits=limits)


# --- requests


def test_the_verbs_ask_what_the_api_describes(plain: SocketConnection, socket_path: str) -> None:
    none = b"HTTP/1.1 204 No Content\r\n\r\n"
    script = Script({f"/{verb}": none for verb in ("start", "stop", "restart", "pause", "unpause")})
    script.answers.update({"/containers/json": http_answer(b'[{"Id": "x"}, 7]'), "/info": http_answer(b'{"Name": "n"}'),
                           f"/{ID}/json": http_answer(b'{"Id": "y"}'),
                           "/top": http_answer(b'{"Titles": ["PID", "CMD"], "Processes": [["1", "sh"], 7]}')})
    with Server(script, socket_path) as server:
        engine = engine_of(plain)
        assert engine.containers() == [{"Id": "x"}]
        assert engine.info() == {"Name": "n"}
        assert engine.version()["Version"] == "20.10.0"
        assert engine.inspect(ID) == {"Id": "y"}
        assert engine.top(ID) == (("PID", "CMD"), (("1", "sh"),))
        for verb in ("start", "stop", "restart", "pause", "unpause"):
            getattr(engine, verb)(ID)
        engine.close()
        assert server.connections == 1
    assert script.asked[0] == "GET /version"
    assert script.asked[1].startswith("GET /v1.41/containers/json?")
    assert set(script.asked[1].split("?")[1].split("&")) >= {"all=1", "size=0"}
    assert script.asked[2:] == ["GET /v1.41/info", "GET /version", f"GET /v1.41/containers/{ID}/json",
                                f"GET /v1.41/containers/{ID}/top", f"POST /v1.41/containers/{ID}/start",
                                f"POST /v1.41/containers/{ID}/stop", f"POST /v1.41/containers/{ID}/restart",
                                f"POST /v1.41/containers/{ID}/pause", f"POST /v1.41/containers/{ID}/unpause"]


def test_stop_and_restart_name_the_seconds_of_the_caller(plain: SocketConnection, socket_path: str) -> None:
    none = b"HTTP/1.1 204 No Content\r\n\r\n"
    script = Script({"/stop": none, "/restart": none})
    with Server(script, socket_path):
        engine = engine_of(plain)
        engine.stop(ID, 0)
        engine.restart(ID, 30)
        engine.close()
    assert script.asked[1:] == [f"POST /v1.41/containers/{ID}/stop?t=0", f"POST /v1.41/containers/{ID}/restart?t=30"]


def test_a_container_already_in_the_wanted_state_is_a_success(plain: SocketConnection, socket_path: str) -> None:
    with Server(Script({"/start": b"HTTP/1.1 304 Not Modified\r\n\r\n"}), socket_path):
        engine = engine_of(plain)
        engine.start(ID)
        engine.close()


@pytest.mark.parametrize("status, body, expected, word", [
    ("404 Not Found", b'{"message": "No such container: x"}', ContainerNotFound, ID),
    ("409 Conflict", b'{"message": "Container is not paused"}', ContainerConflict, "is not paused"),
    ("500 Internal Server Error", b'{"message": "cannot \\u0007 start\\nit"}', EngineRefused, "start it"),
    ("503 Service Unavailable", b"busy", EngineRefused, "busy"),
    ("400 Bad Request", b'{"message": "bad"}', EngineRefused, "bad"),
    ("500 Internal Server Error", b"", EngineRefused, "500"),
    ("500 Internal Server Error", b"\xff\xfe" * 5000, EngineRefused, ""),
    ("500 Internal Server Error", b'["message"]', EngineGarbage, ""),
    ("400 Bad Request", b'{"message": {"a": [1]}}', EngineRefused, ""),
    ("302 Found", b"", EngineGarbage, ""),
], ids=range(10))
def test_a_refusal_quotes_the_engines_message(plain: SocketConnection, socket_path: str, status: str, body: bytes,
                                              expected: Any, word: str) -> None:
    with Server(Script({"/json": http_answer(body, status)}), socket_path):
        engine = engine_of(plain)
        with pytest.raises(EngineError) as caught:
            engine.inspect(ID)
        engine.close()
    assert type(caught.value) is expected
    assert word in str(caught.value)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value) and "\x07" not in str(caught.value)


@pytest.mark.parametrize("container", ["", "-x", "a/b", "a b", "../x", "a?b", "a\n", "é", "x" * 256, "."], ids=repr)
def test_an_impossible_container_name_is_refused_without_a_request(plain: SocketConnection, container: str) -> None:
    with pytest.raises(ArgumentError):
        engine_of(plain).inspect(container)
    assert plain.opened == 0


def test_a_redirect_is_not_followed(plain: SocketConnection, socket_path: str) -> None:
    with Server(lambda peer: None) as other:
        answer = (f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{other.port}/v1.41/info\r\n"
                  "Content-Length: 0\r\n\r\n").encode()
        with Server(Script({"/info": answer}), socket_path):
            engine = engine_of(plain)
            with pytest.raises(EngineGarbage):
                engine.info()
            engine.close()
        assert other.connections == 0


def test_the_callers_environment_is_ignored(plain: SocketConnection, socket_path: str, tmp_path: Any,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"HttpHeaders": {"X-Secret": "1"}, "proxies": {}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:1")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://192.0.2.1:1")
    heads: List[str] = []

    def note(peer: socket.socket, head: str) -> None:
        heads.append(head)
        peer.sendall(http_answer(b"{}"))

    with Server(Script({"/info": note}), socket_path):
        engine = engine_of(plain)
        assert engine.info() == {}
        engine.close()
    assert "X-Secret" not in heads[0]


# --- API version


@pytest.mark.parametrize("newest, oldest, spoken", [
    ("1.41", "1.12", "1.41"), ("1.24", "1.12", "1.24"), ("1.51", "1.44", "1.44"), ("1.52", "1.48", "1.48"),
    ("1.24", None, "1.24"), ("1.100", "1.24", "1.44"), ("2.0", "1.44", "1.44"),
])
def test_the_api_version_is_negotiated(newest: str, oldest: Any, spoken: str) -> None:
    assert api_version.negotiate({"ApiVersion": newest, "MinAPIVersion": oldest}) == spoken


@pytest.mark.parametrize("newest", ["1.23", "1.9", "0.99"])
def test_an_engine_with_only_old_api_versions_is_refused(newest: str) -> None:
    with pytest.raises(EngineTooOld):
        api_version.negotiate({"ApiVersion": newest})


@pytest.mark.parametrize("newest", [None, 1.41, "", "1.41/../..", "1.41\n", "1." + "9" * 100, "1.41 ", []])
def test_a_version_answer_without_api_versions_is_refused(newest: Any) -> None:
    with pytest.raises(EngineGarbage):
        api_version.negotiate({"ApiVersion": newest})


def test_an_updated_engine_is_asked_for_its_version_again(plain: SocketConnection, socket_path: str) -> None:
    script = Script({"/containers/json": http_answer(b"[]")})
    with Server(script, socket_path):
        engine = engine_of(plain)
        assert engine.containers() == []

        def refuse_old(peer: socket.socket, head: str) -> None:
            if "/v1.44/" in head:
                peer.sendall(http_answer(b"[{}]"))
            else:
                peer.sendall(http_answer(b'{"message": "client version 1.41 is too old. Minimum supported API '
                                         b'version is 1.44, please upgrade your client to a newer version"}',
                                         "400 Bad Request"))

        script.answers["/containers/json"] = refuse_old
        script.answers["/version"] = http_answer(b'{"ApiVersion": "1.52", "MinAPIVersion": "1.44"}')
        assert engine.containers() == [{}]
        engine.close()


# --- misbehaving engines


def _raw(body: bytes) -> bytes:
    return body


HUGE = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n"


def _endless(peer: socket.socket, head: str) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        peer.sendall(b"8000\r\n" + b" " * 0x8000 + b"\r\n")


def _endless_head(peer: socket.socket, head: str) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        peer.sendall(b"X: " + b"y" * 1000 + b"\r\n")


def _endless_status(peer: socket.socket, head: str) -> None:
    while True:
        peer.sendall(b"x" * 65536)


def _endless_interim(peer: socket.socket, head: str) -> None:
    while True:
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def _slowly(peer: socket.socket, head: str) -> None:
    for byte in http_answer(b"{}" + b" " * 1000):
        peer.sendall(bytes([byte]))
        time.sleep(0.02)


def _never(peer: socket.socket, head: str) -> None:
    peer.recv(1)


def _half(peer: socket.socket, head: str) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    peer.shutdown(socket.SHUT_RDWR)


def _half_chunked(peer: socket.socket, head: str) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{")
    peer.shutdown(socket.SHUT_RDWR)


def _hang_up(peer: socket.socket, head: str) -> None:
    peer.shutdown(socket.SHUT_RDWR)


MISBEHAVIOUR = [
    (b"\x00\xff" * 1000 + b"\r\n\r\n", EngineGarbage),
    (b"SSH-2.0-OpenSSH\r\n\r\n", EngineGarbage),
    (http_answer(b"not json"), EngineGarbage),
    (http_answer(b""), EngineGarbage),
    (http_answer(b"[1]"), EngineGarbage),
    (http_answer(b"null"), EngineGarbage),
    (http_answer(b"[" * 100000), EngineGarbage),
    (http_answer(b'{"a": ' + b"9" * 200000 + b"}"), EngineGarbage),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", EngineLost),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n{}", (EngineLost, EngineTimeout)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", (EngineLost, EngineTimeout)),
    (HUGE, EngineTooMuch), (_endless, EngineTooMuch), (_endless_head, (EngineGarbage, EngineTooMuch)),
    (_endless_status, EngineTooMuch), (_endless_interim, EngineTooMuch),
    (_slowly, EngineTimeout), (_never, EngineTimeout),
    (_half, EngineLost), (_half_chunked, EngineLost), (_hang_up, EngineLost),
]


@pytest.mark.parametrize("answer, expected", MISBEHAVIOUR, ids=range(len(MISBEHAVIOUR)))
def test_each_misbehaviour_of_an_engine_ends_with_its_own_error(plain: SocketConnection, socket_path: str, answer: Any,
                                                                expected: Any) -> None:
    with Server(Script({"/info": answer}), socket_path):
        engine = engine_of(plain, request_timeout=1.0, max_response_bytes=1 << 20)
        engine.version()
        started = time.monotonic()
        with pytest.raises(expected):
            engine.info()
        assert time.monotonic() - started < 3.0
        engine.close()


def test_an_answer_longer_than_the_setting_is_refused(plain: SocketConnection, socket_path: str) -> None:
    with Server(Script({"/info": http_answer(b'{"a": "' + b"x" * 70000 + b'"}')}), socket_path):
        engine = engine_of(plain, max_response_bytes=65536)
        with pytest.raises(EngineTooMuch):
            engine.info()
        engine.close()


@pytest.mark.parametrize("verb", ["containers", "inspect", "top"])
def test_an_answer_of_ten_million_entries_is_refused_before_decoding(verb: str) -> None:
    """A decoded entry takes a hundred times its bytes, and decoding all of them would hold the GIL for seconds."""
    asked = subprocess.run([sys.executable, "-W", "ignore", "-m", "tests.engine.flood", verb], check=False,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert asked.returncode == 0, asked.stderr.decode()[-500:]
    outcome, memory = asked.stdout.decode().split()
    assert outcome == "ENGINE_TOO_MUCH" and int(memory) < 200 << 20


def test_a_thousand_containers_with_fifty_labels_each_are_accepted() -> None:
    entry = {"Id": ID, "Names": ["/web"], "Labels": {f"com.example.label-{number}": "a, b" for number in range(50)},
             "Ports": [{"PrivatePort": number, "Type": "tcp"} for number in range(10)]}
    counted = listing.Count()
    sink = listing.Sink(counted)
    sink.feed(json.dumps([entry] * 1000).encode())
    sink.end()
    assert counted.number == 1000


def test_a_large_document_is_refused_by_the_limit_for_documents(plain: SocketConnection, socket_path: str) -> None:
    """The document is an inspected container of 9 MiB. The setting allows that size for lists only."""
    body = b'{"a": "' + b"x" * (9 << 20) + b'"}'
    with Server(Script({f"/{ID}/json": http_answer(body)}), socket_path):
        engine = engine_of(plain, max_response_bytes=16 << 20)
        with pytest.raises(EngineTooMuch, match="4194304"):
            engine.inspect(ID)
        engine.close()
    assert memory.BUDGET.total == 0


def test_the_memory_of_an_answer_is_released_after_success_and_failure(plain: SocketConnection,
                                                                       socket_path: str) -> None:
    entry = b'{"Id": "%064x", "Names": ["/web"], "State": "running"}'
    half = b"[" + b",".join(entry % number for number in range(3000))
    seen: List[int] = []

    def stall(peer: socket.socket, head: str) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + half)
        until(lambda: memory.BUDGET.total > 1 << 20)
        seen.append(memory.BUDGET.total)
        peer.recv(1)

    answers = {"garbage": http_answer(half + b",}"), "half": http_answer(half), "stall": stall,
               "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + half,
               "refused": http_answer(half, "500 no")}
    for answer in answers.values():
        with Server(Script({"/containers/json": answer}), socket_path) as server:
            engine = engine_of(plain, request_timeout=2.0)
            with pytest.raises(EngineError):
                engine.listed(5000, lambda found: found)
            assert memory.BUDGET.total == 0
            engine.close()
            del server
    assert seen


def test_a_list_read_in_pieces_equals_json_loads(plain: SocketConnection, socket_path: str) -> None:
    entries = [{"Id": "%064x" % number, "Names": [f"/\u044f{number}"], "State": "running", "Status": "Up",
                "Labels": {"text": '[{"\\' * 5}} for number in range(4000)]
    body = json.dumps(entries, ensure_ascii=False).encode()
    with Server(Script({"/containers/json": http_answer(body)}), socket_path):
        engine = engine_of(plain, max_response_bytes=16 << 20)
        assert engine.containers() == entries
        assert engine.count() == 4000
        assert engine.listed(100, lambda found: found) == containers_from_api(entries, 100)
        engine.close()
    assert memory.BUDGET.total == 0


@pytest.mark.parametrize("answer", [http_answer(b"{}"), http_answer(b"null"), http_answer(b""), http_answer(b"[1,]"),
                                    http_answer(b"[]x"), b"HTTP/1.1 204 No Content\r\n\r\n"], ids=range(6))
def test_an_answer_that_is_not_a_list_is_an_error_not_an_empty_list(plain: SocketConnection, socket_path: str,
                                                                    answer: bytes) -> None:
    with Server(Script({"/containers/json": answer}), socket_path):
        engine = engine_of(plain)
        with pytest.raises(EngineGarbage):
            engine.count()
        engine.close()


def test_an_entry_that_is_too_large_is_refused_and_not_kept(plain: SocketConnection, socket_path: str) -> None:
    for body in (b'[{"Id": "' + b"x" * (5 << 20) + b'"}]', b'[{"Ports": [' + b"{}," * 500000 + b"{}]}]"):
        with Server(Script({"/containers/json": http_answer(body)}), socket_path):
            engine = engine_of(plain, max_response_bytes=16 << 20)
            with pytest.raises(EngineTooMuch, match="A container"):
                engine.count()
            engine.close()
    assert memory.BUDGET.total == 0


def fat_entries(count: int) -> bytes:
    """Return a list whose entries take 8 KB of memory each."""
    port = {"IP": "0.0.0.0", "PublicPort": 1}
    return json.dumps([{"Id": "%064x" % number, "Names": ["/" + "n" * 200], "Image": "\U0001f600" * 200,
                        "State": "running", "Ports": [dict(port, PrivatePort=each) for each in range(16)]}
                       for number in range(count)]).encode()


def test_a_guest_that_holds_much_memory_loses_it_to_one_that_needs_little(socket_path: str) -> None:
    """Three guests send as much as they may and stall. The list of a fourth guest is read all the same."""
    ended = threading.Event()

    def stall(peer: socket.socket, head: str) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 16000000\r\n\r\n" + fat_entries(700)[:-1])
        ended.wait(60)

    def hold(engine: api.Engine) -> None:
        try:
            engine.listed(5000, lambda found: told.append("listed"))
        except XSContainerError as error:
            told.append(error.code)

    limits = api.Limits(memory=memory.Budget(most=17 << 20))
    told: List[str] = []
    with Server(Script({"/containers/json": stall}), socket_path), \
            Server(Script({"/containers/json": http_answer(fat_entries(450))}), socket_path + "2"):
        engines = [engine_of(SocketConnection(socket_path), limits, request_timeout=60.0) for _ in range(3)]
        threads = [threading.Thread(target=hold, args=(engine,)) for engine in engines]
        for thread in threads:
            thread.start()
        until(lambda: limits.memory is not None and limits.memory.total > 14 << 20)
        honest = engine_of(SocketConnection(socket_path + "2"), limits, request_timeout=60.0)
        assert honest.listed(5000, lambda found: len(found.containers)) == 450
        until(lambda: told)
        assert told == ["MEMORY_BUSY"]
        ended.set()
        for engine in engines + [honest]:
            engine.close(hang_up=True)
        for thread in threads:
            thread.join()
    assert memory.BUDGET.total == 0 and "listed" not in told


def test_a_missing_socket_means_that_the_engine_is_unavailable(plain: SocketConnection) -> None:
    with pytest.raises(EngineUnavailable):
        engine_of(plain).containers()


# --- one stream for many requests


def test_an_idle_stream_that_the_engine_closed_is_replaced(plain: SocketConnection, socket_path: str) -> None:
    script = Script({"/info": http_answer(b"{}"), "/pause": b"HTTP/1.1 204 No Content\r\n\r\n"})
    with Server(script, socket_path) as server:
        engine = engine_of(plain)
        engine.info()
        server.hang_up()
        engine.pause(ID)
        engine.close()
    assert script.asked.count(f"POST /v1.41/containers/{ID}/pause") == 1


@pytest.mark.parametrize("verb, times", [("info", 2), ("pause", 1)])
def test_only_idempotent_requests_are_sent_twice(plain: SocketConnection, socket_path: str, verb: str,
                                                 times: int) -> None:
    """If a stream ends during a request, it is unknown whether the engine received the request."""
    script = Script({"/info": _hang_up, "/pause": _hang_up})
    with Server(script, socket_path):
        engine = engine_of(plain)
        engine.version()
        with pytest.raises(EngineLost):
            engine.info() if verb == "info" else engine.pause(ID)
        engine.close()
    assert len([asked for asked in script.asked if asked.endswith(verb)]) == times


def test_an_unsolicited_answer_is_not_used_for_the_next_request(plain: SocketConnection, socket_path: str) -> None:
    twice = http_answer(b'{"n": 1}') + http_answer(b'{"n": 2}')
    with Server(Script({"/info": twice}), socket_path):
        engine = engine_of(plain)
        assert [engine.info()["n"] for _ in range(3)] == [1, 1, 1]
        engine.close()


def test_threads_get_streams_of_their_own(plain: SocketConnection, socket_path: str) -> None:
    both = threading.Barrier(2)

    def meet(peer: socket.socket, head: str) -> None:
        both.wait(5)
        peer.sendall(http_answer(b"{}"))

    with Server(Script({"/info": meet}), socket_path):
        engine = engine_of(plain)
        engine.version()
        found: List[Any] = []
        threads = [threading.Thread(target=lambda: found.append(engine.info())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.close()
    assert found == [{}, {}]


# --- events

START = {"Type": "container", "Action": "start", "Actor": {"ID": ID, "Attributes": {"name": "web"}}, "time": 1}
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def line(**fields: Any) -> bytes:
    return json.dumps(dict(START, **fields)).encode() + b"\n"


class Feed:
    """Serves /events with data that the test sends."""

    def __init__(self, head: bytes = HEAD) -> None:
        self.head = head
        self.heads: List[str] = []
        self.peer = None  # type: Any
        self.ready = threading.Event()

    def __call__(self, peer: socket.socket, head: str) -> None:
        self.heads.append(head)
        peer.sendall(self.head)
        self.peer = peer
        self.ready.set()
        peer.recv(1)

    def send(self, data: bytes) -> None:
        assert self.ready.wait(5)
        self.peer.sendall(data)

    def end(self) -> None:
        assert self.ready.wait(5)
        self.peer.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def feed() -> Feed:
    return Feed()


def at_hand(stream: EventStream) -> List[str]:
    """Return the actions that have arrived so far."""
    return [event.action for event in iter(lambda: stream.get(0.0), None) if event]


def test_events_arrive_one_by_one_and_irrelevant_ones_are_dropped(plain: SocketConnection, socket_path: str,
                                                                  feed: Feed) -> None:
    with Server(Script({"/events": feed}), socket_path):
        with engine_of(plain).events() as stream:
            assert stream.get(0.05) is None
            feed.send(chunk(line()) + chunk(line(Action="exec_start: sh")))
            event = stream.get(5)
            assert event is not None and (event.action, event.id, event.name) == ("start", ID, "web")
            assert stream.get(0.05) is None
            feed.send(chunk(line(Action="die")) + chunk(line(Action="stop") + line(Action="destroy")))
            event = stream.get(5)
            assert event is not None and event.action == "die"
            deadline = time.monotonic() + 5
            rest: List[str] = []
            while len(rest) < 2 and time.monotonic() < deadline:
                rest += at_hand(stream)
            assert rest == ["stop", "destroy"]
            assert at_hand(stream) == []
    assert "filters=" in feed.heads[0] and "exec" not in feed.heads[0]


@pytest.mark.parametrize("head", [HEAD, b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"])
def test_events_are_decoded_from_pieces_of_any_size(plain: SocketConnection, socket_path: str, head: bytes) -> None:
    feed = Feed(head)
    wrap: Callable[[bytes], bytes] = chunk if head is HEAD else _raw
    data = wrap(line() + b"\n" + line(Action="die")[:20]) + wrap(line(Action="die")[20:])
    with Server(Script({"/events": feed}), socket_path):
        with engine_of(plain).events() as stream:
            got: List[str] = []
            for byte in data:
                feed.send(bytes([byte]))
                got += at_hand(stream)
            deadline = time.monotonic() + 5
            while len(got) < 2 and time.monotonic() < deadline:
                got += at_hand(stream)
            assert got == ["start", "die"]


# Data that ends a stream, and the error for it.
ENDS: List[Any] = [
    (None, EngineLost), (b"0\r\n\r\n", EngineLost), (b"xyz\r\n", EngineGarbage), (b"fffffffff\r\n", EngineGarbage),
    (b"z" * 5000, EngineGarbage), (chunk(b"no json\n"), EngineGarbage), (chunk(b"[" * 60000 + b"\n"), EngineGarbage),
    (chunk(b"null\n"), EngineGarbage), (chunk(b"{}\n"), EngineGarbage), (chunk(b"[]\n"), EngineGarbage),
    (chunk(b'{"Type": 7, "Action": []}\n'), EngineGarbage),
    (chunk(b'{"message": "no more file descriptors"}\n'), EngineGarbage)]


@pytest.mark.parametrize("data, expected", ENDS, ids=range(len(ENDS)))
def test_the_end_of_an_event_stream_is_an_error(plain: SocketConnection, socket_path: str, feed: Feed, data: Any,
                                                expected: Any) -> None:
    with Server(Script({"/events": feed}), socket_path):
        with engine_of(plain).events() as stream:
            feed.end() if data is None else feed.send(data)
            with pytest.raises(expected):
                next(stream)


@pytest.mark.parametrize("data, expected", ENDS[1:], ids=range(len(ENDS) - 1))
@pytest.mark.parametrize("events", [0, 2])
def test_an_end_in_the_same_bytes_as_the_head_or_an_event_is_noticed(
        plain: SocketConnection, socket_path: str, events: int, data: Any, expected: Any) -> None:
    with Server(Script({"/events": Feed(HEAD + chunk(line()) * events + data)}), socket_path):
        with engine_of(plain).events() as stream:
            with pytest.raises(expected):
                for _ in range(events + 1):
                    next(stream)


@pytest.mark.parametrize("more", [-1, 0, 1, 2, 1001])
def test_no_event_is_lost_when_many_arrive_at_once(plain: SocketConnection, socket_path: str, more: int) -> None:
    count = MOST_EVENTS + more
    lines = b"".join(line(id=f"{number:064x}", Actor={"ID": f"{number:064x}"}) for number in range(count))
    with Server(Script({"/events": Feed(HEAD + chunk(lines))}), socket_path):
        engine = engine_of(plain)
        feed = monitoring_feed.Feed(engine, "the VM", time.sleep)
        feed.begin()
        heard: List[str] = []
        deadline = time.monotonic() + 10
        while len(heard) < count and time.monotonic() < deadline:
            heard += [event.id for event in feed.take(0.05).events]
        feed.close()
    assert heard == [f"{number:064x}" for number in range(count)]


@pytest.mark.parametrize("head", [b"Content-Length: 0\r\n\r\n", b"Content-Length: %d\r\n\r\n" % len(line()) + line()])
def test_a_stream_of_announced_length_ends_after_that_length(plain: SocketConnection, socket_path: str,
                                                             head: bytes) -> None:
    with Server(Script({"/events": Feed(b"HTTP/1.1 200 OK\r\n" + head)}), socket_path):
        with engine_of(plain).events() as stream:
            if head.endswith(b"}\n"):
                assert stream.get(5) is not None
            with pytest.raises(EngineLost):
                next(stream)


def test_an_event_with_long_labels_is_read_without_them(plain: SocketConnection, socket_path: str,
                                                        feed: Feed) -> None:
    labels = {"conf": "x" * 100000}
    long = line(Action="die", Actor={"ID": ID, "Attributes": labels})
    with Server(Script({"/events": feed}), socket_path):
        with engine_of(plain).events() as stream:
            feed.send(chunk(long) + chunk(line()))
            event = next(stream)
            assert (event.action, event.id) == ("die", ID)
            assert next(stream).action == "start"


@pytest.mark.parametrize("long", [b"x" * 70000, b'{"Actor": {"Attributes": {"conf": "' + b"x" * 70000 + b'"}}}',
                                  b'{"from": "' + b"x" * 70000 + b'", "Actor": {"Attributes": {}}}'], ids=range(3))
def test_an_unreadable_long_line_counts_as_any_change(plain: SocketConnection, socket_path: str, feed: Feed,
                                                      long: bytes) -> None:
    with Server(Script({"/events": feed}), socket_path):
        with engine_of(plain).events() as stream:
            feed.send(chunk(long + b"\n") + chunk(line()))
            event = next(stream)
            assert event.changes_list and not event.shown_by(None)
            assert next(stream).action == "start"


def test_get_returns_regularly_while_only_irrelevant_data_arrives(plain: SocketConnection, socket_path: str,
                                                                  feed: Feed) -> None:
    noise = chunk(line(Action="top") * 5000)
    with Server(Script({"/events": feed}), socket_path):
        with engine_of(plain).events() as stream:
            sending = threading.Thread(target=feed.send, args=(noise + chunk(line()),))
            sending.start()
            turns = 0
            while stream.get(5) is None:
                turns += 1
            sending.join(5)
            assert turns >= len(noise) // (2 * 65536)


@pytest.mark.parametrize("iterate", [False, True])
def test_close_ends_a_waiting_get_at_once(plain: SocketConnection, socket_path: str, feed: Feed, iterate: bool) -> None:
    with Server(Script({"/events": feed}), socket_path):
        engine = engine_of(plain)
        stream = engine.events()
        got: List[Any] = []
        waiting = threading.Thread(target=lambda: got.append(list(stream) if iterate else stream.get()))
        waiting.start()
        started = time.monotonic()
        engine.close()
        waiting.join(5)
        assert time.monotonic() - started < 3.0
        assert got == [[] if iterate else None] and stream.closed
        stream.close()


def test_an_engine_that_rejects_the_filters_is_asked_for_all_events(plain: SocketConnection, socket_path: str,
                                                                    feed: Feed) -> None:
    def picky(peer: socket.socket, head: str) -> None:
        if "filters" in head:
            peer.sendall(http_answer(b'{"message": "invalid filter"}', "400 Bad Request"))
        else:
            feed(peer, head)

    with Server(Script({"/events": picky}), socket_path):
        with engine_of(plain).events() as stream:
            feed.send(chunk(line(Action="top")) + chunk(line(Type="image", Action="pull")) + chunk(line()))
            event = stream.get(5)
            assert event is not None and event.action == "start"


@pytest.mark.parametrize("answer, expected", [
    (http_answer(b'{"message": "no"}', "500 Internal Server Error"), EngineRefused),
    (_never, EngineTimeout), (_hang_up, EngineLost),
    (OK_PING[:20] + b"\x00" * 10, (EngineGarbage, EngineLost, EngineTimeout)),
], ids=range(4))
def test_each_failure_to_begin_the_events_has_its_own_error(plain: SocketConnection, socket_path: str, answer: Any,
                                                            expected: Any) -> None:
    with Server(Script({"/events": answer}), socket_path):
        engine = engine_of(plain, request_timeout=0.5)
        with pytest.raises(expected):
            engine.events()
        engine.close()


def test_an_event_stream_outlasts_the_budget_of_an_answer(plain: SocketConnection, socket_path: str,
                                                          feed: Feed) -> None:
    with Server(Script({"/events": feed}), socket_path):
        with engine_of(plain, max_response_bytes=65536).events() as stream:
            count = 0
            for _ in range(40):
                feed.send(chunk(line()) * 50)
                for _ in range(50):
                    assert stream.get(5) is not None
                    count += 1
            assert count == 2000


def test_events_that_arrive_with_the_head_are_delivered(plain: SocketConnection, socket_path: str) -> None:
    def all_at_once(peer: socket.socket, head: str) -> None:
        peer.sendall(HEAD + chunk(line()) + chunk(line(Action="die")))
        peer.recv(1)

    with Server(Script({"/events": all_at_once}), socket_path):
        with engine_of(plain).events() as stream:
            assert [event.action for event in (stream.get(5), stream.get(5)) if event] == ["start", "die"]
