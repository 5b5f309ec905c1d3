"""Tests of sessions: deadlines, restarts of xapi, calls that are never sent twice."""

import contextlib
import os
import socket
import threading
import time
import xmlrpc.client
from typing import Any, Callable, Iterator, List

import pytest

from tests.waiting import until
from tests.xapi.conftest import ORIGINATOR
from xscontainer.errors import ObjectGone, XapiError, XapiSessionLost, XapiUnavailable
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.endpoint import LocalSocket
from xscontainer.xapi.jsonrpc import MOST_BODY_BYTES, failure
from xscontainer.xapi.session import Session, SessionPool

Login = Callable[..., Session]

REPLY = xmlrpc.client.dumps(({"Status": "Success", "Value": "True"},), methodresponse=True)


def hosts(session: Session) -> List[str]:
    refs: List[str] = session.xenapi.host.get_all()
    return refs


@contextlib.contextmanager
def listening(path: str, answer: bytes = b"") -> "Iterator[str]":
    """Something at ``path`` that takes connections; it sends ``answer`` to each and then nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(8)
        held: List[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                held.append(peer)
                if answer:
                    peer.recv(65536)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for peer in held:
                peer.close()
            os.unlink(path)


def test_calls_and_logout(pool: Pool, login: Login) -> None:
    session = login()
    assert set(hosts(session)) == {host.ref for host in pool.hosts}
    assert pool.sessions.count(ORIGINATOR) == 1
    session.logout()
    assert pool.sessions.count(ORIGINATOR) == 0


def test_text_in_any_script_arrives_unchanged(pool: Pool, session: Session) -> None:
    vm = pool.create_vm("web")
    text = 'größe <&"> \u65e5\u672c \U0001f433 \\ \n\t'
    session.xenapi.VM.add_to_other_config(vm, "k", text)
    assert pool.other_config(vm)["k"] == text


def test_a_lone_surrogate_does_not_fail_a_call(pool: Pool, session: Session) -> None:
    vm = pool.create_vm("web")
    session.xenapi.VM.add_to_other_config(vm, "k", "a\ud800b")
    assert pool.other_config(vm)["k"] == "a?b"


def test_a_refused_call_raises_xapis_error_code(session: Session) -> None:
    with pytest.raises(ObjectGone) as caught:
        session.xenapi.VM.get_record("OpaqueRef:none")
    assert caught.value.details[:2] == ["HANDLE_INVALID", "VM"]
    assert "VM.get_record" in str(caught.value)
    with pytest.raises(XapiError) as other:
        session.xenapi.VM.no_such_message()
    assert other.value.details[0] == "MESSAGE_METHOD_UNKNOWN"


@pytest.mark.parametrize("code, kind", [
    ("SESSION_INVALID", XapiSessionLost), ("HANDLE_INVALID", ObjectGone), ("UUID_INVALID", ObjectGone),
    ("HOST_STILL_BOOTING", XapiUnavailable), ("HOST_IS_SLAVE", XapiUnavailable), ("MAP_DUPLICATE_KEY", XapiError)])
def test_xapis_error_codes_map_to_our_classes(code: str, kind: type) -> None:
    error = failure([code, "a", "b"], "VM.start")
    assert type(error) is kind
    assert error.details == [code, "a", "b"]


@pytest.mark.parametrize("answer", [
    b'{"jsonrpc":"2.0","error":["INVALID_VALUE","Invalid UTF-8 string"],"id":0}',
    b'{"jsonrpc":"2.0","error":"why not","id":0}', b"[]", b"null", b"{}", b"no JSON", b"", b"\xff\xfe"])
def test_a_malformed_answer_raises_an_xapi_error(tmp_path: Any, answer: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
    with listening(str(tmp_path / "s"), head + answer) as path:
        with pytest.raises(XapiError) as caught:
            Session.login(path, ORIGINATOR, 5.0, 5.0)
        # Refused by XAPI is one thing, not understood another.
        assert isinstance(caught.value, XapiUnavailable) == (b"error" not in answer)


def test_a_login_has_a_deadline(tmp_path: Any) -> None:
    with listening(str(tmp_path / "s")) as path:
        begun = time.monotonic()
        with pytest.raises(XapiUnavailable):
            Session.login(path, ORIGINATOR, 60.0, 0.2)
        assert 0.15 < time.monotonic() - begun < 2.0


def test_a_missing_socket_raises_xapi_unavailable(tmp_path: Any) -> None:
    with pytest.raises(XapiUnavailable) as caught:
        Session.login(str(tmp_path / "none"), ORIGINATOR, 1.0, 1.0)
    assert str(tmp_path / "none") in str(caught.value)


def test_a_hanging_call_ends_at_its_deadline(pool: Pool, login: Login) -> None:
    session = login(timeout=0.2)
    pool.faults("host.get_all", "delay", times=1, seconds=2.0)
    begun = time.monotonic()
    with pytest.raises(XapiUnavailable):
        hosts(session)
    assert 0.15 < time.monotonic() - begun < 1.8


def test_the_timeout_can_be_changed_while_connected(pool: Pool, login: Login) -> None:
    session = login(timeout=0.1)
    pool.faults("host.get_all", "delay", times=1, seconds=0.3)
    session.timeout = 5.0
    assert len(hosts(session)) == 2


def test_http_500_is_unavailable(pool: Pool, session: Session) -> None:
    pool.faults("host.get_all", "error-500", times=1)
    with pytest.raises(XapiUnavailable) as caught:
        hosts(session)
    assert "500" in str(caught.value)


def test_a_request_that_is_too_large_is_not_sent(pool: Pool, session: Session) -> None:
    vm = pool.create_vm("web")
    pool.stats.reset()
    with pytest.raises(XapiError) as caught:
        session.xenapi.VM.add_to_other_config(vm, "k", "x" * MOST_BODY_BYTES)
    assert caught.value.details[0] == "REQUEST_TOO_LARGE"
    assert pool.stats.calls() == 0
    # A request of exactly the limit is accepted: the limit is xapi's own.
    session.xenapi.VM.add_to_other_config(vm, "k", "x" * (MOST_BODY_BYTES - 400))
    assert len(pool.other_config(vm)["k"]) == MOST_BODY_BYTES - 400


def test_a_closed_idle_connection_is_opened_again(pool: Pool, session: Session) -> None:
    hosts(session)
    host = pool.coordinator
    host.stop(reset=True)  # without the end of sessions: as when xapi tires of an idle connection
    host.start()
    assert len(hosts(session)) == 2
    # Also for a call that is never sent twice: nothing was sent on the dead connection.
    host.stop(reset=True)
    host.start()
    assert session.xenapi.task.create("label", "").startswith("OpaqueRef:")


def test_an_idempotent_call_is_sent_again_when_its_connection_breaks(pool: Pool, session: Session) -> None:
    hosts(session)
    pool.faults("host.get_all", "drop", times=1)
    assert len(hosts(session)) == 2


@pytest.mark.parametrize("method, arguments", [
    ("secret.create", ({"value": "v", "other_config": {}},)), ("task.create", ("label", "text")),
    ("message.create", ("NAME", "3", "VM", "", "text")), ("Async.VM.start", ("OpaqueRef:x", False, False)),
    ("Async.host.call_plugin", ("OpaqueRef:x", "xscontainer", "create", {}))])
def test_a_call_that_is_not_idempotent_is_not_sent_again(
        pool: Pool, session: Session, method: str, arguments: Any) -> None:
    hosts(session)
    if method == "message.create":
        arguments = ("NAME", "3", "VM", pool.vm(pool.create_vm("web"))["uuid"], "text")
    pool.stats.reset()
    pool.faults(method, "drop-after", times=1)
    function = session.xenapi
    for name in method.split("."):
        function = getattr(function, name)
    with pytest.raises(XapiUnavailable):
        function(*arguments)
    assert pool.stats.calls(method) == 1


def test_an_interrupted_answer_is_not_read_by_the_next_call(pool: Pool, session: Session) -> None:
    def broken_off(method: str, bodies: List[bytes]) -> None:
        session._send(bodies)
        assert session._sock is not None
        session._sock.sendall(b"POST /jsonrpc HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(bodies[0]) + bodies[0])
        raise KeyboardInterrupt

    exchange = session._exchange_again
    session._exchange_again = broken_off  # type: ignore[method-assign,assignment,unused-ignore]
    with pytest.raises(KeyboardInterrupt):
        hosts(session)
    session._exchange_again = exchange  # type: ignore[method-assign,unused-ignore]
    assert session.xenapi.pool.get_all()[0] != pool.coordinator.ref


def test_patient_changes_the_timeout_for_its_block_only(pool: Pool, session: Session) -> None:
    pool.faults("host.get_all", "delay", seconds=1.0, times=2)
    with pytest.raises(XapiUnavailable), session.patient(0.2):
        hosts(session)
    assert len(hosts(session)) == 2


def test_a_plugin_is_not_called_twice(pool: Pool, session: Session, tmp_path: Any) -> None:
    count = tmp_path / "count"
    plugin = os.path.join(pool.coordinator.plugin_dir, "counting")
    with open(plugin, "w") as out:
        out.write(f"#!/bin/sh\necho x >> {count}\ncat <<END\n{REPLY}END\n")
    os.chmod(plugin, 0o755)
    hosts(session)
    pool.faults("host.call_plugin", "drop-after", times=1)
    with pytest.raises(XapiUnavailable):
        session.xenapi.host.call_plugin(pool.coordinator.ref, "counting", "fn", {})
    assert count.read_text() == "x\n"


def test_a_session_ends_with_xapi(pool: Pool, session: Session) -> None:
    hosts(session)
    pool.coordinator.restart()
    with pytest.raises(XapiSessionLost):
        hosts(session)


def test_interrupt_ends_a_waiting_call(pool: Pool, login: Login) -> None:
    session = login(timeout=60.0)
    failed: List[BaseException] = []

    def poll() -> None:
        try:
            getattr(session.xenapi.event, "from")(["vm/OpaqueRef:none"], "", 60.0)
        except XapiError as exc:
            failed.append(exc)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        until(lambda: pool.db.watchers)
    finally:
        begun = time.monotonic()
        session.interrupt()
        thread.join(10)
    assert time.monotonic() - begun < 5.0
    assert isinstance(failed[0], XapiUnavailable)
    with pytest.raises(XapiUnavailable):  # not by way of a new connection either
        hosts(session)
    session.logout()
    assert pool.sessions.count(ORIGINATOR) == 0


# --- the pool of sessions


def idle(sessions: SessionPool, count: int) -> None:
    """Have ``count`` logged-in sessions lie there unused."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            hosts(stack.enter_context(sessions.lease()))


