"""Words for the person at the terminal, beside what a program reads from standard output."""

import contextlib
import sys

from xscontainer.cli.columns import MOST_CELL, neutral


def say(text: str, most: int = MOST_CELL) -> None:
    """A line on standard error, often with a guest's words in it. Never raises.

    Where the terminal has gone, what was begun is to be taken back all the same.

    :param most: characters.
    """
    with contextlib.suppress(OSError):
        print(neutral(text, most), file=sys.stderr, flush=True)
