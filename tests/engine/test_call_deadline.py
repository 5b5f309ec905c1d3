"""One deadline for a whole plugin call: waiting for XAPI or a guest ends with it."""

import contextlib
import json
import math
import socket
import threading
import time
from typing import Any, Dict, Iterator, List

import paramiko
import pytest

from tests.engine.peers import Script, Server, SocketConnection, http_answer
from xscontainer.core import current_call
from xscontainer.engine import api
from xscontainer.engine.ssh import connection as ssh
from xscontainer.errors import ContainerStopping, EngineTimeout, GuestSilent, XapiUnavailable, XSContainerError
from xscontainer.settings import EngineSettings, GuestSettings
from xscontainer.verbs import containers
from xscontainer.xapi.endpoint import LocalSocket
from xscontainer.xapi.session import Session, SessionPool

LONG = 3600.0  # seconds of the timeouts in the settings; a test that waits for them does not end
SHORT = 0.3  # seconds of the call
ID = "a" * 64


@pytest.fixture(autouse=True)
def _serving() -> Iterator[None]:
    with current_call.serving("an id", SHORT):
        yield


def silent_at(path: str) -> socket.socket:
    """Accept connections and send nothing."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(5)
    return listener


def test_a_deadline_ends_with_its_block_and_belongs_to_its_thread() -> None:
    assert 0 < current_call.remaining(LONG) <= SHORT and current_call.call_id() == "an id"
    seen: List[Any] = []
    thread = threading.Thread(target=lambda: seen.append((current_call.remaining(LONG), current_call.call_id())))
    thread.start()
    thread.join()
    assert seen == [(LONG, "")]
    with current_call.serving("another", math.inf):
        assert current_call.remaining(LONG) == LONG
        with current_call.reserving(5.0):
            assert current_call.remaining(LONG) == LONG
    with current_call.reserving(5.0):
        assert current_call.remaining(LONG) == current_call.LEAST_SECONDS
    assert current_call.call_id() == "an id" and current_call.remaining(LONG) <= SHORT


def test_a_call_to_xapi_observes_the_deadline(tmp_path: Any) -> None:
    with contextlib.closing(silent_at(str(tmp_path / "x"))):
        with pytest.raises(XapiUnavailable):
            Session.login(str(tmp_path / "x"), "test", LONG, LONG)


def test_waiting_for_a_pooled_session_observes_the_deadline() -> None:
    pool = SessionPool(lambda: Session(LocalSocket("/nonesuch"), LONG), 1, LONG)
    with pool.lease(), pytest.raises(XapiUnavailable, match="in use"), pool.lease():
        pass


def test_a_connection_to_a_silent_guest_observes_the_deadline(private_key: paramiko.PKey) -> None:
    settings = GuestSettings(connect_timeout=LONG, handshake_timeout=LONG, login_timeout=LONG)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        target = ssh.Target(("127.0.0.1",), listener.getsockname()[1], "core", "/run/docker.sock")
        with pytest.raises(GuestSilent):
            ssh.connect(target, private_key, settings, EngineSettings())


def test_a_request_to_a_silent_engine_observes_the_deadline(tmp_path: Any) -> None:
    path = str(tmp_path / "e")
    with contextlib.closing(silent_at(path)), contextlib.closing(SocketConnection(path)) as connection:
        with pytest.raises(EngineTimeout):
            api.Engine(connection, EngineSettings(request_timeout=LONG)).version()


# --- a container that ends slowly -----------------------------------------------------


class OneEngine:
    """The part of a context that the verbs for a container need."""

    def __init__(self, engine: api.Engine) -> None:
        self._engine = engine

    def engine(self, vm_uuid: str) -> Any:
        @contextlib.contextmanager
        def engine() -> Iterator[api.Engine]:
            yield self._engine
        return engine()

    def acting(self, vm_uuid: str, container: str, action: str) -> Any:
        return contextlib.ExitStack()

    def vm(self, vm_uuid: str) -> Any:
        class VM:
            label = "db"
        return VM()


@contextlib.contextmanager
def slow_container(path: str, state: str, **more: Any) -> Iterator[Any]:
    """Start an engine that answers everything except stop and restart."""
    released = threading.Event()

    def wait(peer: socket.socket, head: str) -> None:
        released.wait(60)

    listed: List[Dict[str, Any]] = [{"Id": ID, "Names": ["/web"], "State": state}] if state else []
    script = Script({"/stop": wait, "/restart": wait, "/containers/json": http_answer(json.dumps(listed).encode()),
                     "/json": http_answer(json.dumps({"Id": ID, "Config": more}).encode())})
    with Server(script, path), contextlib.closing(SocketConnection(path)) as connection:
        engine = api.Engine(connection, EngineSettings(request_timeout=LONG))
        try:
            with current_call.serving("an id", containers.CHECKING + SHORT):
                yield OneEngine(engine)
        finally:
            released.set()
            engine.close()


@pytest.mark.parametrize("verb", ["stop", "restart"])
@pytest.mark.parametrize("container", ["web", ID, ID[:12]])
def test_a_container_that_ends_slowly_is_not_reported_as_an_engine_fault(tmp_path: Any, verb: str,
                                                                         container: str) -> None:
    with slow_container(str(tmp_path / "e"), "running", StopTimeout=180) as context:
        with pytest.raises(ContainerStopping, match="db .*180 s.* goes on") as caught:
            getattr(containers, verb)(context, "uuid", container)
    assert caught.value.code == "CONTAINER_STOPPING"


@pytest.mark.parametrize("stop_timeout", [None, True, "180", -1, 10 ** 30])
def test_an_invalid_stop_timeout_is_not_reported(tmp_path: Any, stop_timeout: Any) -> None:
    with slow_container(str(tmp_path / "e"), "running", StopTimeout=stop_timeout) as context:
        with pytest.raises(ContainerStopping) as caught:
            containers.stop(context, "uuid", "web")
    assert "own stop time" not in str(caught.value)


@pytest.mark.parametrize("state", ["exited", "dead", ""])
def test_a_container_that_ended_meanwhile_counts_as_stopped(tmp_path: Any, state: str) -> None:
    with slow_container(str(tmp_path / "e"), state) as context:
        assert containers.stop(context, "uuid", "web") == "True"


def test_an_engine_that_answers_nothing_is_reported_as_such(tmp_path: Any) -> None:
    path = str(tmp_path / "e")
    with contextlib.closing(silent_at(path)), contextlib.closing(SocketConnection(path)) as connection:
        engine = api.Engine(connection, EngineSettings(request_timeout=LONG))
        began = time.monotonic()
        with current_call.serving("an id", containers.CHECKING + SHORT), pytest.raises(XSContainerError) as caught:
            containers.stop(OneEngine(engine), "uuid", "web")  # type: ignore[arg-type]
        assert type(caught.value) is EngineTimeout
        assert time.monotonic() - began < LONG
        engine.close()
