"""Each fault of an engine does what its name says, strikes the chosen requests only, and can be switched off."""

import socket
import time
from typing import Any

import pytest

from tests.simulator.engines.http_client import EventStream, UnixConnection, call
from tests.simulator.reading import read_some
from xscontainer.simulator.engines import EmbeddedEngine, Faults


def _raw(engine: EmbeddedEngine, size: int, timeout: float = 0.3) -> bytes:
    """Return the answer to a /version request: until ``size`` bytes, the end, or silence."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(engine.socket_path)
        sock.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        return read_some(sock, size)


def test_a_silent_engine_answers_no_request(engine: EmbeddedEngine) -> None:
    engine.faults.set("silent")
    assert _raw(engine, 1) == b"<silence>"


def test_an_engine_that_is_silent_at_connect_answers_nothing(engine: EmbeddedEngine) -> None:
    engine.faults.set("silent", match="connect", times=1)
    assert _raw(engine, 1) == b"<silence>"
    assert _raw(engine, 12) .startswith(b"HTTP/1.1 200")


def test_the_fault_close_closes_the_connection(engine: EmbeddedEngine) -> None:
    engine.faults.set("close")
    assert _raw(engine, 1) == b"<end>"


def test_the_fault_late_delays_the_answer(engine: EmbeddedEngine) -> None:
    engine.faults.set("late", seconds=0.3)
    began = time.monotonic()
    assert call(engine.socket_path, "GET", "/_ping").body == b"OK"
    assert 0.3 <= time.monotonic() - began < 2.0


def test_the_fault_slow_delays_every_byte(engine: EmbeddedEngine) -> None:
    engine.faults.set("slow", seconds=0.005)
    first = _raw(engine, 5, timeout=2.0)
    assert first == b"HTTP/"
    began = time.monotonic()
    assert call(engine.socket_path, "GET", "/_ping").body == b"OK"
    assert time.monotonic() - began > 0.5


def test_the_fault_cut_closes_after_some_bytes(engine: EmbeddedEngine) -> None:
    engine.faults.set("cut", size=30)
    data = _raw(engine, 1000)
    assert data.endswith(b"<end>") and len(data) == 30 + len(b"<end>")


def test_the_fault_garbage_sends_random_bytes(engine: EmbeddedEngine) -> None:
    engine.faults.set("garbage", size=5000)
    data = _raw(engine, 100000)
    assert len(data) == 5000 + len(b"<end>") and not data.startswith(b"HTTP")


def test_a_huge_answer_never_ends(engine: EmbeddedEngine) -> None:
    engine.faults.set("huge")
    data = _raw(engine, 20 << 20, timeout=5.0)
    assert len(data) >= 20 << 20 and data.startswith(b"HTTP/1.1 200")


def test_a_huge_event_is_a_line_without_end(engine: EmbeddedEngine) -> None:
    engine.faults.set("huge", match="/events")
    connection = UnixConnection(engine.socket_path)
    connection.request("GET", "/events")
    data = connection.getresponse().read(4 << 20)
    connection.sock.close()
    connection.close()
    assert len(data) == 4 << 20 and b"\n" not in data


def test_the_fault_status_answers_with_that_status(engine: EmbeddedEngine) -> None:
    engine.faults.set("status", match="/_ping", status=503, body=b'{"message":"busy"}')
    answer = call(engine.socket_path, "GET", "/_ping")
    assert answer.status == 503 and answer.json() == {"message": "busy"}
    assert call(engine.socket_path, "GET", "/version").status == 200


@pytest.mark.parametrize("body", [b"{not json", b"[1,null,{}]", b'{"a":"\xff"}', b""])
def test_the_fault_body_answers_with_exactly_that_body(engine: EmbeddedEngine, body: bytes) -> None:
    engine.faults.set("body", match="/containers/json", body=body or b" ")
    answer = call(engine.socket_path, "GET", "/containers/json")
    assert answer.status == 200 and answer.body == (body or b" ")


def test_the_fault_events_end_ends_the_stream_properly(engine: EmbeddedEngine) -> None:
    engine.faults.set("events-end", match="/events", size=2, times=1)
    with EventStream(engine.socket_path) as stream:
        engine.run("one")
        assert [stream.next_event() is not None for _ in range(2)] == [True, True]
        assert stream.next_event() is None


def test_the_fault_events_stall_sends_no_event(engine: EmbeddedEngine) -> None:
    engine.faults.set("events-stall", match="/events")
    with EventStream(engine.socket_path, timeout=0.3) as stream:
        engine.run("one")
        assert stream.status == 200
        with pytest.raises(socket.timeout):
            stream.next_event()


def test_faults_are_counted_and_end_after_their_times_or_clear() -> None:
    faults = Faults()
    faults.set("close", match="/a", times=2)
    kinds = ("close", "silent")
    taken = [faults.take(subject, kinds) for subject in ("GET /b", "GET /a", "GET /a", "GET /a")]
    assert [fault.kind if fault else "" for fault in taken] == ["", "close", "close", ""]
    faults.set("silent")
    assert faults.take("anything", ("close",)) is None and faults.fired == {"close": 2}
    faults.clear("close")
    assert faults.take("anything", kinds) is not None
    faults.clear()
    assert faults.take("anything", kinds) is None


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="no such fault"):
        Faults().set("sulks")


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nnonsense\r\n\r\n",
                                  b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"x" * 70000,
                                  b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
                                  b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"])
def test_garbage_from_a_client_is_answered_with_400(engine: EmbeddedEngine, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5.0)
        sock.connect(engine.socket_path)
        sock.sendall(data)
        assert sock.recv(100).startswith(b"HTTP/1.1 400")
        assert _drained(sock)


def _drained(sock: Any) -> bool:
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_chunked_request_body_is_read(engine: EmbeddedEngine) -> None:
    connection = UnixConnection(engine.socket_path)
    body = iter([b'{"Image":"busybox:latest",', b'"Cmd":["true"]}'])
    connection.request("POST", "/containers/create?name=chunky", body=body, encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    assert connection.getresponse().status == 201
    connection.close()
