"""The embedded engine on its own: versions, states, streams, life and speed."""

import contextlib
import http.client
import os
import socket
import threading
import time
from typing import Any, Dict, List, Tuple

import docker
import pytest

from tests.simulator.engines.http_client import EventStream, UnixConnection, call
from xscontainer.simulator.engines import Acceptor, EmbeddedEngine, Identity, SimulatorError
from xscontainer.simulator.engines.container import human_duration


@pytest.mark.parametrize("api, minimum, asked, status, message", [
    ("1.24", "1.12", "1.41", 400,
     "client is newer than server (client API version: 1.41, server API version: 1.24)"),
    ("1.41", "1.12", "1.42", 400, "client version 1.42 is too new. Maximum supported API version is 1.41"),
    ("1.52", "1.44", "1.41", 400, "client version 1.41 is too old. Minimum supported API version is 1.44, please "
                                  "upgrade your client to a newer version"),
    ("1.52", "1.44", "1.44", 200, ""),
    ("1.30", "1.12", "1.31", 200, ""),
])
def test_version_is_negotiated_as_the_engine_of_that_age_does(
    place: str, api: str, minimum: str, asked: str, status: int, message: str
) -> None:
    with EmbeddedEngine(place + "/e", identity=Identity(api_version=api, min_api_version=minimum)) as engine:
        answer = call(engine.socket_path, "GET", f"/v{asked}/containers/json")
        assert answer.status == status
        if message:
            assert answer.json() == {"message": message}


def test_an_engine_of_api_1_24_reports_fewer_fields(place: str) -> None:
    with EmbeddedEngine(place + "/e", identity=Identity("1.12.6", "1.24")) as engine:
        about = call(engine.socket_path, "GET", "/version")
        assert "Api-Version" not in about.headers
        assert not {"MinAPIVersion", "Components", "Platform"} & set(about.json())
        assert call(engine.socket_path, "HEAD", "/_ping").status == 404


@pytest.mark.parametrize("version, has", [("/v1.44", True), ("/v1.51", True), ("/v1.52", False), ("", False)])
def test_new_versions_drop_the_deprecated_event_fields(place: str, version: str, has: bool) -> None:
    with EmbeddedEngine(place + "/e", identity=Identity("29.0.0", "1.52", "1.44")) as engine:
        engine.run("one")
        with EventStream(engine.socket_path, version=version) as stream:
            engine.do("pause", "one")
            event = stream.next_event()
        assert event is not None and event["Action"] == "pause" and event["Actor"]["Attributes"]["name"] == "one"
        assert {"status", "id", "from"} <= set(event) if has else not {"status", "id", "from"} & set(event)


def test_health_is_in_lists_from_1_52_on(place: str) -> None:
    with EmbeddedEngine(place + "/e", identity=Identity("29.0.0", "1.52", "1.44")) as engine:
        engine.do("health", engine.run("sick"), status="unhealthy")
        new, old = (call(engine.socket_path, "GET", f"/v{version}/containers/json").json()[0]
                    for version in ("1.52", "1.51"))
        assert new["Health"] == {"Status": "unhealthy", "FailingStreak": 0} and "Health" not in old
        assert old["Status"] == "Up Less than a second (unhealthy)"


STATES = [("created", "Created"), ("running", "Up Less than a second"), ("paused", "Up Less than a second (Paused)"),
          ("restarting", "Restarting (7) Less than a second ago"), ("removing", "Removal In Progress"),
          ("exited", "Exited (7) Less than a second ago"), ("dead", "Dead")]


@pytest.mark.parametrize("state, status", STATES)
def test_a_container_can_be_put_into_every_state(engine: EmbeddedEngine, state: str, status: str) -> None:
    engine.run("one", state=state, exit_code=7)
    entry, = call(engine.socket_path, "GET", "/containers/json?all=1").json()
    assert (entry["State"], entry["Status"]) == (state, status)
    record = call(engine.socket_path, "GET", "/containers/one/json").json()
    assert record["State"]["Status"] == state


def test_a_restart_policy_restarts_a_container_and_gives_up(engine: EmbeddedEngine) -> None:
    policy = {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}
    with EventStream(engine.socket_path, '?filters={"event":["start","die"]}') as stream:
        engine.run("loop", ["false"], HostConfig=policy)
        events = [stream.next_event() for _ in range(6)]
    assert [event["Action"] for event in events if event] == ["start", "die"] * 3
    assert engine.list()[0]["State"] == "exited"


