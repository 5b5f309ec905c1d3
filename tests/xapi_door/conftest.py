from typing import Any, Callable, Iterator, List

import pytest

from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import Session, SessionPool

ORIGINATOR = "door"


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A coordinator and a member; power operations take no time."""
    with Pool(str(tmp_path_factory.mktemp("x")), hosts=2, tcp=False) as made:
        made.step_delay = made.migrate_copy = 0.0
        yield made


@pytest.fixture
def login(pool: Pool) -> Iterator[Callable[..., Session]]:
    """Logs in at a host (the coordinator); logged out at the end."""
    made: List[Session] = []

    def make(host: Any = None, timeout: float = 5.0) -> Session:
        made.append(Session.login((host or pool.coordinator).socket_path, ORIGINATOR, timeout, 5.0))
        return made[-1]

    yield make
    for session in made:
        session.logout()


@pytest.fixture
def session(login: Callable[..., Session]) -> Session:
    return login()


@pytest.fixture
def sessions(pool: Pool) -> Iterator[SessionPool]:
    """Up to three logins at the coordinator."""
    made = SessionPool(lambda: Session.login(pool.coordinator.socket_path, ORIGINATOR, 5.0, 5.0), 3, 5.0)
    yield made
    made.close()
