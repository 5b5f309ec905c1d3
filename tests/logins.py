"""Simulated pools and logins at their hosts, for tests of code that calls XAPI."""

from contextlib import contextmanager
from typing import Any, Callable, Iterator, List

from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import Session


@contextmanager
def two_hosts(directory: object) -> Iterator[Pool]:
    """Yield a pool with a coordinator and a member, in which power operations take no time."""
    with Pool(str(directory), hosts=2, tcp=False) as pool:
        pool.step_delay = pool.migrate_copy = 0.0
        yield pool


@contextmanager
def logins(pool: Pool, originator: str, timeout: float) -> Iterator[Callable[..., Session]]:
    """Yield a function that logs in at a host (default: the coordinator); log all out at the end."""
    made: List[Session] = []

    def login(host: Any = None, timeout: float = timeout) -> Session:
        made.append(Session.login((host or pool.coordinator).socket_path, originator, timeout, 5.0))
        return made[-1]

    yield login
    for session in made:
        session.logout()
