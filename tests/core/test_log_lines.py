"""Parsing of engines' logs: any split of the bytes gives the same lines, and memory stays bounded."""

import struct
import unicodedata
from typing import Any, List, Sequence, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clock import Clock
from xscontainer.core.log_follow import LineRate, Position
from xscontainer.core.log_framing import FramingError, LogParser
from xscontainer.core.log_lines import (
    ENGINE_STREAM,
    MOST_LINE_BYTES,
    NewestLines,
    RawLine,
    nanoseconds,
    visible,
    without_colours,
)

STAMP = b"2026-12-01T00:24:42.240607979Z"
LATER = b"2026-12-01T00:24:43Z"


def frame(stream: int, content: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(content)) + content


def parsed(*pieces: bytes) -> List[RawLine]:
    parser = LogParser()
    lines = [line for piece in pieces for line in parser.feed(piece)]
    return lines + parser.end()


def shown(*pieces: bytes) -> List[Tuple[str, str, str]]:
    return [line.decoded()[:3] for line in parsed(*pieces)]


def test_frames_become_lines_with_stream_and_stamp() -> None:
    log = frame(2, STAMP + b" err\n") + frame(1, LATER + b" out\n") + frame(1, LATER + b" \n")
    assert shown(log) == [("stderr", STAMP.decode(), "err"), ("stdout", LATER.decode(), "out"),
                          ("stdout", LATER.decode(), "")]


def test_a_log_of_a_terminal_has_no_frames_and_its_line_ends_are_removed() -> None:
    log = STAMP + b" out\r\n" + LATER + b" \r\n" + LATER + b" a\rb\r\n"
    assert shown(log) == [("stdout", STAMP.decode(), "out"), ("stdout", LATER.decode(), ""),
                          ("stdout", LATER.decode(), "a\u240db")]


@pytest.mark.parametrize("log", [frame(1, STAMP + b" nolf"), STAMP + b" nolf"], ids=["frames", "terminal"])
def test_the_last_line_may_lack_its_end(log: bytes) -> None:
    assert shown(log) == [("stdout", STAMP.decode(), "nolf")]


def test_a_truncated_frame_gives_the_content_that_has_arrived() -> None:
    assert shown(frame(1, STAMP + b" whole line\n")[:-6]) == [("stdout", STAMP.decode(), "whole")]


def test_parts_of_a_long_line_are_joined_and_keep_the_first_stamp() -> None:
    """dockerd 20.10 stores a line of 20,000 bytes in two parts. Another stream may write between the parts."""
    log = frame(1, STAMP + b" " + b"x" * 16384) + frame(2, LATER + b" between\n") + frame(1, LATER + b" yy\n")
    assert [(line.stream, line.stamp, len(line.content)) for line in parsed(log)] == [
        (2, LATER, 7), (1, STAMP, 16386)]


def test_a_part_without_line_end_is_a_line_if_the_next_stamp_is_another_one() -> None:
    """The driver "local" of dockerd 20.10 loses line ends, and a restart may leave a line without one."""
    other = STAMP.replace(b"42.", b"43.")
    log = frame(1, STAMP + b" " + b"x" * 16384) + frame(1, STAMP + b" end") + frame(1, other + b" next\n")
    assert [(line.stamp, len(line.content)) for line in parsed(log)] == [(STAMP, 16387), (other, 4)]
    terminal = STAMP + b" " + b"x" * 16384 + STAMP + b" end\r" + other + b" next\r\n"
    assert [(line.stamp, len(line.content)) for line in parsed(terminal)] == [(STAMP, 16387), (other, 4)]


def test_parts_are_joined_although_the_journal_or_podman_stamps_them_differently() -> None:
    """Stamps of podman have whole seconds; a part of 16384 bytes is a full part of dockerd."""
    other = STAMP.replace(b"42.", b"43.")
    assert [len(line.content) for line in parsed(
        frame(1, STAMP + b" " + b"x" * 16384) + frame(1, other + b" end\n"))] == [16387]
    assert [line.content for line in parsed(
        frame(1, LATER + b" Password:") + frame(1, LATER.replace(b"43", b"59") + b" given\n"))] == [b"Password:given"]