def test_an_idle_session_is_reused(pool: Pool, sessions: SessionPool) -> None:
    for _ in range(5):
        sessions.run(hosts)
    assert pool.stats.calls("session.login_with_password") == 1


def test_a_pool_leases_no_more_sessions_than_allowed(pool: Pool) -> None:
    sessions = SessionPool(lambda: Session.login(pool.coordinator.socket_path, ORIGINATOR, 5.0, 5.0), 2, 0.1)
    with sessions.lease(), sessions.lease():
        with pytest.raises(XapiUnavailable):
            sessions.run(hosts)
    sessions.run(hosts)
    sessions.close()
    assert pool.sessions.count(ORIGINATOR) == 0


def test_run_survives_that_all_idle_sessions_are_lost(pool: Pool, sessions: SessionPool) -> None:
    idle(sessions, 3)
    pool.coordinator.restart()
    for _ in range(4):
        assert len(sessions.run(hosts)) == 2


def test_a_lost_session_drops_the_other_idle_ones(pool: Pool, sessions: SessionPool) -> None:
    idle(sessions, 3)
    pool.coordinator.restart()
    with pytest.raises(XapiSessionLost), sessions.lease() as session:
        hosts(session)
    with sessions.lease() as session:
        assert len(hosts(session)) == 2


