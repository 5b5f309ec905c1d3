"""Fixtures for tests of the simulated pool."""

from typing import Any, Iterator

import pytest

from xscontainer.simulator.xapi import ROOT_PASSWORD, Pool


@pytest.fixture
def furnished(tmp_path: Any) -> Iterator[Pool]:
    """Two hosts with storage; power operations take no time."""
    with Pool(str(tmp_path), hosts=2) as made:
        made.step_delay = 0.0
        made.migrate_copy = made.migrate_lag = 0.0
        made.add_storage()
        yield made


@pytest.fixture
def client(furnished: Pool) -> Iterator[Any]:
    """Return a session of PyPI's XenAPI over TCP."""
    library = pytest.importorskip("XenAPI")
    session = library.Session("http://127.0.0.1:{}/".format(furnished.coordinator.tcp_port))
    session.xenapi.login_with_password("root", ROOT_PASSWORD, "1.0", "test")
    yield session
    session.xenapi.session.logout()
    session("close")()