def test_stop_waits_for_a_command_that_ignores_the_signal(engine: EmbeddedEngine) -> None:
    engine.run("deaf", ["sleep", "1000"])
    engine.run("server", ["nginx"])
    began = time.monotonic()
    assert call(engine.socket_path, "POST", "/containers/server/stop?t=5").status == 204
    assert time.monotonic() - began < 4.0
    assert call(engine.socket_path, "POST", "/containers/deaf/stop?t=1").status == 204
    assert 1.0 <= time.monotonic() - began < 9.0
    codes = {entry["Names"][0]: entry["Status"].split(")")[0] for entry in engine.list()}
    assert codes == {"/deaf": "Exited (137", "/server": "Exited (0"}


def test_past_events_are_repeated_and_filtered(engine: EmbeddedEngine) -> None:
    for name in ("one", "two"):
        engine.run(name, Labels={"who": name})
    now = time.time() + 1
    for query, count in (("", 6), ('&filters={"type":["container"]}', 4), ('&filters={"container":["one"]}', 2),
                         ('&filters={"label":["who=two"],"event":["start"]}', 1), ('&filters={"type":["image"]}', 0)):
        with EventStream(engine.socket_path, f"?since=0&until={now - 1:.9f}{query}") as stream:
            events: List[Dict[str, Any]] = []
            for event in iter(stream.next_event, None):
                assert event is not None
                events.append(event)
        assert len(events) == count, query
        assert [event["timeNano"] for event in events] == sorted({event["timeNano"] for event in events})


def test_an_event_stream_ends_at_until(engine: EmbeddedEngine) -> None:
    with EventStream(engine.socket_path, f"?until={time.time() + 0.3:.9f}") as stream:
        began = time.monotonic()
        assert stream.next_event() is None
        assert time.monotonic() - began < 2.0
    assert engine.life.events.listeners == 0


def test_a_listener_that_left_is_forgotten_at_once(engine: EmbeddedEngine) -> None:
    with EventStream(engine.socket_path):
        pass
    _soon(lambda: engine.life.events.listeners == 0 and engine.connections == 0)


def test_a_listener_that_reads_nothing_loses_its_connection(engine: EmbeddedEngine) -> None:
    """The client sees the end of the stream, and does not wait for events that never come."""
    engine.run("one")
    with EventStream(engine.socket_path) as stream:
        number = 0
        while engine.life.events.listeners:
            engine.do(("pause", "unpause")[number % 2], "one")
            number += 1
            assert number < 100000
        with pytest.raises((http.client.IncompleteRead, ValueError, AssertionError)):
            while True:
                assert stream.next_event() is not None


def test_requests_are_counted_by_verb(engine: EmbeddedEngine) -> None:
    engine.run("one")
    call(engine.socket_path, "GET", "/v1.41/containers/json")
    call(engine.socket_path, "POST", "/containers/one/pause")
    call(engine.socket_path, "GET", "/what")
    assert engine.requests == {"GET /containers/json": 1, "POST /containers/{}/pause": 1, "GET ?": 1}


def test_names_commands_and_labels_may_be_in_any_script(engine: EmbeddedEngine) -> None:
    command = ["sh", "-c", "echo '<&>\u0001\u202eעברית\U0001f433\n'"]
    engine.run("odd.Name_1-", command, image="реестр/образ:тег", Labels={"": "", "a b": "\x00\x1b"})
    with contextlib.closing(docker.APIClient("unix://" + engine.socket_path, version="auto")) as client:
        entry, = client.containers(all=True)
        assert entry["Command"] == "sh -c '" + command[2] + "'" and entry["Image"] == "реестр/образ:тег"
        assert entry["Labels"] == {"": "", "a b": "\x00\x1b"}
        assert client.inspect_container("odd.Name_1-")["Args"] == command[1:]


def test_docker_s_own_client_works_with_the_embedded_engine(engine: EmbeddedEngine) -> None:
    engine.add_image("nginx:1")
    with contextlib.closing(docker.APIClient("unix://" + engine.socket_path, version="auto")) as client:
        made = client.create_container("nginx:1", ["sh", "-c", "echo out; echo err >&2; exit 4"], name="web")
        client.start(made["Id"])
        assert client.wait("web")["StatusCode"] == 4
        assert client.logs("web", stdout=True, stderr=False) == b"out\n" and client.logs("web") == b"out\nerr\n"
        client.rename("web", "shop")
        with pytest.raises(docker.errors.NotFound):
            client.inspect_container("web")
        assert client.info()["Containers"] == 1 and client.images()[1]["RepoTags"] == ["nginx:1"]
        client.remove_container("shop")
        engine.run("box")
        run = client.exec_create("box", ["echo", "hello"])["Id"]
        assert client.exec_start(run) == b"hello\n" and client.exec_inspect(run)["ExitCode"] == 0
        assert client.top("box")["Titles"][-1] == "CMD"


