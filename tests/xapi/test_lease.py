"""Tests of the lease: one holder at a time in a pool, also if processes die."""

import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.waiting import until
from xscontainer.errors import KeyRotationBusy, KeyRotationUnfinished
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi import lease
from xscontainer.xapi.session import Session, SessionPool

PREFIX = "xscontainer-test-"
Hold = Callable[..., Any]


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(str(tmp_path_factory.mktemp("x")), hosts=2, tcp=False) as made:
        yield made


@pytest.fixture
def hold(pool: Pool) -> Iterator[Hold]:
    """Holds the lease as a process of its own on one of the hosts would."""
    made: List[SessionPool] = []
    (ref,) = pool.records("pool")

    def make(number: int = 0) -> Any:
        path = pool.hosts[number].socket_path
        made.append(SessionPool(lambda: Session.login(path, "test", 10.0, 10.0), 4, 10.0))
        return lease.held(made[-1], ref, PREFIX, lambda: KeyRotationBusy("Busy."),
                          lambda: KeyRotationUnfinished("Lost."))

    yield make
    for sessions in made:
        sessions.close()


def claims(pool: Pool) -> Dict[str, str]:
    (record,) = pool.records("pool").values()
    return {key: value for key, value in record["other_config"].items() if key.startswith(PREFIX)}


def put(pool: Pool, key: str, value: str) -> None:
    (ref,) = pool.records("pool")
    pool.set_key(ref, PREFIX + key, value, cls="pool")


def test_a_lease_excludes_others_and_leaves_nothing_behind(pool: Pool, hold: Hold) -> None:
    with hold(0):
        assert len(claims(pool)) == 1
        with pytest.raises(KeyRotationBusy), hold(1):
            pass
        assert len(claims(pool)) == 1
    assert claims(pool) == {}
    with hold(1):
        pass


def test_two_processes_never_hold_the_lease_at_once(pool: Pool, hold: Hold) -> None:
    inside: List[int] = []
    most: List[int] = []
    served: List[int] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        deadline = time.monotonic() + 60.0
        while number not in served and time.monotonic() < deadline:
            try:
                with hold(number % 2):
                    with lock:
                        inside.append(number)
                        most.append(len(inside))
                    time.sleep(0.02)  # where two would meet
                    with lock:
                        inside.remove(number)
                        served.append(number)
            except KeyRotationBusy:
                continue

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(served) == list(range(5)) and max(most) == 1
    assert claims(pool) == {}


@pytest.mark.parametrize("value", ["1", "", "soon", "-5", "99999999999", "4" * 40])
def test_expired_and_malformed_claims_are_removed(pool: Pool, hold: Hold, value: str) -> None:
    put(pool, "dead", value)
    with hold():
        assert PREFIX + "dead" not in claims(pool)


def test_a_valid_claim_of_any_process_is_respected(pool: Pool, hold: Hold) -> None:
    put(pool, "alive", str(int(time.time()) + 60))
    with pytest.raises(KeyRotationBusy), hold():
        pass
    assert list(claims(pool)) == [PREFIX + "alive"]


def test_a_lost_lease_is_noticed_before_the_next_write(pool: Pool, hold: Hold) -> None:
    session = Session.login(pool.coordinator.socket_path, "test", 10.0, 10.0)
    try:
        with hold() as first:
            first.check(session)
            (key,) = claims(pool)
            put(pool, key[len(PREFIX):], "1")  # its time is over, as if its process had been stopped for long
            with hold(1) as second:
                second.check(session)
                with pytest.raises(KeyRotationUnfinished, match="Lost"):
                    first.check(session)
                second.check(session)
    finally:
        session.logout()


def test_a_lease_that_cannot_be_renewed_is_not_relied_on(pool: Pool, hold: Hold,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS", lease.MARGIN)
    session = Session.login(pool.coordinator.socket_path, "test", 10.0, 10.0)
    try:
        with hold() as held, pytest.raises(KeyRotationUnfinished):
            held.check(session)
    finally:
        session.logout()


def test_a_renewal_leaves_no_moment_without_a_claim(pool: Pool, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWED", 0.01)
    seen = set()

    def look() -> bool:
        keys = list(claims(pool))
        assert keys
        seen.update(keys)
        return len(seen) > 5

    session = Session.login(pool.coordinator.socket_path, "test", 10.0, 10.0)
    try:
        with hold() as held:
            until(look, "some renewals")
            held.check(session)
    finally:
        session.logout()
    assert claims(pool) == {}


def test_a_renewal_under_way_leaves_no_claim_behind(pool: Pool, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWED", 0.001)
    for number in range(30):
        with hold():
            time.sleep(0.002 * (number % 7))  # to end at any moment of a renewal
        assert claims(pool) == {}
