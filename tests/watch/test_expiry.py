"""Messages about certificates that end: one for each, and never many."""

import time
from typing import Callable, List

from xscontainer import keys
from xscontainer.access import expiry
from xscontainer.simulator.xapi import Pool
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi.session import SessionPool

DAY = 86400.0
NOW = time.time()


def bodies(sessions: SessionPool) -> "List[str]":
    found = sessions.run(lambda session: session.xenapi.message.get_all_records())
    return [message["body"] for message in found.values() if message["name"] == expiry.MESSAGE]


def test_one_for_each_end(pool: Pool, sessions: SessionPool, record: "Callable[[str], VMRecord]") -> None:
    vm = pool.create_vm("web")
    stale = record(vm)
    for ends, now in ((NOW + 9 * DAY, NOW), (NOW + 9 * DAY, NOW + 60), (NOW + 9 * DAY, NOW + 5 * DAY)):
        expiry.warn(sessions, record(vm), ends, now)
        expiry.warn(sessions, stale, ends, now)
    assert len(bodies(sessions)) == 1
    expiry.warn(sessions, record(vm), NOW + 800 * DAY, NOW + 790 * DAY)
    assert len(bodies(sessions)) == 2


def test_a_guest_that_shows_another_end_each_time_is_told_of_once_a_day(
        pool: Pool, sessions: SessionPool, record: "Callable[[str], VMRecord]") -> None:
    vm = pool.create_vm("web")
    for hour in range(36):
        expiry.warn(sessions, record(vm), NOW + 9 * DAY + hour, NOW + hour * 3600)
    assert len(bodies(sessions)) == 2


def test_what_is_carried_in_or_garbled_counts_for_nothing(
        pool: Pool, sessions: SessionPool, record: "Callable[[str], VMRecord]") -> None:
    vm = pool.create_vm("web")
    expiry.warn(sessions, record(vm), NOW + 9 * DAY, NOW)
    carried = record(vm).other_config[keys.TLS_WARNED]
    for number, mark in enumerate((carried, "", "x", record(vm).uuid, " ".join("x" * 9))):
        other = pool.create_vm("other", other_config={keys.TLS_WARNED: mark})
        expiry.warn(sessions, record(other), NOW + 9 * DAY, NOW)
        assert len(bodies(sessions)) == number + 2