def test_run_repeats_the_work_from_its_start(pool: Pool, sessions: SessionPool) -> None:
    idle(sessions, 1)
    begun: List[str] = []

    def work(session: Session) -> int:
        begun.append(session.ref)
        if len(begun) == 1:
            pool.sessions.end_of_host(None)
        return len(hosts(session))

    assert sessions.run(work) == 2
    assert len(set(begun)) == 2


def test_an_expired_session_is_replaced(pool: Pool, sessions: SessionPool) -> None:
    idle(sessions, 2)
    pool.sessions.timeout = 0.0
    until(lambda: time.monotonic())
    try:
        with pytest.raises(XapiSessionLost), sessions.lease() as session:
            hosts(session)
    finally:
        pool.sessions.timeout = 3600.0
    assert len(sessions.run(hosts)) == 2


def test_calls_continue_after_a_pool_join(pool: Pool, sessions: SessionPool) -> None:
    before = set(sessions.run(hosts))
    pool.rejoin()
    after = set(sessions.run(hosts))
    assert len(after) == 2 and not after & before


def test_a_member_whose_coordinator_hangs_raises_xapi_unavailable(pool: Pool) -> None:
    member = pool.hosts[1]
    sessions = SessionPool(lambda: Session.login(member.socket_path, ORIGINATOR, 0.3, 0.3), 2, 5.0)
    try:
        assert len(sessions.run(hosts)) == 2
        pool.set_coordinator_down(True)
        for _ in range(2):
            begun = time.monotonic()
            with pytest.raises(XapiUnavailable):
                sessions.run(hosts)
            assert time.monotonic() - begun < 3.0
        pool.set_coordinator_down(False)
        assert len(sessions.run(hosts)) == 2
    finally:
        sessions.close()


def test_an_error_of_the_work_is_raised_and_keeps_the_session(pool: Pool, sessions: SessionPool) -> None:
    def work(_session: Session) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        sessions.run(work)
    sessions.run(hosts)
    assert pool.stats.calls("session.login_with_password") == 1


def test_a_closed_pool_keeps_no_session(pool: Pool, sessions: SessionPool) -> None:
    with sessions.lease() as session:
        hosts(session)
        sessions.close()
    assert pool.sessions.count(ORIGINATOR) == 0


def test_a_connection_waits_for_a_place_in_xapis_queue(tmp_path: Any) -> None:
    """With more callers than the queue holds the kernel says at once that there is no place."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / "x"))
        listener.listen(0)
        first.connect(str(tmp_path / "x"))
        connected = []
        waiting = threading.Thread(target=lambda: connected.append(LocalSocket(str(tmp_path / "x")).connect(60.0)))
        waiting.start()
        listener.settimeout(60.0)
        taken = [listener.accept()[0], listener.accept()[0]]
        waiting.join(60.0)
        assert len(connected) == 1
        for sock in taken:
            sock.close()
        connected[0].close()


def test_a_queue_that_stays_full_raises_xapi_unavailable(tmp_path: Any) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / "x"))
        listener.listen(0)
        first.connect(str(tmp_path / "x"))
        with pytest.raises(XapiUnavailable):
            Session.login(str(tmp_path / "x"), "test", 0.2, 0.2)
