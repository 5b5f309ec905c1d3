"""``get_logs`` on a real dockerd and a real podman, and the same answers from the simulated engine."""

from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from tests.engine.real import running
from tests.engine.test_logs import EACH_DRIVER, KINDS, LONG, TICKS, journal_runs, with_driver
from tests.need import need
from tests.verbs.logs.scene import Scene, entered, reached, texts
from xscontainer.errors import LogsUnreadable, XSContainerError
from xscontainer.simulator.engines.real import RealEngine

pytestmark = pytest.mark.real

# In this order the lines of the two streams may change places.
WRITES = ["sh", "-c", "echo one; echo two >&2; printf '\\033[31mred\\033[0m \\007\\n'; printf nolf"]
# The simulated engine understands these, too.
BOTH = ["sh", "-c", "echo one; echo two >&2; echo three"]
NUMBERS = ["sh", "-c", "; ".join(f"echo {number}" for number in range(9))]
ODD = ["sh", "-c", "echo 'a  b\x1b[1m \x1b[2J \x07 \u202e\u540d'; echo; echo \u00e9"]
STAYS = ["sh", "-c", "echo started; sleep 1000000"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: Any) -> "Iterator[Dict[str, RealEngine]]":
    """The engines that can run here, by kind."""
    with ExitStack() as stack:
        yield {kind: stack.enter_context(running(KINDS[kind].make(str(tmp_path_factory.mktemp(kind[:1])))))
               for kind in KINDS if not KINDS[kind].missing()}


@pytest.fixture
def reach(engines: "Dict[str, RealEngine]") -> "Iterator[Callable[[str], Scene]]":
    with ExitStack() as stack:
        def get(kind: str) -> Scene:
            need(kind in engines, KINDS[kind].missing())
            stack.callback(engines[kind].client().close)  # its idle connections
            return stack.enter_context(reached(engines[kind]))

        yield get


@contextmanager
def container(scene: Scene, command: "List[str]", name: str = "log_1.x", **options: Any) -> "Iterator[str]":
    identifier = scene.server.run(name, command, StopSignal="SIGKILL", **options)
    try:
        yield identifier
    finally:
        scene.server.do("remove", identifier)


def read_when_over(scene: Scene, **arguments: str) -> "Dict[str, Any]":
    """Follow the container's log to its end, then read it."""
    found = scene.call("log_1.x", follow="new")
    while not found["ended"]:
        found = scene.call("log_1.x", follow=found["follow"], wait="5")
    return scene.call("log_1.x", **arguments)


@pytest.mark.parametrize("kind, driver", EACH_DRIVER)
def test_a_log_is_read_with_each_driver(reach: "Callable[[str], Scene]", kind: str, driver: str) -> None:
    scene = reach(kind)
    with container(scene, WRITES, **with_driver(driver)) as identifier:
        found = read_when_over(scene)
        assert found["container"] == {"id": identifier, "name": "log_1.x"}
        assert sorted(texts(found)) == sorted(["one", "two", "\x1b[31mred\x1b[0m \u2407", "nolf"])
        assert {line["text"]: line["stream"] for line in found["lines"]}["two"] == "stderr"
        assert all(len(line["time"]) == 30 for line in found["lines"])
        assert scene.texts("log_1.x", stream="stderr") == ["two"]
        assert len(scene.texts("log_1.x", tail="2")) == 2
    with container(scene, LONG, **with_driver(driver)):
        assert texts(read_when_over(scene)) == ["x" * 30000, "after"]


@pytest.mark.parametrize("kind, driver", EACH_DRIVER + [
    (kind, "journald") for kind in sorted(KINDS) if journal_runs()])
