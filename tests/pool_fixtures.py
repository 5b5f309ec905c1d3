"""Fixtures of a simulated pool, its sessions and its VMs' records; a conftest.py imports them."""

from typing import Any, Callable, Iterator, List

import pytest

from xscontainer.core.vm_record import VMRecord
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

ORIGINATOR = "watch"  # of all sessions that the fixtures make


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A pool of a coordinator and a member; power operations are instantaneous, a migration takes 0.1 s."""
    with Pool(str(tmp_path_factory.mktemp("w")), hosts=2, tcp=False) as made:
        made.step_delay = 0.001
        made.migrate_copy, made.migrate_lag = 0.05, 0.1
        yield made


@pytest.fixture
def make_sessions(pool: Pool) -> Iterator[Callable[..., SessionPool]]:
    """Return a function that makes sessions of a host, by default of the coordinator."""
    made: List[SessionPool] = []

    def make(host: Any = None, timeout: float = 5.0) -> SessionPool:
        path = (host or pool.coordinator).socket_path
        made.append(SessionPool(lambda: Session.login(path, ORIGINATOR, timeout, timeout), 3, timeout))
        return made[-1]

    yield make
    for sessions in made:
        sessions.close()


@pytest.fixture
def sessions(make_sessions: Callable[..., SessionPool]) -> SessionPool:
    return make_sessions()


@pytest.fixture
def record(pool: Pool, sessions: SessionPool) -> Callable[[str], VMRecord]:
    """Return a function that reads the current record of a VM from XAPI."""
    return lambda ref: sessions.run(lambda session: xapi_vm.record(session, pool.vm(ref)["uuid"]))
