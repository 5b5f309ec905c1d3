"""The embedded engine answers as a real dockerd does: with the same codes, texts, fields, types and events."""

import json
import re
import shutil
import tempfile
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest

from tests.need import need
from tests.simulator.engines.http_client import Answer, EventCollector, call
from xscontainer.simulator.engines import EmbeddedEngine, Identity

pytestmark = pytest.mark.real

COMPARED_WITH = "1.41"
"""The API version of the dockerd whose answers the embedded engine follows (Docker 20.10)."""

KNOWN_DIFFERENCES = {
    "start of a missing program": "every program exists in an embedded engine; a real one answers 400",
    "top, ps_args other than aux and -ef": "two fixed sets of columns instead of the machine's ps",
    "pause of a restarting container": "409 always; a real one answers 409 or 500 by the moment",
    "disk usage, networks, volumes, builds": "not served (404): no client of containers asks",
    "exec": "only the commands of simulator.engines.program give output",
    "header Date, Content-Length against chunks": "the embedded engine always knows the length",
    "500 for unreadable filters": "the same code; the words differ for JSON that breaks off later",
    "info: DriverStatus": "depends on the storage driver, which is vfs here",
    "API versions above 1.41": "events without status, id, from and Health in lists; else the fields of 1.41",
}
"""The differences that are intended, and why they do not matter here."""


class Step(NamedTuple):
    """A request; ``until`` is the event after which its effects are complete; empty: at once."""

    method: str
    target: str
    body: Any = None
    until: str = ""


