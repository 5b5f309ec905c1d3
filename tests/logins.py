"""Simulated pools and logins at their hosts, for the tests of what speaks to XAPI."""

from contextlib import contextmanager
from typing import Any, Callable, Iterator, List

from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import Session


@contextmanager
def two_hosts(directory: object) -> Iterator[Pool]:
    """A coordinator and a member; power operations take no time."""
    with Pool(str(directory), hosts=2, tcp=False) as pool:
        pool.step_delay = pool.migrate_copy = 0.0
        yield pool


@contextmanager
def logins(pool: Pool, originator: str, timeout: float) -> Iterator[Callable[..., Session]]:
    """Logs in at a host (the coordinator); logged out at the end."""
    made: List[Session] = []

    def login(host: Any = None, timeout: float = timeout) -> Session:
        made.append(Session.login((host or pool.coordinator).socket_path, originator, timeout, 5.0))
        return made[-1]

    yield login
    for session in made:
        session.logout()
