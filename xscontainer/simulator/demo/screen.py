"""Writing to the terminal that the demo runs in."""

import os
import sys

from xscontainer.simulator.world import Interrupted


def show(text: str) -> None:
    """Write at once, with a question mark for each character that the terminal cannot show.

    :raises Interrupted: the terminal or reader has gone; all further output is dropped.
    """
    encoding = sys.stdout.encoding or "ascii"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Interrupted from error
