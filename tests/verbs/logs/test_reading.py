"""Reading a container's log with ``get_logs``, over the simulated engine."""

import json
import time
from typing import Any

import pytest

from tests.verbs.logs.scene import Scene, texts
from xscontainer.core import current_call, memory_budget
from xscontainer.core.log_lines import MOST_KEPT_BYTES
from xscontainer.errors import ArgumentError, ContainerNotFound, EngineTimeout, LogsUnreadable


def test_the_newest_lines_are_returned_with_their_container(scene: Scene) -> None:
    scene.write("one", "two")
    scene.write("oops", stream=2)
    found = scene.call()
    identity = scene.server.list()[0]["Id"]
    assert found["container"] == {"id": identity, "name": "web"}
    assert [(line["stream"], line["text"]) for line in found["lines"]] == [
        ("stdout", "one"), ("stdout", "two"), ("stderr", "oops")]
    assert [found[name] for name in ("truncated", "dropped", "follow", "ended")] == [False, 0, None, False]
    times = [line["time"] for line in found["lines"]]
    assert times == sorted(times) and all(len(moment) == 30 and moment.endswith("Z") for moment in times)


@pytest.mark.parametrize("called", ["web", "short", "whole"])
def test_a_container_is_named_by_id_short_id_or_name(scene: Scene, called: str) -> None:
    scene.write("one")
    identity = scene.server.list()[0]["Id"]
    found = scene.call({"web": "web", "short": identity[:12], "whole": identity}[called])
    assert texts(found) == ["one"] and found["container"]["id"] == identity


def test_a_hundred_lines_are_returned_unless_another_number_is_given(scene: Scene) -> None:
    scene.write(*(str(number) for number in range(150)))
    assert scene.texts() == [str(number) for number in range(50, 150)]
    assert scene.texts(tail="2") == ["148", "149"]
    assert scene.texts(tail="0") == []
    assert len(scene.texts(tail="5000")) == 150


def test_streams_and_times_are_chosen(scene: Scene) -> None:
    scene.write("one")
    scene.write("two", stream=2)
    scene.write("three")
    assert scene.texts(stream="stderr") == ["two"]
    assert scene.texts(stream="stdout") == ["one", "three"]
    assert scene.texts(stream="all") == ["one", "two", "three"]
    middle = scene.call()["lines"][1]["time"]
    assert scene.texts(since=middle) == ["two", "three"]
    assert scene.texts(until=middle) == ["one", "two"]
    assert scene.texts(since=middle, until=middle) == ["two"]
    assert scene.texts(since="10m") == ["one", "two", "three"] and scene.texts(until="10m") == []
    assert scene.texts(until=str(int(time.time()) - 600)) == []


def test_control_characters_are_visible_and_colours_stay(scene: Scene) -> None:
    scene.write("\x1b[31mred\x1b[0m \x1b[2J\x07 a\rb \u202eabc \udcff\u540d")
    (text,) = scene.texts()
    assert text == "\x1b[31mred\x1b[0m \u241b[2J\u2407 a\u240db \ufffdabc \ufffd\u540d"


@pytest.mark.parametrize("wrong", [
    {"tail": "5001"}, {"tail": "-1"}, {"tail": "all"}, {"tail": ""}, {"since": "yesterday"}, {"since": ""},
    {"until": "1e5"}, {"stream": "stdin"}, {"stream": ""}, {"container": "a b"}, {"container": ""},
    {"container": "../x"}, {"vmuuid": "no"}], ids=str)
def test_a_wrong_value_is_refused(scene: Scene, wrong: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        scene.call(**{"container": "web", **wrong})
    assert repr(next(iter(wrong))) in str(caught.value)
    assert not scene.server.requests, "the engine was not asked"


def test_a_log_of_any_length_has_a_bounded_answer_with_the_newest_lines(scene: Scene) -> None:
    scene.write(*(f"{number:04d}" + "\udcff" * 900 for number in range(1000)))
    found = scene.call(tail="1000")
    assert found["truncated"] and texts(found)[-1].startswith("0999")
    assert len(json.dumps(found)) <= 1 << 20
    scene.write(*(f"{number:04d}" + "x" * 900 for number in range(1000)))
    found = scene.call(tail="1000")
    assert found["truncated"] and 0.9 * MOST_KEPT_BYTES < len("".join(texts(found))) <= MOST_KEPT_BYTES


def test_a_long_line_is_one_line_and_its_end_may_be_cut(scene: Scene) -> None:
    scene.write("x" * 20000, "y" * 40000)
    first, second = scene.call()["lines"]
    assert first["text"] == "x" * 20000 and "cut" not in first
    assert second["text"] == "y" * 32768 and second["cut"] is True


def test_a_log_that_cannot_be_read_and_an_unknown_container_are_errors(scene: Scene) -> None:
    scene.server.run("dumb", HostConfig={"LogConfig": {"Type": "none", "Config": {}}})
    with pytest.raises(LogsUnreadable, match="driver none"):
        scene.call("dumb")
    with pytest.raises(ContainerNotFound, match="nobody"):
        scene.call("nobody")


def test_the_reply_is_charged_to_the_guest_until_it_is_sent(scene: Scene) -> None:
    scene.write(*("x" * 100 for _ in range(100)))
    before = memory_budget.BUDGET.total
    with memory_budget.held_for_reply():
        scene.call()
        assert memory_budget.BUDGET.total - before > 100 * 100 * 3
    assert memory_budget.BUDGET.total == before


def test_the_call_ends_with_its_deadline(scene: Scene) -> None:
    scene.server.faults.set("silent", "/logs")
    with current_call.serving("id", 0.5), pytest.raises(EngineTimeout):
        scene.call()
    scene.server.faults.clear()
