"""XAPI tasks: progress of long actions, as clients show it."""

import contextlib
import logging
from typing import Callable, Dict, Iterator, Optional

from xscontainer.errors import CalledOff, ObjectGone, XapiError
from xscontainer.xapi.session import Session

log = logging.getLogger(__name__)

VM = "xscontainer-vm"  # in a task's other_config: uuid of the VM that it is about
STEP = "xscontainer-step"  # in a task's other_config: what is being done, a few words


# Between two looks at a task, seconds.
LOOK_FIRST, LOOK_MOST = 0.01, 0.5


def ended(session: Session, ref: str, pause: "Callable[[float], None]") -> str:
    """The status of a task ("success", "failure" ...) once it is over.

    :param pause: called with the seconds until the next look; it sleeps, or raises to end the waiting.
    :raises XapiError: the task cannot be asked for, ObjectGone if somebody destroyed it.
    """
    seconds = LOOK_FIRST
    while True:
        status = str(session.xenapi.task.get_status(ref))
        if status not in ("pending", "cancelling"):
            return status
        pause(seconds)
        seconds = min(seconds * 2, LOOK_MOST)


@contextlib.contextmanager
def _only_told(ref: str) -> "Iterator[None]":
    """What XAPI does not take is no reason to leave an action half done: somebody destroyed the task, perhaps."""
    try:
        yield
    except XapiError as exc:
        log.info("task %s does not show how far its action is: %s", ref, exc)


class Progress:
    """Tells a task how far things are."""

    def __init__(self, session: Session, ref: str) -> None:
        self._session = session
        self._ref = ref

    def __call__(self, fraction: float, step: str = "") -> None:
        """:param fraction: 0.0 to 1.0. :param step: what is done from now on."""
        task = self._session.xenapi.task
        with _only_told(self._ref):
            if step:
                task.remove_from_other_config(self._ref, STEP)
                task.add_to_other_config(self._ref, STEP, step)
            task.set_progress(self._ref, min(max(float(fraction), 0.0), 1.0))

    def check(self) -> None:
        """:raises CalledOff: a client has cancelled the task, or done away with it."""
        task = self._session.xenapi.task
        try:
            if task.get_status(self._ref) == "pending" and "cancel" not in task.get_current_operations(
                    self._ref).values():
                return
        except ObjectGone:
            pass
        raise CalledOff("It was called off.")


@contextlib.contextmanager
def running(session: Session, label: str, description: str = "",
            other_config: "Optional[Dict[str, str]]" = None) -> "Iterator[Progress]":
    """A task for the duration of the block: success at its end, failure if it raises.

    Gives a function that sets the progress. A task nobody finishes stays "pending"
    in every client for a day, so the end is set whatever happens.
    """
    ref = session.xenapi.task.create(label, description)
    progress = Progress(session, ref)
    try:
        for key, value in (other_config or {}).items():
            session.xenapi.task.add_to_other_config(ref, key, value)
        yield progress
    except BaseException as exc:
        with _only_told(ref):
            session.xenapi.task.set_error_info(ref, [getattr(exc, "code", type(exc).__name__), str(exc)])
            session.xenapi.task.set_status(ref, "cancelled" if isinstance(exc, CalledOff) else "failure")
        raise
    progress(1.0)
    with _only_told(ref):
        session.xenapi.task.set_status(ref, "success")
