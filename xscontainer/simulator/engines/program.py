"""The behaviour of a container's command that an engine shows: duration, output and exit code.

Known are ``true``, ``false``, ``sleep N``, ``echo``, and ``sh -c`` with these and ``exit N`` joined by ``;``.
Every other command is a server that runs until it is stopped.
"""

import re
import shlex
from typing import List, NamedTuple, Optional, Sequence, Tuple

FOREVER = float("inf")


class Run(NamedTuple):
    """The duration, output and exit code of a command.

    :param seconds: how long it runs; infinite for a server.
    :param exit_code: its exit code if nothing stops it.
    :param output: (stream, bytes): 1 is stdout, 2 is stderr.
    :param ignores_term: SIGTERM does not end it (pid 1 without a handler).
    """

    seconds: float
    exit_code: int
    output: List[Tuple[int, bytes]]
    ignores_term: bool


def predict(command: Sequence[str]) -> Run:
    """Return how a command will behave."""
    words = list(command)
    name = words[0].rpartition("/")[2] if words else ""
    if name in ("sh", "bash") and len(words) > 2 and words[1] == "-c":
        return _script(words[2])
    known = _simple(words)
    if known is None:
        return Run(FOREVER, 0, [], False)
    return known


def _simple(words: List[str]) -> Optional[Run]:
    name = words[0].rpartition("/")[2] if words else ""
    if name in ("true", ":"):
        return Run(0.0, 0, [], True)
    if name == "false":
        return Run(0.0, 1, [], True)
    if name == "sleep" and len(words) == 2:
        match = re.match(r"\d+(\.\d+)?$", words[1])
        return Run(float(words[1]) if match else 0.0, 0 if match else 1, [], True)
    if name == "exit":
        return Run(0.0, int(words[1]) % 256 if len(words) > 1 and words[1].isdigit() else 0, [], True)
    if name == "echo":
        stream = 2 if words[-1] == ">&2" else 1
        text = " ".join(word for word in words[1:] if word != ">&2") + "\n"
        return Run(0.0, 0, [(stream, text.encode("utf-8", "replace"))], True)
    return None


def _script(script: str) -> Run:
    total, code, output = 0.0, 0, []  # type: float, int, List[Tuple[int, bytes]]
    for part in script.split(";"):
        try:
            words = shlex.split(part)
        except ValueError:
            words = [part]
        if not words:
            continue
        step = _simple(words)
        if step is None:
            return Run(FOREVER, 0, output, True)
        total, code, output = total + step.seconds, step.exit_code, output + step.output
        if words[0] == "exit":
            break
    return Run(total, code, output, True)
