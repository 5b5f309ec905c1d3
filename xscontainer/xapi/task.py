"""XAPI tasks: they show clients the progress of long actions and let clients cancel them."""

import contextlib
import logging
from typing import Callable, Dict, Iterator, List, Optional

from xscontainer.core import current_call
from xscontainer.core.wire import CALL
from xscontainer.errors import CalledOff, ObjectGone, XapiError, XSContainerError, cause
from xscontainer.xapi.session import Session

log = logging.getLogger(__name__)

# In a task's other_config, beside core.wire.CALL, which names the plugin call:
VM = "xscontainer-vm"  # uuid of the VM
STEP = "xscontainer-step"  # the current step, in a few words


def _description(error: BaseException) -> "List[str]":
    return error.description() if isinstance(error, XSContainerError) else [XSContainerError.code, cause(error)]


# Between two looks at a task, seconds.
LOOK_FIRST, LOOK_MOST = 0.01, 0.5


def is_over(status: str) -> bool:
    """Return whether a task of this status has ended; a task that is being cancelled has not."""
    return status not in ("pending", "cancelling")


def ended(session: Session, ref: str, pause: "Callable[[float], None]") -> str:
    """Wait for the end of a task and return its status ("success", "failure", ...).

    :param pause: called with the seconds until the next look; it sleeps, or raises to end the wait.
    :raises XapiError: the status cannot be read; ObjectGone if the task was destroyed.
    """
    seconds = LOOK_FIRST
    while True:
        status = str(session.xenapi.task.get_status(ref))
        if is_over(status):
            return status
        pause(seconds)
        seconds = min(seconds * 2, LOOK_MOST)


@contextlib.contextmanager
def _unless_refused(ref: str) -> "Iterator[None]":
    """Log an error of XAPI instead of raising it: an action must not stop because its task was destroyed."""
    try:
        yield
    except XapiError as exc:
        log.info("task %s does not show the progress of its action: %s", ref, exc)


class Progress:
    """The progress of an action, shown by a task."""

    def __init__(self, session: Session, ref: str) -> None:
        self._session = session
        self._ref = ref

    def __call__(self, fraction: float, step: str = "") -> None:
        """Set the progress.

        :param fraction: 0.0 to 1.0. :param step: what is done from now on.
        """
        task = self._session.xenapi.task
        with _unless_refused(self._ref):
            if step:
                task.remove_from_other_config(self._ref, STEP)
                task.add_to_other_config(self._ref, STEP, step)
            task.set_progress(self._ref, min(max(float(fraction), 0.0), 1.0))

    def check(self) -> None:
        """Check that the action may go on.

        :raises CalledOff: a client has cancelled or destroyed the task.
        """
        task = self._session.xenapi.task
        try:
            if task.get_status(self._ref) == "pending" and "cancel" not in task.get_current_operations(
                    self._ref).values():
                return
        except ObjectGone:
            pass
        raise CalledOff("The call was cancelled.")


@contextlib.contextmanager
def running(session: Session, label: str, description: str = "",
            other_config: "Optional[Dict[str, str]]" = None) -> "Iterator[Progress]":
    """Show a task for the duration of the block: it succeeds at the end, or fails if the block raises.

    Yields the function that sets the progress. An unfinished task would stay "pending" in every client for a day, so
    the end is set in any case.
    """
    ref = session.xenapi.task.create(label, description)
    progress = Progress(session, ref)
    try:
        marks = {CALL: current_call.call_id()} if current_call.call_id() else {}
        for key, value in {**marks, **(other_config or {})}.items():
            session.xenapi.task.add_to_other_config(ref, key, value)
        yield progress
    except BaseException as exc:
        with _unless_refused(ref):
            session.xenapi.task.set_error_info(ref, _description(exc))
            session.xenapi.task.set_status(ref, "cancelled" if isinstance(exc, CalledOff) else "failure")
        raise
    progress(1.0)
    with _unless_refused(ref):
        session.xenapi.task.set_status(ref, "success")