@pytest.mark.parametrize("size", [16384, 4095], ids=["dockerd", "podman"])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_stamps_of_the_parts_of_a_terminals_line_are_removed(size: int, parts: int) -> None:
    log = b"".join(STAMP + b" " + b"x" * size for _ in range(parts)) + LATER + b" end\r\n" + LATER + b" next\r\n"
    kept = min(MOST_LINE_BYTES, size * parts + 3)
    assert [(line.stamp, len(line.content), line.cut) for line in parsed(log)] == [
        (STAMP, kept, kept < size * parts + 3), (LATER, 4, False)]


def test_the_stamp_of_an_empty_part_is_removed() -> None:
    """podman stores a terminal's line end as a part of its own if the program writes it alone."""
    log = LATER + b" " + b"x" * 4095 + LATER + b" yy" + LATER + b" \r\n" + LATER + b" next\r\n"
    assert [len(line.content) for line in parsed(log)] == [4097, 4]


def test_a_stamp_elsewhere_in_a_line_is_text() -> None:
    text = b"[" + LATER + b" INFO] ready"
    assert [line.content for line in parsed(STAMP + b" " + text + b"\r\n")] == [text]
    assert [line.content for line in parsed(frame(1, STAMP + b" " + text + b"\n"))] == [text]


def test_frames_without_content_are_skipped() -> None:
    assert shown(frame(1, b"") * 3 + frame(1, STAMP + b" a\n") + frame(2, b"")) == [("stdout", STAMP.decode(), "a")]


def test_lines_without_stamps_are_kept() -> None:
    assert [(line.stamp, line.content) for line in parsed(frame(1, b"plain\n"), frame(1, b"2026\n"))] == [
        (b"", b"plain"), (b"", b"2026")]


def test_an_error_of_the_engine_in_the_log_has_a_stream_of_its_own() -> None:
    assert shown(frame(3, b"Error grabbing logs: invalid character\n")) == [
        (ENGINE_STREAM, "", "Error grabbing logs: invalid character")]


@pytest.mark.parametrize("log", [b"\x01\x00\x01\x00\x00\x00\x00\x01x", frame(1, b"a\n") + b"HTTP/1.1 200"],
                         ids=["first", "later"])
def test_a_broken_header_is_an_error(log: bytes) -> None:
    with pytest.raises(FramingError):
        parsed(log)


def test_a_line_is_cut_at_its_bound() -> None:
    huge = b"x" * (3 * MOST_LINE_BYTES)
    for log in (frame(1, STAMP + b" " + huge + b"\n") + frame(1, b"next\n"),
                frame(1, huge[:MOST_LINE_BYTES]) * 3 + frame(1, b"\n") + frame(1, b"next\n"),
                STAMP + b" " + huge + b"\n" + b"next\n"):
        long, following = parsed(log)
        assert long.cut and MOST_LINE_BYTES - 40 <= len(long.content) <= MOST_LINE_BYTES
        assert following.content == b"next" and not following.cut


# --- any input


contents = st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"") + b"\n")
frames = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.binary(max_size=40)), max_size=12).map(
    lambda entries: b"".join(frame(stream, (STAMP + b" " if stamped else b"") + content)
                             for stream, stamped, content in entries))
terminals = st.lists(contents, max_size=12).map(lambda lines: b"".join(STAMP + b" " + line for line in lines))


def cut(data: bytes, places: Sequence[int]) -> List[bytes]:
    at = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)])]


@given(log=st.one_of(frames, terminals), places=st.lists(st.integers(0, 2000), max_size=10))
def test_every_split_of_the_bytes_gives_the_same_lines(log: bytes, places: List[int]) -> None:
    assert parsed(*cut(log, places)) == parsed(log) == parsed(*[log[index:index + 1] for index in range(len(log))])


