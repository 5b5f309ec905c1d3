"""A table leaves out its least useful columns on a narrow terminal, and is plain on a pipe."""

import io
from typing import Any, List, Optional, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.cli.ui import columns
from xscontainer.cli.ui.meaning import GOOD, Span
from xscontainer.cli.ui.table import Column, Note, draw
from xscontainer.cli.ui.terminal import Terminal

NAME = "a-vm/a-long-name-of-a-container"
COLUMNS = (Column("NAME"), Column("STATE", 80), Column("IMAGE", 40, least=10), Column("PORTS", 20),
           Column("CPU", 60, right=True))
ROWS: List[Any] = [
    (NAME, Span("running (healthy)", GOOD), "registry.example.com/a/very/long/image:1.2.3", "80/tcp", "0.5"),
    ("b", "exited", "busybox", "", "100.0")]
PIPE = Terminal(io.StringIO())


def shown(width: Optional[int], rows: Sequence[Any] = ROWS) -> List[str]:
    terminal = PIPE._replace(is_terminal=True, width=width)
    return ["".join(span.text for span in line) for line in draw(COLUMNS, rows, terminal)]


def test_a_wide_terminal_shows_everything_in_columns() -> None:
    lines = shown(200)
    assert lines[0].split() == ["NAME", "STATE", "IMAGE", "PORTS", "CPU"]
    assert lines[1].split("  ")[2].strip() == "registry.example.com/a/very/long/image:1.2.3"
    at = lines[0].index("IMAGE")
    assert lines[1].index("registry") == lines[2].index("busybox") == at
    assert len({len(line) for line in lines}) == 1, "the numbers end below each other"


@pytest.mark.parametrize("width, headings", [
    (130, ["NAME", "STATE", "IMAGE", "PORTS", "CPU"]), (84, ["NAME", "STATE", "IMAGE", "PORTS", "CPU"]),
    (76, ["NAME", "STATE", "IMAGE", "CPU"]), (60, ["NAME", "STATE", "CPU"]), (56, ["NAME", "STATE"]),
    (40, ["NAME"]), (10, ["NAME"]), (1, ["…"])])
def test_the_least_useful_column_is_left_out_first_and_the_name_never(width: int, headings: List[str]) -> None:
    lines = shown(width)
    assert lines[0].split() == headings
    assert all(columns.width(line) <= width for line in lines)
    if width >= len(NAME):
        assert lines[1].startswith(NAME)


def test_cells_are_cut_before_a_column_is_left_out() -> None:
    line = shown(100)[1]
    assert "registry" in line and "…" in line and "80/tcp" in line


def test_a_pipe_gets_tabs_without_padding_and_without_a_cut() -> None:
    terminal = PIPE._replace(width=20)
    text = terminal.text(draw(COLUMNS, [*ROWS, Note("A note. " * 30)], terminal))
    assert text.splitlines()[:3] == [
        "NAME\tSTATE\tIMAGE\tPORTS\tCPU",
        f"{NAME}\trunning (healthy)\tregistry.example.com/a/very/long/image:1.2.3\t80/tcp\t0.5",
        "b\texited\tbusybox\t\t100.0"]
    assert text.splitlines()[3] == "A note. " * 30


def test_a_tab_in_a_cell_cannot_make_a_column() -> None:
    assert PIPE.text(draw(COLUMNS[:2], [("a\tb", "c\nd")], PIPE, heading=False)) == "a?b\tc?d\n"


def test_a_heading_is_left_out_when_it_is_not_wanted() -> None:
    assert [[span.text for span in line] for line in draw(COLUMNS[:1], [("a",)], PIPE, heading=False)] == [["a"]]


def test_a_note_is_wrapped_between_the_rows() -> None:
    lines = shown(60, [ROWS[1], Note("word " * 30, 4), ROWS[1]])
    assert lines[1] == lines[-1] and all(line.startswith("    word") for line in lines[2:-1])


texts = st.text(max_size=30)


@given(st.lists(st.tuples(texts, texts, texts, texts, texts), max_size=6), st.integers(1, 150))
def test_no_line_is_wider_than_the_terminal(rows: List[Any], width: int) -> None:
    for line in shown(width, rows):
        assert columns.width(line) <= width
        assert columns.neutral(line) == line


@given(st.lists(st.tuples(texts, texts, texts, texts, texts), min_size=1, max_size=6))
def test_the_name_is_whole_on_every_terminal_that_it_fits(rows: List[Any]) -> None:
    name = max((columns.neutral(row[0]) for row in rows), key=columns.width)
    lines = shown(max(columns.width(name), len("NAME")), rows)
    assert any(line.startswith(name) for line in lines)
