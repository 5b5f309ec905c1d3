"""Helpers for tests on real engines: start one, read its events, survive its restart."""

import gc
import time
import warnings
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.need import need
from xscontainer.engine import api
from xscontainer.engine.events import EventStream
from xscontainer.errors import EngineLost, XSContainerError
from xscontainer.simulator.engines.real import RealEngine


def start(engine: RealEngine) -> None:
    """Ignore the warnings of the docker library, which leaves a socket unclosed while dockerd is not up yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        engine.start()
        gc.collect()


@contextmanager
def running(engine: RealEngine) -> Iterator[RealEngine]:
    """Start the engine if it can run here, and close it."""
    need(not engine.missing(), engine.missing())
    try:
        start(engine)
        yield engine
    finally:
        engine.close()


@contextmanager
def container(engine: RealEngine, name: str) -> Iterator[str]:
    """Run a container that ends at once on SIGTERM; yield its id."""
    identifier = engine.run(name, StopSignal="SIGKILL")
    try:
        yield identifier
    finally:
        engine.do("remove", identifier)
        engine.client().close()


def actions(stream: EventStream, last: str) -> List[str]:
    """Return the actions up to ``last``."""
    seen: List[str] = []
    deadline = time.monotonic() + 20
    while last not in seen:
        event = stream.get(max(0.0, deadline - time.monotonic()))
        assert event is not None, seen
        seen.append(event.action)
    return seen


def state_of(entries: List[Dict[str, Any]], identifier: str) -> str:
    return str([entry["State"] for entry in entries if entry["Id"] == identifier][0])


def until_lost(stream: EventStream) -> None:
    with pytest.raises(EngineLost):
        while True:
            assert stream.get(20) is not None


def lost_and_found(dockerd: RealEngine, engine: api.Engine, end: "Callable[[], None]", error: type) -> None:
    """Check that calls raise ``error`` after ``end``, and that all works once the engine is back."""
    assert issubclass(error, XSContainerError)
    container = dockerd.run("web", start=False)
    stream = engine.events()
    end()
    until_lost(stream)
    with pytest.raises(error):
        engine.containers()
    start(dockerd)
    assert engine.containers()
    with engine.events() as again:
        engine.start(container)
        assert "start" in actions(again, "start")
