"""A pool with containers for the tests of commands, and commands on the world of a module."""

from typing import Any, Iterator

import pytest

from tests.cli.place import VERSION, Place, container, docker_ps
from tests.cli.shown import Commands
from xscontainer import keys
from xscontainer.simulator.xapi import Pool


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("c")
    with Pool(str(directory / "p"), hosts=2, tcp=False) as pool:
        yield Place(pool, directory)


@pytest.fixture
def classic(place: Place) -> str:
    """Return the ref of a VM with a list, on the second host."""
    listed = docker_ps(
        container("hadoop", Image="hadoop:3", State="running", Status="Up 3 hours (healthy)", Created=400,
                  Labels={"com.docker.compose.project": "big"}),
        container("tomcat", Image="tomcat:10", State="paused", Status="Up 3 hours (Paused)", Created=300),
        container("mysql", Image="mysql:8", State="exited", Status="Exited (137) 1 hour ago", Created=200),
        container("apache", Image="httpd:2", State="created", Status="Created", Created=100))
    return place.pool.create_vm("classic", host=place.pool.hosts[1], other_config={
        keys.MONITOR: "True", keys.PS: listed, keys.VERSION: VERSION})


@pytest.fixture
def run(world: Any, capsys: "pytest.CaptureFixture[str]") -> Commands:
    """Return a caller of commands on the hosts of the World that the module's fixture ``world`` makes."""
    return Commands(world, capsys)