def _image(**more: Any) -> Dict[str, Any]:
    body = {"Image": "busybox:latest", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
    body.update(more)
    return body


_LABELS = {"plain": "1", "ключ": "значение 値", "quote\"": "<&'>", "": "empty"}
_PROBE = {"Test": ["CMD", "false"], "Interval": 200000000, "Timeout": 2000000000, "Retries": 2}

STEPS = [
    Step("GET", "/_ping"), Step("HEAD", "/_ping"), Step("GET", "/version"), Step("GET", "/info"),
    Step("GET", "/v1.10/info"), Step("GET", "/v1.99/info"), Step("GET", "/v1.24/version"), Step("GET", "/vx/info"),
    Step("GET", "/nope"), Step("POST", "/_ping"), Step("GET", "/v1.12/containers/nope/json"),
    # create and its refusals
    Step("POST", "/containers/create?name=one", _image(Labels=_LABELS)),
    Step("POST", "/containers/create?name=one", _image()), Step("POST", "/containers/create?name=x", _image()),
    Step("POST", "/containers/create?name=-bad", _image()), Step("POST", "/containers/create", {}),
    Step("POST", "/containers/create?name=two", _image(Image="nix")),
    Step("POST", "/containers/create?name=two", {"Image": "busybox:latest"}),
    Step("GET", "/containers/one/json"), Step("GET", "/containers/json"), Step("GET", "/containers/json?all=1"),
    # running
    Step("POST", "/containers/one/start"), Step("POST", "/containers/one/start"), Step("POST", "/containers/no/start"),
    Step("GET", "/containers/one/json"), Step("GET", "/containers/one/json?size=1"), Step("GET", "/containers/json"),
    Step("GET", "/containers/json?all=1&size=1"), Step("GET", "/containers/one/top"),
    Step("GET", "/containers/one/top?ps_args=aux"), Step("GET", "/containers/no/top"),
    # paused
    Step("POST", "/containers/one/unpause"), Step("POST", "/containers/one/pause"),
    Step("POST", "/containers/one/pause"), Step("POST", "/containers/one/start"), Step("GET", "/containers/json"),
    Step("GET", "/containers/one/top"), Step("POST", "/containers/one/exec", {"Cmd": ["true"]}),
    Step("GET", "/containers/one/json"), Step("DELETE", "/containers/one"), Step("POST", "/containers/one/unpause"),
    Step("POST", "/containers/one/pause"), Step("POST", "/containers/one/stop?t=0"),
    # stopped
    Step("POST", "/containers/one/stop?t=0"), Step("POST", "/containers/one/pause"),
    Step("POST", "/containers/one/unpause"), Step("GET", "/containers/one/top"), Step("POST", "/containers/one/kill"),
    Step("POST", "/containers/one/exec", {"Cmd": ["true"]}), Step("GET", "/containers/json?all=1"),
    Step("GET", "/containers/one/json"), Step("POST", "/containers/one/restart?t=0"),
    Step("POST", "/containers/one/restart?t=0"), Step("POST", "/containers/no/restart"),
    Step("POST", "/containers/one/kill?signal=HUP"), Step("POST", "/containers/one/kill?signal=NOPE"),
    Step("POST", "/containers/one/kill", until="disconnect"), Step("POST", "/containers/no/kill"),
    Step("POST", "/containers/one/stop?t=x"),
    # names
    Step("POST", "/containers/one/rename?name=uno"), Step("POST", "/containers/uno/rename?name=uno"),
    Step("POST", "/containers/uno/rename?name="), Step("POST", "/containers/uno/rename?name=-x"),
    Step("POST", "/containers/uno/rename?name=marker"), Step("POST", "/containers/no/rename?name=yes"),
    Step("POST", "/containers/uno/start"), Step("DELETE", "/containers/uno"),
    Step("DELETE", "/containers/uno?force=1"), Step("DELETE", "/containers/uno"), Step("GET", "/containers/uno/json"),
    # ends by itself; filters
    Step("POST", "/containers/create?name=end", _image(Cmd=["sh", "-c", "echo out; echo err >&2; exit 3"])),
    Step("POST", "/containers/end/start", until="disconnect"), Step("POST", "/containers/end/wait"),
    Step("GET", "/containers/end/logs"), Step("GET", "/containers/json?all=1"), Step("GET", "/containers/end/json"),
    Step("GET", '/containers/json?filters={"status":["exited"]}'), Step("GET", "/containers/json?filters=bad"),
    Step("GET", '/containers/json?all=1&filters={"foo":["x"]}'),
    Step("GET", '/containers/json?filters={"status":["x"]}'), Step("GET", '/containers/json?filters={"name":["mark"]}'),
    Step("GET", "/containers/json?limit=1"), Step("GET", "/containers/json?limit=x"),
    Step("DELETE", "/containers/end?v=1"),
    # health
    Step("POST", "/containers/create?name=sick", _image(Healthcheck=_PROBE)),
    Step("POST", "/containers/sick/start", until="health_status: unhealthy"),
    Step("POST", "/containers/sick/pause"), Step("GET", "/containers/sick/json"),
    Step("POST", "/containers/sick/unpause"), Step("DELETE", "/containers/sick?force=1", until="destroy"),
    # images
    Step("GET", "/images/json"), Step("GET", "/images/nope/json"), Step("GET", "/events?since=x"),
    # API versions
    Step("GET", "/v1.24/containers/json?all=1"), Step("GET", "/v1.41/containers/json?all=1"),
]


# An event: its keys, its action, its attributes.
Told = Tuple[Tuple[str, ...], str, Dict[str, str]]


class Run(NamedTuple):
    """The answers of one engine to all steps."""

    answers: List[Answer]
    events: List[List[Dict[str, Any]]]


def _play(path: str) -> Run:
    call(path, "POST", "/containers/create?name=marker", _image())
    call(path, "POST", "/containers/marker/start")
    answers, events = [], []
    collector = EventCollector(path)
    try:
        for step in STEPS:
            answers.append(call(path, step.method, step.target.replace('"', "%22"), step.body))
            seen = collector.take_until(step.until, _named(step)) if step.until else []
            # This call always makes an event. All events before it belong to the step.
            call(path, "GET", "/containers/marker/top")
            events.append(seen + collector.take_until("top", "marker")[:-1])
    finally:
        collector.close()
    return Run(answers, events)


def _named(step: Step) -> str:
    # Network events name the container by id, all others by name.
    return "none" if step.until == "disconnect" else step.target.split("/")[2].split("?")[0]


@pytest.fixture(scope="module")
def runs() -> Iterator[Tuple[Run, Run]]:
    from xscontainer.simulator.engines.real import RealEngine

    need(not RealEngine.missing(), RealEngine.missing() or "dockerd")
    directory = tempfile.mkdtemp(prefix="xs-")
    try:
        with RealEngine(directory + "/real") as real:
            about = call(real.socket_path, "GET", "/version").json()
            need(about["ApiVersion"] == COMPARED_WITH, f"a dockerd of API version {COMPARED_WITH}")
            identity = Identity(version=about["Version"], api_version=about["ApiVersion"],
                                min_api_version=about["MinAPIVersion"], git_commit=about["GitCommit"])
            with EmbeddedEngine(directory + "/embedded", identity=identity) as embedded:
                yield _play(real.socket_path), _play(embedded.socket_path)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _ids() -> List[str]:
    return [f"{index:02d} {step.method} {step.target}"[:70] for index, step in enumerate(STEPS)]


EACH = pytest.mark.parametrize("index", range(len(STEPS)), ids=_ids())


@EACH
def test_status_codes_are_those_of_a_real_engine(runs: Tuple[Run, Run], index: int) -> None:
    real, embedded = (run.answers[index] for run in runs)
    assert embedded.status == real.status, (real.body[:300], embedded.body[:300])


@EACH
def test_refusals_have_the_text_of_a_real_engine(runs: Tuple[Run, Run], index: int) -> None:
    real, embedded = (run.answers[index] for run in runs)
    if real.status >= 400:
        assert _plain(embedded.body.decode()) == _plain(real.body.decode())


@EACH
def test_answers_have_the_fields_and_types_of_a_real_engine(runs: Tuple[Run, Run], index: int) -> None:
    real, embedded = (run.answers[index] for run in runs)
    if real.status < 400 and real.headers.get("Content-Type") == "application/json":
        shapes = [_shape(answer.json()) for answer in (real, embedded)]
        for shape in shapes:
            if isinstance(shape, dict):
                shape.pop("DriverStatus", None)
        assert shapes[1] == shapes[0]
    elif real.status < 400:
        assert embedded.body == real.body


@EACH
def test_headers_are_those_of_a_real_engine(runs: Tuple[Run, Run], index: int) -> None:
    real, embedded = ({key: value for key, value in run.answers[index].headers.items()
                       if key not in ("Date", "Content-Length", "Transfer-Encoding", "Server")} for run in runs)
    assert embedded == real


@EACH
def test_events_are_those_of_a_real_engine(runs: Tuple[Run, Run], index: int) -> None:
    real, embedded = ([_event(event) for event in run.events[index]] for run in runs)
    if any(action.startswith("health_status") for _, action, _ in real):
        # Probes go on while the events are read, so that their number varies.
        real, embedded = _once(real), _once(embedded)
    elif {"unpause", "die"} <= {action for _, action, _ in real}:
        # A paused container that is killed thaws and dies at once: a real engine reports both in either order.
        real, embedded = sorted(real, key=str), sorted(embedded, key=str)
    elif STEPS[index].target.startswith("/containers/sick"):
        real, embedded = ([event for event in events if "exec" not in event[1]] for events in (real, embedded))
    assert embedded == real


def test_list_values_are_those_of_a_real_engine(runs: Tuple[Run, Run]) -> None:
    for index, step in enumerate(STEPS):
        if "/containers/json" in step.target and runs[0].answers[index].status == 200:
            real, embedded = (
                [(entry["Names"], entry["State"], re.sub(r"(Up|\)) .*?( \(| ago|$)", r"\1 TIME\2", entry["Status"]),
                  entry["Command"], entry["Image"], entry["Labels"], entry["Ports"])
                 for entry in run.answers[index].json()] for run in runs)
            assert embedded == real, step


def _plain(text: str) -> str:
    return re.sub(r"[0-9a-f]{64}", "ID", text)


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        shapes = sorted({json.dumps(_shape(inner), sort_keys=True) for inner in value})
        return shapes
    return type(value).__name__


def _once(events: List[Told]) -> List[Told]:
    ordered = sorted(events, key=str)
    return [event for index, event in enumerate(ordered) if event not in ordered[:index]]


def _event(event: Dict[str, Any]) -> Told:
    attributes = {key: _plain(value) for key, value in event["Actor"]["Attributes"].items()}
    for key in ("time", "timeNano"):
        assert isinstance(event[key], int)
    return tuple(event), event["Action"], attributes
