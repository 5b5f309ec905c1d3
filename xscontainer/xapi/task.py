"""XAPI tasks: progress of long actions, as clients show it."""

import contextlib
from typing import Callable, Iterator

from xscontainer.errors import XapiError
from xscontainer.xapi.session import Session


@contextlib.contextmanager
def running(session: Session, label: str, description: str = "") -> "Iterator[Callable[[float], None]]":
    """A task for the duration of the block: success at its end, failure if it raises.

    Gives a function that sets the progress, 0.0 to 1.0. A task nobody finishes
    stays "pending" in every client for a day, so the end is set whatever happens.
    """
    ref = session.xenapi.task.create(label, description)

    def progress(fraction: float) -> None:
        session.xenapi.task.set_progress(ref, min(max(float(fraction), 0.0), 1.0))

    try:
        yield progress
    except BaseException as exc:
        with contextlib.suppress(XapiError):
            session.xenapi.task.set_error_info(ref, [getattr(exc, "code", type(exc).__name__), str(exc)])
            session.xenapi.task.set_status(ref, "failure")
        raise
    progress(1.0)
    session.xenapi.task.set_status(ref, "success")
