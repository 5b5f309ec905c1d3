"""Following a log: no line twice, and none lost, when following had to begin anew."""

import json
from typing import Any, Dict, List

import pytest

from xscontainer.cli.log_reader import PATIENCE, Entry, Following, LogPage, merged, read
from xscontainer.errors import XapiError, XapiUnavailable


def line(second: float, text: str, stream: str = "stdout") -> "Dict[str, Any]":
    return {"time": f"2026-12-01T00:00:{second:012.9f}Z", "stream": stream, "text": text}


def answer(*lines: "Dict[str, Any]", follow: Any = "t", **more: Any) -> str:
    return json.dumps({"container": {"id": "1", "name": "web"}, "lines": lines, "truncated": False, "dropped": 0,
                       "follow": follow, "ended": follow is None, **more})


def failure(code: str) -> XapiError:
    return XapiError(f"{code}: it failed", details=[code, "it failed"])


class Plugin:
    """Answers calls one after the other; records their arguments, troubles and pauses."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: List[Dict[str, str]] = []
        self.troubles: List[str] = []
        self.now = 0.0

    def ask(self, **arguments: str) -> str:
        self.asked.append(arguments)
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return str(found)

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def texts(self) -> List[str]:
        following = Following(self.ask, {"tail": "3"}, lambda error: self.troubles.append(error.details[0]), self.pause,
                              lambda: self.now)
        return [entry.text for page in following.pages() for entry in page.lines]


def test_a_log_is_followed_with_the_token_until_it_ends() -> None:
    plugin = Plugin(answer(line(1, "a")), answer(follow="u"), answer(line(2, "b"), follow=None))
    assert plugin.texts() == ["a", "b"]
    assert plugin.asked == [{"follow": "new", "tail": "3"}, {"follow": "t", "wait": "15"},
                            {"follow": "u", "wait": "15"}]


def test_a_lost_token_is_replaced_without_a_line_twice() -> None:
    plugin = Plugin(answer(line(1, "a"), line(2, "b"), line(2, "b")), failure("FOLLOW_LOST"),
                    answer(line(1, "a"), line(2, "b"), line(2, "b"), line(2, "b"), line(2, "c"), line(3, "d"),
                           follow=None))
    assert plugin.texts() == ["a", "b", "b", "b", "c", "d"]
    assert plugin.asked[2] == {"follow": "new", "tail": "5000", "since": line(2, "")["time"]}
    assert plugin.troubles == []


def test_a_log_without_a_line_begins_anew_as_it_began() -> None:
    plugin = Plugin(answer(), failure("FOLLOW_LOST"), answer(line(1, "a"), follow=None))
    assert plugin.texts() == ["a"]
    assert plugin.asked[2] == {"follow": "new", "tail": "3"}


@pytest.mark.parametrize("error", [failure("TRANSPORT_LOST"), failure("BUSY"), failure("VM_ELSEWHERE"),
                                   XapiUnavailable("XAPI does not answer.", details=["XAPI_UNAVAILABLE"])])
def test_a_failure_that_may_pass_is_reported_once_and_retried(error: XapiError) -> None:
    plugin = Plugin(answer(line(1, "a")), error, error, answer(line(2, "b"), follow=None))
    assert plugin.texts() == ["a", "b"]
    assert plugin.troubles == [error.details[0]] and plugin.now == 1.5


def test_a_failure_that_lasts_ends_the_log() -> None:
    plugin = Plugin(answer(line(1, "a")), *[failure("GUEST_SILENT")] * 60)
    with pytest.raises(XapiError, match="GUEST_SILENT"):
        plugin.texts()
    assert PATIENCE < plugin.now < PATIENCE + 20.0


@pytest.mark.parametrize("answers", [[failure("GUEST_SILENT")], [failure("BUSY")], [answer(), failure("OBJECT_GONE")],
                                     [answer(), failure("LOGS_UNREADABLE")], ["{"], [answer(lines=[{}])]])
def test_a_failure_at_the_beginning_or_for_good_is_raised_at_once(answers: List[Any]) -> None:
    plugin = Plugin(*answers)
    with pytest.raises(XapiError):
        plugin.texts()
    assert plugin.now == 0.0


def test_a_token_that_is_lost_again_and_again_is_asked_for_with_pauses() -> None:
    plugin = Plugin(answer(), *[failure("FOLLOW_LOST")] * 10, answer(follow=None))
    assert plugin.texts() == []
    assert plugin.now > 5.0


def test_logs_are_merged_by_time() -> None:
    def page(*entries: Any) -> LogPage:
        return LogPage(tuple(Entry(time, "stdout", text) for time, text in entries))

    found = merged([("a", page((None, "a0"), ("2", "a2"), (None, "a2b"), ("4", "a4"))),
                    ("b", page(("1", "b1"), ("2", "b2"), ("3", "b3")))])
    assert [text for _, (_, _, text) in found] == ["a0", "b1", "a2", "a2b", "b2", "b3", "a4"]


def test_an_answer_is_read() -> None:
    found = read(answer(line(1, "a", "stderr"), truncated=True, dropped=4))
    assert found == LogPage((Entry("2026-12-01T00:00:01.000000000Z", "stderr", "a"),), True, 4, "t")
