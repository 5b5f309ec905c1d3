"""The logs and stats of embedded engines: compared with a real dockerd and podman, and as our own code reads them."""

import functools
import re
import shutil
import tempfile
import threading
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest

from tests.engine.conftest import ENGINE
from tests.engine.peers import engine_at
from tests.need import need
from tests.simulator.engines.http_client import Answer, call
from tests.simulator.engines.test_like_real import COMPARED_WITH, _image, _plain, _shape
from tests.waiting import until
from xscontainer.core.log_follow import Position
from xscontainer.engine.log_follower import follow_logs
from xscontainer.engine.logs import LogOptions, read_logs
from xscontainer.engine.stats import Stats
from xscontainer.errors import LogsUnreadable
from xscontainer.simulator.engines import EmbeddedEngine, Identity
from xscontainer.simulator.engines.container import Load
from xscontainer.simulator.engines.log_api import write

PODMAN = Identity(version="4.3.1", product="Podman Engine")
WRITES = ["sh", "-c", "echo one; echo two >&2; echo three"]
MADE: Dict[str, Any] = {
    "writes": _image(Cmd=WRITES), "terminal": _image(Cmd=WRITES, Tty=True), "silent": _image(Cmd=["true"]),
    "none": _image(Cmd=WRITES, HostConfig={"NetworkMode": "none", "LogConfig": {"Type": "none", "Config": {}}}),
    "made": _image(), "runs": _image()}
NEVER_STARTED = ("made",)
BOTH = "stdout=1&stderr=1"
TARGETS = [
    "writes/logs", f"writes/logs?{BOTH}", f"writes/logs?{BOTH}&timestamps=1", f"writes/logs?{BOTH}&tail=2",
    f"writes/logs?{BOTH}&tail=0", f"writes/logs?{BOTH}&tail=x", f"writes/logs?{BOTH}&tail=-1", "writes/logs?stderr=1",
    f"writes/logs?{BOTH}&follow=1", f"writes/logs?{BOTH}&since=99999999999", f"writes/logs?{BOTH}&until=5.5",
    f"writes/logs?{BOTH}&since=x", f"writes/logs?{BOTH}&until=x", f"terminal/logs?{BOTH}&timestamps=1",
    "terminal/logs?stdout=1", "terminal/logs?stderr=1", f"silent/logs?{BOTH}", f"made/logs?{BOTH}&follow=1",
    f"none/logs?{BOTH}", "none/logs", f"nope/logs?{BOTH}",
    "runs/stats?stream=false&one-shot=true", "runs/stats?stream=false", "made/stats?stream=false&one-shot=true",
    "writes/stats?stream=0", "nope/stats?stream=false", "runs/stats?stream=1&one-shot=1"]


class Pair(NamedTuple):
    """The answers of a real engine and of an embedded one to the same request."""

    real: Answer
    embedded: Answer


def _answers(path: str) -> List[Answer]:
    for name, body in MADE.items():
        call(path, "POST", f"/containers/create?name={name}", body)
        if name not in NEVER_STARTED:
            call(path, "POST", f"/containers/{name}/start")
    for name in MADE:
        if name not in (*NEVER_STARTED, "runs"):
            call(path, "POST", f"/containers/{name}/wait")
    return [call(path, "GET", "/containers/" + target) for target in TARGETS]


@pytest.fixture(scope="module")
def pairs() -> Iterator[Dict[str, Pair]]:
    from xscontainer.simulator.engines.real import RealEngine

    need(not RealEngine.missing(), RealEngine.missing() or "dockerd")
    directory = tempfile.mkdtemp(prefix="xs-")
    try:
        with RealEngine(directory + "/real") as real, EmbeddedEngine(directory + "/embedded") as embedded:
            version = call(real.socket_path, "GET", "/version").json()["ApiVersion"]
            need(version == COMPARED_WITH, f"a dockerd of API version {COMPARED_WITH}")
            yield {target: Pair(*answers) for target, answers in zip(TARGETS, zip(
                _answers(real.socket_path), _answers(embedded.socket_path)))}
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _without_times(body: bytes) -> List[bytes]:
    """Return the lines in any order: two streams may be written at once."""
    body = re.sub(rb"20[0-9T:-]{17}\.[0-9]{9}Z", b"STAMP", body)
    return sorted(body.splitlines(True))


@pytest.mark.real
@pytest.mark.parametrize("target", TARGETS)
def test_an_embedded_engine_answers_as_dockerd_does(pairs: Dict[str, Pair], target: str) -> None:
    real, embedded = pairs[target]
    assert embedded.status == real.status, (real.body[:300], embedded.body[:300])
    assert embedded.headers.get("Content-Type") == real.headers.get("Content-Type")
    if real.status >= 400:
        assert _plain(embedded.body.decode()) == _plain(real.body.decode())
    elif "/logs" in target and "tail=2" in target:
        assert len(embedded.body.split(b"\n")) == len(real.body.split(b"\n"))
    elif "/logs" in target:
        assert _without_times(embedded.body) == _without_times(real.body)
    else:
        assert _of_stats(embedded.json()) == _of_stats(real.json())