def test_a_log_is_followed_from_call_to_call_to_its_end(reach: "Callable[[str], Scene]", kind: str,
                                                        driver: str) -> None:
    scene = reach(kind)
    with container(scene, TICKS, **with_driver(driver)) as identifier:
        found = scene.call(identifier, follow="new", tail="5000")
        seen = texts(found)
        for _ in range(3):
            found = scene.call(identifier, follow=found["follow"], wait="10")
            assert texts(found), "a container that writes all the time"
            seen += texts(found)
        scene.server.do("stop", identifier)
        while not found["ended"]:
            found = scene.call(identifier, follow=found["follow"], wait="10")
            seen += texts(found)
        assert seen == scene.texts(identifier, tail="5000") == [f"tick {index + 1}" for index in range(len(seen))]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_driver_that_keeps_nothing_is_named(reach: "Callable[[str], Scene]", kind: str) -> None:
    scene = reach(kind)
    with container(scene, STAYS, **with_driver("none")) as identifier:
        for arguments in ({}, {"follow": "new"}):  # type: Dict[str, str]
            with pytest.raises(LogsUnreadable, match="driver none "):
                scene.call(identifier, **arguments)


def asked(scene: Scene, *calls: "Tuple[str, Dict[str, str]]") -> "List[Any]":
    """Return what calls find, without ids and times; two streams in any order."""
    answers: "List[Any]" = []
    for called, arguments in calls:
        try:
            found = scene.call(called, **arguments)
        except XSContainerError as error:
            answers.append((called, arguments, error.code))
            continue
        lines = [(line["stream"], line["text"], len(line["time"]), sorted(line)) for line in found["lines"]]
        answers.append((called, arguments, found["container"]["name"], sorted(lines) if called == "both" else lines,
                        found["truncated"], found["dropped"], found["ended"], found["follow"] is None))
    return answers


def everything(scene: Scene) -> "List[str]":
    """Return the answers to calls of all kinds for containers in all states."""
    with ExitStack() as stack:
        stack.enter_context(container(scene, BOTH, "both"))
        stack.enter_context(container(scene, NUMBERS, "numbers"))
        stack.enter_context(container(scene, ODD, "odd"))
        stack.enter_context(container(scene, ["true"], "silent"))
        stack.enter_context(container(scene, BOTH, "made", start=False))
        stack.enter_context(container(scene, STAYS, "stays"))
        stack.enter_context(container(scene, NUMBERS, "none", **with_driver("none")))
        stack.enter_context(container(scene, NUMBERS, "terminal", Tty=True))
        for name in ("both", "numbers", "odd", "silent", "terminal"):
            scene.over(name)
        found = asked(scene, *(
            (name, arguments) for name in ("both", "numbers", "odd", "silent", "made", "none", "terminal", "nobody")
            for arguments in ({}, {"follow": "new"})))
        found += asked(scene, *(("numbers", arguments) for arguments in (
            {"tail": "2"}, {"tail": "0"}, {"tail": "5000"}, {"stream": "stderr"}, {"stream": "stdout", "tail": "1"},
            {"since": "1h"}, {"until": "1h"}, {"since": "99999999999"}, {"until": "30m", "since": "1h"},
            {"tail": "2", "follow": "new"}, {"since": "1h", "until": "1h", "follow": "new"})))
        while not scene.texts("stays"):
            pass
        follow = scene.call("stays", follow="new", tail="0")
        found.append(asked(scene, ("stays", {"follow": follow["follow"], "wait": "0"})))
        # Not with a restart: engines may send lines of the new process before they notice, dockerd in one of ten.
        scene.server.do("stop", "stays")
        ends = [scene.call("stays", follow=follow["follow"], wait="5")]
        while not ends[-1]["ended"]:
            ends.append(scene.call("stays", follow=follow["follow"], wait="5"))
        return [str(each).replace(follow["follow"], "TOKEN") for each in found] + [
            str([text for each in ends for text in texts(each)]), str(ends[-1]["follow"])]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_simulated_engine_gives_the_same_answers(reach: "Callable[[str], Scene]", kind: str,
                                                     tmp_path_factory: pytest.TempPathFactory) -> None:
    real = everything(reach(kind))
    with entered(str(tmp_path_factory.mktemp("e"))) as simulated:
        same = everything(simulated)
    different = [f"{one}\n  real: {other}" for one, other in zip(same, real) if one != other]
    assert not different, "\n".join(different)
    assert len(same) == len(real)
