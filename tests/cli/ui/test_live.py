"""A live view redraws the screen in place and leaves the terminal as it was."""

import fcntl
import io
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from xscontainer.cli.ui.live import Live, fitting
from xscontainer.cli.ui.meaning import Span
from xscontainer.cli.ui.terminal import Terminal

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 30.0  # s
ENTER, LEAVE, HIDE, SHOW = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h"

PROGRAM = """
import sys, time
from xscontainer.cli import program
from xscontainer.cli.ui.live import Live
from xscontainer.cli.ui.meaning import GOOD, Span
from xscontainer.cli.ui.terminal import Terminal

def draw(terminal):
    return [[Span("[red]x[/red]", GOOD), Span(" \\x1b[2Jy")], [Span(f"width {terminal.width} view {len(views)}")]]

views = []
with program.orderly_exit():
    with Live(Terminal.standard(), draw) as live:
        for _ in range(2):
            views.append(1)
            live.refresh()
        if sys.argv[1:]:
            raise SystemExit(7)
        while True:
            time.sleep(0.05)  # signal.pause() would miss a signal that comes just before
"""


class OnTerminal:
    """The program on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self._ours, theirs = os.openpty()
        self.resize(90, theirs)

        def own() -> None:
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, *words], cwd=str(ROOT), stdin=theirs, stdout=theirs,
            stderr=theirs, preexec_fn=own, env=dict(environment, TERM="xterm", PYTHONIOENCODING="utf-8"))
        os.close(theirs)
        self.text = ""

    def resize(self, columns: int, descriptor: int = -1) -> None:
        fcntl.ioctl(self._ours if descriptor < 0 else descriptor, termios.TIOCSWINSZ,
                    struct.pack("HHHH", 20, columns, 0, 0))

    def until(self, text: str) -> None:
        """Read until the text has been shown.

        :raises AssertionError: when it is not shown in time.
        """
        deadline = time.monotonic() + DEADLINE
        while text not in self.text:
            ready = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} is not in {self.text!r}"
            self.text += os.read(self._ours, 65536).decode("utf-8")

    def type(self, key: bytes) -> None:
        os.write(self._ours, key)

    def end(self) -> int:
        """Read the rest and return the exit code."""
        while True:
            try:
                piece = os.read(self._ours, 65536)
            except OSError:  # the program has ended
                break
            if not piece:
                break
            self.text += piece.decode("utf-8")
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal() -> "Iterator[OnTerminal]":
    made = OnTerminal()
    yield made
    made.close()


def restored(text: str) -> bool:
    """Return True if the terminal shows its normal screen and its cursor."""
    return text.rindex(LEAVE) > text.rindex(ENTER) and text.rindex(SHOW) > text.rindex(HIDE)


def test_each_view_is_drawn_in_place(terminal: OnTerminal) -> None:
    terminal.until("width 90 view 2")
    assert terminal.text.count(ENTER) == terminal.text.count(HIDE) == 1
    assert "\x1b[H" in terminal.text and "\x1b[2J" not in terminal.text.split(HIDE)[1], "it must not flicker"


def test_foreign_text_is_neither_markup_nor_a_command_of_the_terminal(terminal: OnTerminal) -> None:
    terminal.until("view 2")
    assert "\x1b[32m[red]x[/red]\x1b[0m \ufffd[2Jy" in terminal.text


@pytest.mark.parametrize("number, code", [(signal.SIGINT, -2), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_terminal_is_restored_when_a_signal_ends_the_command(terminal: OnTerminal, number: int, code: int) -> None:
    terminal.until("view 2")
    if number == signal.SIGINT:
        terminal.type(b"\x03")
    else:
        terminal.process.send_signal(number)
    assert terminal.end() in (code, 1)  # Python 3.6 and 3.7 end with 1 after Ctrl-C
    assert restored(terminal.text)
    assert "view 2" in terminal.text.rpartition(LEAVE)[2], "the last view stays"


def test_the_terminal_is_restored_when_the_command_ends() -> None:
    made = OnTerminal("end")
    try:
        assert made.end() == 7
        assert restored(made.text)
    finally:
        made.close()


def test_the_view_is_drawn_again_when_the_terminal_changes_its_size(terminal: OnTerminal) -> None:
    terminal.until("width 90 view 2")
    terminal.resize(44)
    terminal.until("width 44 view 2")


def test_a_suspended_command_gives_the_terminal_back_and_draws_again_when_it_continues(terminal: OnTerminal) -> None:
    terminal.until("view 2")
    terminal.type(b"\x1a")
    assert os.WIFSTOPPED(os.waitpid(terminal.process.pid, os.WUNTRACED)[1])
    terminal.until(LEAVE)
    assert restored(terminal.text)
    terminal.text = ""
    terminal.process.send_signal(signal.SIGCONT)
    terminal.until("view 2")
    assert ENTER in terminal.text and HIDE in terminal.text


def test_a_pipe_gets_each_different_view_below_the_one_before() -> None:
    stream, views = io.StringIO(), ["one", "one", "two"]

    def draw(_: Terminal) -> List[Any]:
        return [[Span(views.pop(0))]]

    with Live(Terminal(stream), draw) as live:
        for _ in range(3):
            live.refresh()
    assert stream.getvalue() == "one\n\ntwo\n"


def test_a_long_view_says_how_much_is_left_out() -> None:
    lines = [[Span(str(number))] for number in range(10)]
    assert fitting(lines, 10) == fitting(lines, None) == lines
    assert [line[0].text for line in fitting(lines, 4)] == [
        "0", "1", "2", "... 7 more lines do not fit into the window"]
