"""Messages about certificates that expire: one for each expiry date, at most one a day."""

import time
from typing import Callable, List

import pytest

from xscontainer import keys
from xscontainer.access import expiry
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.connection import CA, CLIENT, ENGINE, End
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi import pool as xapi_pool
from xscontainer.xapi.session import SessionPool

DAY = 86400.0
NOW = time.time()


def bodies(sessions: SessionPool) -> "List[str]":
    found = sessions.run(lambda session: session.xenapi.message.get_all_records())
    return [message["body"] for message in found.values() if message["name"] == expiry.MESSAGE]


def warn(sessions: SessionPool, vm: VMRecord, ends: float, now: float, whose: str = ENGINE) -> None:
    expiry.warn(sessions, sessions.run(xapi_pool.record), vm, [End(whose, ends)], now)


def test_each_expiry_date_gets_one_message(pool: Pool, sessions: SessionPool,
                                           record: "Callable[[str], VMRecord]") -> None:
    vm = pool.create_vm("web")
    stale = record(vm)
    for ends, now in ((NOW + 9 * DAY, NOW), (NOW + 9 * DAY, NOW + 60), (NOW + 9 * DAY, NOW + 5 * DAY)):
        warn(sessions, record(vm), ends, now)
        warn(sessions, stale, ends, now)
    assert len(bodies(sessions)) == 1
    warn(sessions, record(vm), NOW + 800 * DAY, NOW + 790 * DAY)
    assert len(bodies(sessions)) == 2


def test_a_guest_whose_expiry_date_keeps_changing_gets_one_message_a_day(
        pool: Pool, sessions: SessionPool, record: "Callable[[str], VMRecord]") -> None:
    vm = pool.create_vm("web")
    for hour in range(36):
        warn(sessions, record(vm), NOW + 9 * DAY + hour, NOW + hour * 3600)
    assert len(bodies(sessions)) == 2


def test_an_inherited_or_garbled_mark_does_not_suppress_the_message(
        pool: Pool, sessions: SessionPool, record: "Callable[[str], VMRecord]") -> None:
    vm = pool.create_vm("web")
    warn(sessions, record(vm), NOW + 9 * DAY, NOW)
    carried = record(vm).other_config[keys.TLS_WARNED]
    for number, mark in enumerate((carried, "", "x", record(vm).uuid, " ".join("x" * 9))):
        other = pool.create_vm("other", other_config={keys.TLS_WARNED: mark})
        warn(sessions, record(other), NOW + 9 * DAY, NOW)
        assert len(bodies(sessions)) == number + 2


@pytest.mark.parametrize("whose, what, advice", [
    (ENGINE, "The TLS certificate of the container engine of the VM ", "of the same CA"),
    (CA, f"The CA ({keys.TLS_CA_CERT}) behind the TLS certificate of the container engine of the VM ",
     "--ca-cert FILE"),
    (CLIENT, f"The TLS client certificate ({keys.TLS_CLIENT_CERT}) of the VM ", "--client-cert FILE"),
])
def test_the_message_names_the_certificate_and_the_option_that_replaces_it(
        pool: Pool, sessions: SessionPool, record: "Callable[[str], VMRecord]", whose: str, what: str,
        advice: str) -> None:
    vm = pool.create_vm("web", other_config={keys.TLS_CLIENT_KEY: "4a1b2c3d-0000-4000-8000-123456789abc"})
    warn(sessions, record(vm), NOW + 9 * DAY, NOW, whose)
    (body,) = bodies(sessions)
    assert body.startswith(what) and advice in body and "--generate-certs" not in body


def test_the_pools_own_client_certificate_and_ca_get_no_message(
        pool: Pool, sessions: SessionPool, record: "Callable[[str], VMRecord]") -> None:
    uuid = "4a1b2c3d-0000-4000-8000-123456789abc"
    sessions.run(lambda session: session.xenapi.pool.add_to_other_config(
        session.xenapi.pool.get_all()[0], keys.TLS_CLIENT_SECRET, uuid))
    vm = record(pool.create_vm("web", other_config={keys.TLS_CLIENT_KEY: uuid}))
    warn(sessions, vm, NOW + 9 * DAY, NOW, CLIENT)
    assert bodies(sessions) == []
    ends = [End(ENGINE, NOW + 12 * DAY), End(CA, NOW + 12 * DAY), End(CLIENT, NOW + 9 * DAY)]
    expiry.warn(sessions, sessions.run(xapi_pool.record), vm, ends, NOW)
    (body,) = bodies(sessions)
    assert body.startswith("The TLS certificate of the container engine") and "--generate-certs" in body
