"""Fixtures with engines in short directories, since socket paths have at most 100 characters."""

import shutil
import tempfile
from typing import Iterator

import pytest

from xscontainer.simulator.engines import EmbeddedEngine


@pytest.fixture
def place() -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="xs-")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def engine(place: str) -> Iterator[EmbeddedEngine]:
    with EmbeddedEngine(place + "/e") as running:
        yield running