def _of_stats(answer: Dict[str, Any]) -> Any:
    return _shape({**answer, "name": answer["name"], "percpu": len(
        answer["cpu_stats"]["cpu_usage"].get("percpu_usage", [])) > 0})


@pytest.mark.real
def test_an_embedded_podman_has_the_stats_of_a_real_one(place: str) -> None:
    from xscontainer.simulator.engines.podman import PodmanEngine

    need(not PodmanEngine.missing(), PodmanEngine.missing())
    shapes = []
    with PodmanEngine(place + "/p") as real, EmbeddedEngine(place + "/e", identity=PODMAN) as embedded:
        for engine in (real, embedded):
            engine.run("runs")
            engine.run("made", start=False)
            answer = call(engine.socket_path, "GET", "/v1.41/libpod/containers/stats?stream=false")
            found = {entry["Name"]: _numbers(_shape(entry)) for entry in answer.json()["Stats"]}
            shapes.append((answer.status, answer.json()["Error"], found))
    assert shapes[0] == shapes[1]


def _numbers(shape: Dict[str, Any]) -> Dict[str, Any]:
    """Go writes a whole float without its point."""
    return {key: "int" if value == "float" else value for key, value in shape.items()}


def test_only_podman_has_stats_of_its_own(engine: EmbeddedEngine) -> None:
    assert call(engine.socket_path, "GET", "/v1.41/libpod/containers/stats").status == 404


# --- as our own code reads them


@pytest.mark.parametrize("tty", [False, True], ids=["frames", "terminal"])
def test_the_output_of_a_container_is_read(engine: EmbeddedEngine, tty: bool) -> None:
    identifier = engine.run("web", Tty=tty)
    long = "x" * 30000
    write(engine.life, identifier, f"one\n{long}\nlast")
    with engine_at(engine.socket_path, ENGINE) as reader:
        found = read_logs(reader, identifier)
        assert [line.text for line in found.lines] == ["one", long, "last"]
        assert read_logs(reader, "web", LogOptions(tail=1)).lines == found.lines[-1:]


def test_a_log_is_followed_live_over_reopening_to_the_end(engine: EmbeddedEngine) -> None:
    identifier = engine.run("web")
    seen: List[str] = []
    position = Position()
    with engine_at(engine.socket_path, ENGINE) as reader:
        for word in ("one", "two", "three"):
            with follow_logs(reader, identifier, position=position) as follower:
                write(engine.life, identifier, word + "\n", stream=2)
                until(functools.partial(_take, follower, seen), "no line")
        with follow_logs(reader, identifier, position=position) as follower:
            ending = threading.Thread(target=lambda: engine.do("finish", identifier, exit_code=3))
            ending.start()
            while not follower.ended:
                _take(follower, seen)
            ending.join()
    assert seen == ["one", "two", "three"]


def _take(follower: Any, seen: List[str]) -> bool:
    batch = follower.get(1.0)
    seen += [line.text for line in batch.lines] if batch else []
    return batch is not None


def test_a_log_that_is_dropped_cannot_be_read(engine: EmbeddedEngine) -> None:
    engine.run("web", HostConfig={"LogConfig": {"Type": "none"}})
    with engine_at(engine.socket_path, ENGINE) as reader, pytest.raises(LogsUnreadable, match="driver none "):
        read_logs(reader, "web")


@pytest.mark.parametrize("identity", [Identity(), PODMAN, Identity(api_version="1.40")],
                         ids=["docker", "podman", "without one-shot"])
def test_the_load_of_a_container_is_measured(place: str, identity: Identity) -> None:
    with EmbeddedEngine(place + "/e", identity=identity) as engine, engine_at(engine.socket_path, ENGINE) as reader:
        made: Tuple[str, ...] = tuple(engine.run(name, start=name != "made") for name in ("busy", "idle", "made"))
        engine.life.find("busy").load = Load(cores=1.5, memory=100 << 20, pids=7)
        stats = Stats(reader.calls, cached_seconds=0.0)
        stats.read(made)
        begun = time.monotonic()
        until(lambda: time.monotonic() > begun + 0.1)
        busy, idle = stats.read(made).usages
        assert (busy.sample.id, idle.sample.id) == made[:2]
        assert 1.3 < (busy.cores or 0.0) < 1.7 and (idle.cores or 0.0) < 0.1
        assert (busy.sample.memory, busy.sample.pids) == (100 << 20, 7)
