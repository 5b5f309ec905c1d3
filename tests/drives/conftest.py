"""A simulated pool with storage, and logins at its hosts."""

from typing import Any, Callable, Iterator, List

import pytest

from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import Session

ORIGINATOR = "drives"


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Two hosts with storage; power operations take no time."""
    with Pool(str(tmp_path_factory.mktemp("x")), hosts=2, tcp=False) as made:
        made.step_delay = made.migrate_copy = 0.0
        made.add_storage()
        yield made


@pytest.fixture
def login(pool: Pool) -> Iterator[Callable[..., Session]]:
    """Logs in at a host (the coordinator); logged out at the end."""
    made: List[Session] = []

    def make(host: Any = None, timeout: float = 10.0) -> Session:
        made.append(Session.login((host or pool.coordinator).socket_path, ORIGINATOR, timeout, 5.0))
        return made[-1]

    yield make
    for session in made:
        session.logout()


@pytest.fixture
def session(login: Callable[..., Session]) -> Session:
    return login()


def sr_of(pool: Pool, name: str) -> str:
    """The storage repository of that name (ref)."""
    return next(ref for ref, record in pool.records("SR").items() if record["name_label"] == name)