@pytest.mark.parametrize("size", [40, 4095, 4096, 16384, 20000, 32727, 32728, 32768, 32769, 70000])
@pytest.mark.parametrize("step", [1000, 4096, 65536])
def test_every_split_of_a_long_line_gives_the_same_line(size: int, step: int) -> None:
    for log in (frame(1, STAMP + b" " + b"x" * size + b"\n"), STAMP + b" " + b"x" * size + b"\r\n",
                STAMP + b" " + b"x" * 16384 + STAMP + b" " + b"y" * size + b"\n"):
        assert parsed(*[log[index:index + step] for index in range(0, len(log), step)]) == parsed(log)


@given(log=st.binary(max_size=300), places=st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_are_lines_or_a_framing_error(log: bytes, places: List[int]) -> None:
    def outcome(*pieces: bytes) -> Any:
        try:
            return [line.decoded() for line in parsed(*pieces)]
        except FramingError:
            return FramingError
    found = outcome(*cut(log, places))
    assert found == outcome(log)
    for line in [] if found is FramingError else found:
        text = without_colours(line.text).replace("\t", "")
        assert not any(unicodedata.category(char) == "Cc" for char in text)


MUCH = b"x" * 65536


@pytest.mark.parametrize("first, further", [
    (b"\x01\x00\x00\x00\xff\xff\xff\xff", MUCH), (MUCH, MUCH), (b"", frame(1, b"x" * 100) * 600),
    (b"", frame(1, b"") * 8192), (b"", b"".join(frame(index % 4, b"y" * 50) for index in range(1000))),
], ids=["a frame of 4 GiB", "a line without end", "parts without end", "empty frames", "all streams"])
def test_unfinished_lines_are_kept_within_a_bound(first: bytes, further: bytes) -> None:
    parser = LogParser()
    parser.feed(first)
    for _ in range(10):
        assert parser.feed(further) == [] or further is MUCH
        assert parser.held <= 5 * (MOST_LINE_BYTES + 1024)


# --- text


def test_bytes_that_are_not_utf8_become_one_visible_character_each() -> None:
    assert [line.decoded().text for line in parsed(frame(1, b"a\xffb \xc3\xa9 \xe2\x82\n"))] == ["a\ufffdb é \ufffd"]


def test_a_character_split_between_two_parts_is_decoded() -> None:
    euro = "€".encode()
    assert [line.decoded().text for line in parsed(frame(1, b"1" + euro[:2]), frame(1, euro[2:] + b"\n"))] == ["1€"]


@pytest.mark.parametrize("text, expected", [
    ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"), ("a\tb", "a\tb"), ("\x1b[2J\x07", "\u241b[2J\u2407"),
    ("\x1b]0;title\x07", "\u241b]0;title\u2407"), ("\x00\x7f\x9b", "\u2400\u2421\ufffd"),
    ("abc\u202ecod.exe", "abc\ufffdcod.exe"), ("a\u2028b", "a\ufffdb"),
    ("\x1b[" + "1" * 100 + "m", "\u241b[" + "1" * 100 + "m"),
])
def test_only_colours_reach_a_terminal_unchanged(text: str, expected: str) -> None:
    assert visible(text) == expected


def test_colours_can_be_removed() -> None:
    assert without_colours("\x1b[1;31mred\x1b[0m and \u241b[0m") == "red and \u241b[0m"


# --- times


@pytest.mark.parametrize("stamp, expected", [
    ("1970-01-01T00:00:01Z", 1000000000), ("2026-12-01T00:24:42.240607979Z", 1796084682240607979),
    ("2026-12-01T01:24:42.5+01:00", 1796084682500000000), ("2026-11-30T19:24:42-05:00", 1796084682000000000),
    ("2026-13-01T00:00:00Z", None), ("", None), ("yesterday", None), ("2026-12-01T00:24:42", None),
])
def test_a_stamp_is_converted_to_nanoseconds(stamp: str, expected: Any) -> None:
    assert nanoseconds(stamp) == expected


# --- bounds of an answer


@given(sizes=st.lists(st.integers(0, 400), max_size=60), most_bytes=st.integers(10, 2000), most=st.integers(1, 20))
def test_the_newest_lines_are_kept_within_both_bounds(sizes: List[int], most_bytes: int, most: int) -> None:
    newest = NewestLines(most_bytes, most)
    lines = [RawLine(1, STAMP, b"x" * size) for size in sizes]
    for line in lines:
        newest.add(line)
    kept = newest.lines()
    assert sum(len(line.content) for line in kept) <= newest.size <= most_bytes and len(kept) <= most
    assert kept == lines[len(lines) - len(kept):]
    assert newest.left_out == min(most, len(lines)) - len(kept)
    if newest.left_out:
        assert newest.size + lines[-1 - len(kept)].size > most_bytes  # no line is dropped needlessly


# --- resuming after a lost connection


def lines_of(*entries: Tuple[str, str]) -> List[RawLine]:
    return [RawLine(1, stamp.encode(), text.encode()) for stamp, text in entries]


def test_repeated_lines_are_recognised() -> None:
    before = lines_of(("2026-12-01T00:00:01Z", "a"), ("2026-12-01T00:00:02Z", "b"), ("2026-12-01T00:00:02Z", "b"))
    after = lines_of(("2026-12-01T00:00:02Z", "b"), ("2026-12-01T00:00:02Z", "b"), ("2026-12-01T00:00:02Z", "b"),
                     ("2026-12-01T00:00:03Z", "c"))
    position = Position()
    assert all(position.is_new(line) for line in before)
    assert position.since == nanoseconds("2026-12-01T00:00:02Z")
    position.reopened()
    assert [position.is_new(line) for line in after] == [False, False, True, True]
    assert position.since == nanoseconds("2026-12-01T00:00:03Z")


def test_a_line_is_new_although_its_clock_went_back() -> None:
    position = Position()
    for line in lines_of(("2026-12-01T02:00:00Z", "a"), ("2026-12-01T01:00:00Z", "b")):
        assert position.is_new(line)
    assert position.since == nanoseconds("2026-12-01T01:00:00Z")
    position.reopened()
    assert [position.is_new(line) for line in lines_of(
        ("2026-12-01T02:00:00Z", "a"), ("2026-12-01T01:00:00Z", "b"), ("2026-12-01T01:00:01Z", "c"))] == [
            False, False, True]


@given(texts=st.lists(st.sampled_from("ab"), max_size=30), lost=st.integers(0, 30))
def test_no_line_is_lost_or_repeated_wherever_the_connection_ends(texts: List[str], lost: int) -> None:
    """The stamps of the engine have whole seconds, and three lines share each stamp."""
    log = [RawLine(1, f"2026-12-01T00:00:{index // 3:02d}Z".encode(), text.encode())
           for index, text in enumerate(texts)]
    position = Position()
    seen = [line for line in log[:lost] if position.is_new(line)]
    position.reopened()
    since = position.since or 0
    seen += [line for line in log if (nanoseconds(line.stamp.decode()) or 0) >= since and position.is_new(line)]
    assert seen == log


# --- rate


def test_lines_above_the_rate_are_refused_until_time_has_passed(clock: Clock) -> None:
    rate = LineRate(clock, lines=10, size=1000, burst=1)
    assert [rate.admits(1) for _ in range(12)] == [True] * 10 + [False] * 2
    clock.now += 0.5
    assert [rate.admits(1) for _ in range(6)] == [True] * 5 + [False]
    clock.now += 1000.0
    assert [rate.admits(600) for _ in range(3)] == [True, True, False]
