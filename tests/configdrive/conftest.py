"""A simulated pool with storage, and logins at its hosts."""

from typing import Callable, Iterator

import pytest

from tests.logins import logins, two_hosts
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import Session

ORIGINATOR = "drives"


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Yield a pool of two hosts with storage."""
    with two_hosts(tmp_path_factory.mktemp("x")) as made:
        made.add_storage()
        yield made


@pytest.fixture
def login(pool: Pool) -> Iterator[Callable[..., Session]]:
    with logins(pool, ORIGINATOR, 10.0) as login:
        yield login


@pytest.fixture
def session(login: Callable[..., Session]) -> Session:
    return login()


def sr_of(pool: Pool, name: str) -> str:
    """Return the ref of the storage repository with that name."""
    return next(ref for ref, record in pool.records("SR").items() if record["name_label"] == name)
