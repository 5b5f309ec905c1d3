"""A view that is redrawn in place while it changes, such as that of ``ps --watch``."""

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Callable, Dict, List, Optional, Sequence, Type

from xscontainer.cli.ui.columns import neutral
from xscontainer.cli.ui.meaning import LOOKS, QUIET, Span
from xscontainer.cli.ui.terminal import MOST_TEXT, Line, Terminal

# Returns the lines to show on a terminal of this size.
Draw = Callable[[Terminal], Sequence[Line]]


class Live:
    """Shows lines on the whole screen of a terminal until the block ends, then leaves the last lines behind.

    ::

        with Live(Terminal.of(options), draw) as live:
            while True:
                ...  # wait for a change
                live.refresh()

    The terminal is as before when the block ends, also by Ctrl-C or SIGTERM. After Ctrl-Z and when the terminal changes
    its size, the view is drawn again. On a pipe, and on a terminal whose cursor cannot be moved, each view that
    differs from the one before is written below it.

    Only the main thread may use it.
    """

    def __init__(self, terminal: Terminal, draw: Draw) -> None:
        self._terminal = terminal
        self._draw = draw
        self._screen: Any = None  # rich.live.Live
        self._last = ""
        self._lines: Sequence[Line] = ()
        self._drawing = False
        self._again = False
        self._stop_after = False
        self._handlers: Dict[int, Any] = {}

    def __enter__(self) -> "Live":
        if self._terminal.movable:
            self._screen = _screen(self._terminal)
            self._screen.start()
            if threading.current_thread() is threading.main_thread():
                self._handlers = {number: signal.signal(number, handler) for number, handler in (
                    (signal.SIGWINCH, self._resized), (signal.SIGTSTP, self._suspended))}
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._screen is not None:
            with contextlib.suppress(OSError):  # the terminal may be gone
                self._screen.stop()
                self._terminal.write(self._lines)
                self._terminal.stream.flush()

    def refresh(self) -> None:
        """Draw the view again."""
        if self._drawing:  # called by a signal in the middle of it
            self._again = True
            return
        self._drawing = True
        try:
            self._again = True
            while self._again:
                self._again = False
                self._show()
        finally:
            self._drawing = False
        if self._stop_after:
            self._suspended(signal.SIGTSTP, None)

    def _show(self) -> None:
        if self._screen is None:
            text = self._terminal.text(self._draw(self._terminal))
            if text != self._last:
                self._terminal.stream.write(("\n" if self._last else "") + text)
                self._terminal.stream.flush()
                self._last = text
            return
        size = self._screen.console.size
        self._lines = self._draw(self._terminal._replace(width=size.width, height=size.height))
        self._screen.update(_renderable(self._lines, self._terminal), refresh=True)

    def _resized(self, _number: int, _frame: Optional[FrameType]) -> None:
        self.refresh()

    def _suspended(self, _number: int, _frame: Optional[FrameType]) -> None:
        if self._drawing:
            self._stop_after = True
            return
        self._stop_after = False
        self._screen.stop()
        os.kill(os.getpid(), signal.SIGSTOP)
        # Continued, by "fg" in the shell.
        self._screen.start()
        self.refresh()


def _screen(terminal: Terminal) -> Any:
    from rich.console import Console  # 80 to 130 ms of the start, for live views alone
    from rich.live import Live as RichLive

    console = Console(file=terminal.stream, force_terminal=True, force_interactive=True, highlight=False, markup=False,
                      emoji=False, soft_wrap=False, color_system="standard" if terminal.coloured else None,
                      no_color=not terminal.coloured, legacy_windows=False, force_jupyter=False)
    return RichLive(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)


def _renderable(lines: "Sequence[Line]", terminal: Terminal) -> Any:
    from rich.text import Text

    # Text takes foreign text as it is. A string would be read as markup.
    whole = Text(no_wrap=True, overflow="crop", end="")
    encoding = terminal.stream.encoding or "ascii"
    for number, line in enumerate(lines):
        if number:
            whole.append("\n")
        for span in line:
            shown = neutral(span.text, MOST_TEXT).encode(encoding, "replace").decode(encoding)
            look = LOOKS.get(span.meaning) if terminal.coloured else None
            whole.append(shown, look.rich if look else None)
    return whole


def fitting(lines: "Sequence[Line]", height: Optional[int], title: int = 1) -> "List[Line]":
    """Return the lines that fit on the screen; the last one says how many do not.

    :param title: number of lines at the top that are always shown.
    """
    if height is None or len(lines) <= height:
        return list(lines)
    shown = max(title, height - 1)
    return [*lines[:shown], [Span(f"... {len(lines) - shown} more lines do not fit into the window", QUIET)]]
