"""Meanings of pieces of text, with the colours that they have on a terminal. A colour never stands without a word."""

from typing import NamedTuple, Optional

PLAIN = ""
GOOD = "good"
BAD = "bad"
WARNING = "warning"
NOTE = "note"
QUIET = "quiet"
HEADING = "heading"
TAB = "tab"  # between two cells on a pipe; the only control character that is ever written


class Look(NamedTuple):
    """:ivar sgr: parameters of the terminal's command SGR. :ivar rich: the same style for rich."""

    sgr: str
    rich: str


# Only the 8 colours that every terminal has and every theme adapts to its background.
LOOKS = {
    GOOD: Look("32", "green"),
    BAD: Look("31", "red"),
    WARNING: Look("33", "yellow"),
    NOTE: Look("36", "cyan"),
    QUIET: Look("2", "dim"),
    HEADING: Look("1", "bold"),
}


class Span(NamedTuple):
    """A piece of text in a line, with its meaning."""

    text: str
    meaning: str = PLAIN


def of_container(state: str, health: str = "", exit_code: Optional[int] = None) -> str:
    """Return the meaning of a container's state.

    :param health: "healthy", "unhealthy", "starting" or "".
    :param exit_code: of a container that has ended; None if unknown.
    """
    if state == "running":
        return {"unhealthy": WARNING, "starting": NOTE}.get(health, GOOD)
    if state in ("paused", "restarting", "removing"):
        return WARNING
    if state == "dead":
        return BAD
    if state == "exited":
        return QUIET if exit_code == 0 else BAD
    return PLAIN


def of_power_state(power_state: str) -> str:
    """Return the meaning of a VM's power state."""
    return {"Running": GOOD, "Halted": QUIET}.get(power_state, WARNING)
