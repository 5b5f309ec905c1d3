"""The JSON document of a log, within its bounds."""

import json
import tracemalloc
from typing import Any, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core import wire
from xscontainer.core.log_document import MOST_JSON_BYTES, LogContainer, Page, memory_of, time_of
from xscontainer.core.log_lines import MOST_KEPT_BYTES, MOST_LINES, LogLine, NewestLines, RawLine

WEB = LogContainer("f" * 64, "web")
STAMP = "2026-12-01T08:00:00.5Z"


def lines(*texts: str) -> List[LogLine]:
    return [LogLine("stdout", STAMP, text) for text in texts]


def decoded(page: Page) -> Dict[str, Any]:
    text = page.document()
    assert len(text) <= MOST_JSON_BYTES and text.isprintable()
    text.encode("ascii")
    found: Dict[str, Any] = json.loads(text)
    return found


def test_a_document_has_all_fields() -> None:
    given = [LogLine("stdout", STAMP, "out"), LogLine("stderr", "2026-12-01T09:00:01+01:00", "err", cut=True),
             LogLine("engine", "", "broken"), LogLine("stdin", STAMP, "odd")]
    assert decoded(Page(WEB, given, True, 7, "token", True)) == {
        "container": {"id": "f" * 64, "name": "web"}, "truncated": True, "dropped": 7, "follow": "token", "ended": True,
        "lines": [{"time": "2026-12-01T08:00:00.500000000Z", "stream": "stdout", "text": "out"},
                  {"time": "2026-12-01T08:00:01.000000000Z", "stream": "stderr", "text": "err", "cut": True},
                  {"time": None, "stream": "engine", "text": "broken"},
                  {"time": "2026-12-01T08:00:00.500000000Z", "stream": "stdout", "text": "odd"}]}


def test_an_empty_log_has_a_document() -> None:
    assert decoded(Page(WEB, []))["lines"] == []


def test_colours_are_kept_and_escaped() -> None:
    text = Page(WEB, lines("\x1b[31mred\x1b[0m")).document()
    assert "\\u001b[31mred" in text and json.loads(text)["lines"][0]["text"] == "\x1b[31mred\x1b[0m"


@pytest.mark.parametrize("text, count", [("x" * 300, MOST_LINES), ("\U0001f600" * 900, 100), ("", MOST_LINES * 4),
                                         ("\ufffd" * 32768, 8)], ids=["long", "wide", "empty", "invalid"])
def test_the_oldest_lines_are_left_out_if_the_document_is_too_long(text: str, count: int) -> None:
    page = Page(WEB, lines(*(f"{number:05d}{text}" for number in range(count))))
    found = decoded(page)
    assert found["truncated"] and found["lines"][-1]["text"].startswith(f"{count - 1:05d}")
    assert [line["text"][:5] for line in found["lines"]] == [
        f"{number:05d}" for number in range(count - len(found["lines"]), count)]
    longest = len(json.dumps(text)) + 100
    assert len(page.document()) > MOST_JSON_BYTES - longest - 100, "more lines would fit"


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr", "engine"]), st.text(), st.booleans()), max_size=20))
def test_any_text_comes_back_unchanged(given_lines: "List[Any]") -> None:
    found = json.loads(Page(WEB, [LogLine(stream, STAMP, text, cut) for stream, text, cut in given_lines]).document())
    assert [(line["stream"], line["text"], line.get("cut", False)) for line in found["lines"]] == given_lines


@pytest.mark.parametrize("stamp, time", [
    ("2026-12-01T08:00:00Z", "2026-12-01T08:00:00.000000000Z"),
    ("2026-12-01T08:00:00.000000001Z", "2026-12-01T08:00:00.000000001Z"),
    ("2026-12-01T00:30:00.12-07:30", "2026-12-01T08:00:00.120000000Z"),
    ("0999-12-31T00:00:00Z", "0999-12-31T00:00:00.000000000Z"), ("9999-12-31T23:59:59-01:00", None),
    ("2026-13-01T00:00:00Z", None), ("", None), ("now", None)])
def test_times_are_in_utc_and_sort_as_texts(stamp: str, time: Any) -> None:
    assert time_of(stamp) == time


@pytest.mark.parametrize("content", [b"", b"x" * 40, b"&" * 51, b"\xff" * 51, b"&" * 32000, "\u4e00".encode() * 10000,
                                     "\U0001f600".encode() * 8000],
                         ids=["empty", "short", "markup", "invalid", "long markup", "wide", "wider"])
def test_the_claimed_memory_is_enough_for_the_document_and_its_reply(content: bytes) -> None:
    newest = NewestLines()
    for _ in range(MOST_LINES):
        newest.add(RawLine(1, STAMP.encode(), content))
    raw = newest.lines()
    assert sum(line.size for line in raw) <= MOST_KEPT_BYTES
    tracemalloc.start()
    try:
        page = Page(WEB, [line.decoded() for line in raw])
        reply = wire.success("True" + page.document())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size, claimed = len(reply), memory_of(sum(line.size for line in raw), len(raw)) + 65536
    assert size < peak <= claimed
