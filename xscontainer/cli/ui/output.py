"""Print to standard output and standard error."""

import contextlib
import os
import shutil
import sys
from typing import Optional

from xscontainer.cli.ui.columns import MOST_CELL, neutral

USUAL_SIZE = (80, 24)  # columns and lines
MOST_ERROR = 10000  # characters of an error message


def say(text: str, most: int = MOST_CELL) -> None:
    """Print a line on standard error, with control characters replaced; a guest's own words are often in it.

    A terminal that is gone is no error: the caller's clean-up must go on.

    :param most: characters.
    """
    with contextlib.suppress(OSError):
        print(neutral(text, most), file=sys.stderr, flush=True)


def complain(error: object, about: str = "", then: str = "", program: str = "xscontainer") -> None:
    """Print an error on one line of standard error: "PROGRAM: ABOUT: ERROR THEN".

    :param about: name of the VM or container. :param then: a sentence: what the program does next.
    """
    say(": ".join(filter(None, (program, about, one_line(error)))) + (f" {then}" if then else ""), MOST_ERROR)


def one_line(error: object) -> str:
    """Return the text of an error without line ends."""
    return " ".join(str(error).split())


def write(text: str) -> None:
    """Write text to standard output, with a question mark for each character that its encoding lacks.

    Under XAPI and in minimal locales the encoding is ASCII, and names of VMs may hold any letter.
    """
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))


def terminal_width() -> "Optional[int]":
    """Return the columns of the terminal; None if standard output is no terminal."""
    return terminal_size().columns if sys.stdout.isatty() else None


def terminal_size() -> os.terminal_size:
    """Return columns and lines of the terminal; 80 and 24 where it does not say, as serial consoles do.

    CPython 3.6 and 3.7 return 0 for such a terminal.
    """
    size = shutil.get_terminal_size(USUAL_SIZE)
    return os.terminal_size((size.columns or USUAL_SIZE[0], size.lines or USUAL_SIZE[1]))
