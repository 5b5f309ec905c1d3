"""Output goes to terminals, pipes and files, with colours where they are wanted."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Optional

import pytest

from xscontainer.cli.ui import meaning
from xscontainer.cli.ui.meaning import BAD, GOOD, PLAIN, QUIET, WARNING, Span
from xscontainer.cli.ui.output import terminal_width
from xscontainer.cli.ui.terminal import Terminal, wrapped

ROOT = Path(__file__).resolve().parents[3]
GREEN = "\x1b[32mup\x1b[0m\n"


class Screen(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__()
        self._terminal = terminal
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._terminal


def written(monkeypatch: pytest.MonkeyPatch, terminal: bool, color: str = "auto",
            environment: Optional[Dict[str, str]] = None) -> str:
    stream = Screen(terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    given = {"TERM": "xterm"} if environment is None else environment
    Terminal.standard(color, given).write([[Span("up", GOOD)]])
    return stream.getvalue()


@pytest.mark.parametrize("terminal, color, environment, shown", [
    (True, "auto", {"TERM": "xterm"}, GREEN), (False, "auto", {"TERM": "xterm"}, "up\n"),
    (True, "auto", {"TERM": "xterm", "NO_COLOR": "1"}, "up\n"),
    (True, "auto", {"TERM": "xterm", "NO_COLOR": ""}, GREEN),
    (True, "auto", {"TERM": "dumb"}, "up\n"), (True, "auto", {}, "up\n"),
    (True, "never", {"TERM": "xterm"}, "up\n"), (False, "always", {}, GREEN),
    (True, "always", {"TERM": "dumb", "NO_COLOR": "1"}, GREEN),
])
def test_colours_follow_the_option_the_environment_and_the_terminal(
        monkeypatch: pytest.MonkeyPatch, terminal: bool, color: str, environment: Dict[str, str], shown: str) -> None:
    assert written(monkeypatch, terminal, color, environment) == shown


@pytest.mark.parametrize("text, shown", [
    ("[red]x[/red]", "[red]x[/red]"), ("\x1b[31mx", "\ufffd[31mx"), ("a\x07\x9b2J\u202e", "a\ufffd\ufffd2J\ufffd"),
    (":smile:", ":smile:"), ("a\tb\nc", "a\ufffdb\ufffdc")])
@pytest.mark.parametrize("coloured", [False, True])
def test_foreign_text_is_neither_markup_nor_a_command_of_the_terminal(text: str, shown: str, coloured: bool) -> None:
    terminal = Terminal(Screen(True), True, coloured, 80, 25, True)
    assert terminal.text([[Span(text, BAD)]]) == (f"\x1b[31m{shown}\x1b[0m\n" if coloured else shown + "\n")


def test_a_terminal_that_does_not_say_its_size_has_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A serial console and a new pseudo-terminal say 0."""
    monkeypatch.setattr(shutil, "get_terminal_size", lambda fallback=(0, 0): os.terminal_size((0, 0)))
    monkeypatch.setattr(sys, "stdout", Screen(True))
    made = Terminal.standard("auto", {"TERM": "xterm"})
    assert (made.width, made.height) == (80, 24)
    assert terminal_width() == 80


def test_letters_that_the_encoding_lacks_become_question_marks() -> None:
    assert Terminal(Screen(False, "ascii")).text([[Span("Größe")]]) == "Gr??e\n"


@pytest.mark.parametrize("state, health, code, expected", [
    ("running", "", None, GOOD), ("running", "healthy", None, GOOD), ("running", "unhealthy", None, WARNING),
    ("running", "starting", None, meaning.NOTE), ("paused", "", None, WARNING), ("restarting", "", 1, WARNING),
    ("exited", "", 0, QUIET), ("exited", "", 137, BAD), ("exited", "", None, BAD), ("dead", "", None, BAD),
    ("created", "", None, PLAIN), ("[red]", "", None, PLAIN)])
def test_the_state_of_a_container_has_a_meaning(state: str, health: str, code: Any, expected: str) -> None:
    assert meaning.of_container(state, health, code) == expected


def test_every_meaning_has_a_look_for_the_terminal_and_for_rich() -> None:
    from rich.color import ColorSystem
    from rich.style import Style

    for look in meaning.LOOKS.values():
        assert Style.parse(look.rich).render("x", color_system=ColorSystem.STANDARD) == f"\x1b[{look.sgr}mx\x1b[0m"


def test_a_text_is_wrapped_with_its_indent_and_meaning() -> None:
    lines = wrapped("word " * 20, 30, 4, BAD)
    assert len(lines) > 2 and all(len(span.text) <= 30 and span.meaning == BAD for (span,) in lines)
    assert all(line[0].text.startswith("    word") for line in lines)


def test_output_and_tables_do_not_import_rich() -> None:
    code = ("import sys\nfrom xscontainer.cli.ui import live, table, terminal\n"
            "terminal.Terminal.standard('always').plain('x')\n"
            "print(sorted({'rich', 'argcomplete', 'difflib'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=str(ROOT), stdout=subprocess.PIPE,
                          timeout=60, check=True)
    assert done.stdout == b"x\n[]\n"