def test_an_engine_can_be_stopped_started_killed_and_restarted(engine: EmbeddedEngine) -> None:
    engine.run("one")
    with EventStream(engine.socket_path) as stream:
        engine.kill()
        assert stream.next_event() is None
    assert os.path.exists(engine.socket_path)
    with pytest.raises(ConnectionRefusedError):
        call(engine.socket_path, "GET", "/_ping")
    engine.start()
    assert engine.list()[0]["State"] == "running"
    engine.restart()
    assert call(engine.socket_path, "GET", "/containers/json?all=1").json()[0]["State"] == "exited"
    engine.stop()
    assert not os.path.exists(engine.socket_path)


def test_a_restart_policy_survives_a_restart_of_the_engine(engine: EmbeddedEngine) -> None:
    engine.run("kept", ["nginx"], HostConfig={"RestartPolicy": {"Name": "always"}})
    engine.run("stopped", ["nginx"], HostConfig={"RestartPolicy": {"Name": "always"}})
    engine.run("plain", ["nginx"])
    engine.do("stop", "stopped")
    engine.restart()
    states = {entry["Names"][0]: entry["State"] for entry in engine.list()}
    assert states == {"/kept": "running", "/stopped": "exited", "/plain": "exited"}


def test_a_frozen_engine_answers_after_thaw(engine: EmbeddedEngine) -> None:
    engine.freeze()
    with pytest.raises(socket.timeout):
        call(engine.socket_path, "GET", "/_ping", timeout=0.2)
    engine.thaw()
    assert call(engine.socket_path, "GET", "/_ping").body == b"OK"


def test_close_removes_the_socket_and_the_directory(place: str) -> None:
    engine = EmbeddedEngine(place + "/e")
    engine.start()
    streams = [EventStream(engine.socket_path) for _ in range(3)]
    engine.close()
    engine.close()
    assert not os.path.exists(place + "/e")
    assert [thread for thread in threading.enumerate() if thread.name.startswith("simulator")] == []
    for stream in streams:
        stream.__exit__()


def test_a_socket_path_that_is_too_long_is_refused(place: str) -> None:
    with pytest.raises(SimulatorError, match="longer than 100"):
        EmbeddedEngine(place + "/" + "x" * 100)


def _timed_lists(path: str, count: int) -> Tuple[int, float]:
    """Return the bytes of a list and the median seconds for it, over one connection."""
    connection = UnixConnection(path)
    times, size = [], 0
    for _ in range(count):
        began = time.perf_counter()
        connection.request("GET", "/v1.41/containers/json?all=1")
        size = len(connection.getresponse().read())
        times.append(time.perf_counter() - began)
    connection.close()
    return size, sorted(times)[count // 2]


def test_a_list_of_1000_containers_is_quick(engine: EmbeddedEngine) -> None:
    for number in range(1000):
        engine.run(f"c{number}", Labels={"com.docker.compose.service": f"service-{number}"})
    size, seconds = _timed_lists(engine.socket_path, 5)
    assert size > 500000 and seconds < 1.5


def test_100_idle_engines_need_one_thread(place: str) -> None:
    acceptor = Acceptor()
    before = threading.active_count()
    engines = [EmbeddedEngine(f"{place}/{number}", acceptor=acceptor) for number in range(100)]
    try:
        for engine in engines:
            engine.start()
            engine.run("one")
        assert threading.active_count() == before + 1
        assert call(engines[99].socket_path, "GET", "/_ping").status == 200
    finally:
        for engine in engines:
            engine.close()
        acceptor.close()


@pytest.mark.parametrize("seconds, words", [
    (0.4, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (119, "About a minute"),
    (120, "2 minutes"), (3600, "About an hour"), (7200, "2 hours"), (172800, "2 days"), (14 * 86400, "2 weeks"),
    (60 * 86400, "2 months"), (730 * 86400, "2 years"),
])
def test_ages_are_worded_as_engines_do(seconds: float, words: str) -> None:
    assert human_duration(seconds) == words


def _soon(condition: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)
