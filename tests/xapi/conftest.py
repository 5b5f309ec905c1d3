from typing import Callable, Iterator

import pytest

from tests.logins import logins, two_hosts
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import Session, SessionPool

ORIGINATOR = "door"


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with two_hosts(tmp_path_factory.mktemp("x")) as made:
        yield made


@pytest.fixture
def login(pool: Pool) -> Iterator[Callable[..., Session]]:
    with logins(pool, ORIGINATOR, 5.0) as login:
        yield login


@pytest.fixture
def session(login: Callable[..., Session]) -> Session:
    return login()


@pytest.fixture
def sessions(pool: Pool) -> Iterator[SessionPool]:
    """Up to three logins at the coordinator."""
    made = SessionPool(lambda: Session.login(pool.coordinator.socket_path, ORIGINATOR, 5.0, 5.0), 3, 5.0)
    yield made
    made.close()
