"""XAPI calls that may take minutes, run as XAPI tasks: so they can be cancelled and have a deadline."""

import contextlib
import re
import time
from typing import Any, Callable

from xscontainer.errors import XapiError, XapiUnavailable
from xscontainer.xapi.jsonrpc import failure
from xscontainer.xapi.session import Session
from xscontainer.xapi.task import ended

# s that XAPI may take to end a cancelled task.
CANCELLED_WITHIN = 30.0

_RESULT = re.compile(r"<value>(?:<string>)?([^<]*)(?:</string>)?</value>\Z")


def run(session: Session, method: str, *arguments: Any, until: float,
        progress: "Callable[[float], None]" = lambda fraction: None,
        discard: "Callable[[str], object]" = lambda result: None) -> str:
    """Run an API call and return its result, which must be a text (such as a ref) or nothing.

    :param method: such as "VM.start".
    :param until: deadline, by time.monotonic().
    :param progress: called repeatedly with the task's progress. If it raises, the task is cancelled and waited for.
    :param discard: called with the result of a cancelled call that succeeded nevertheless.
    :raises XapiUnavailable: the call did not end in time and was cancelled. XAPI has ended it by then, unless that
        takes longer than CANCELLED_WITHIN. XapiError: the call failed.
    """
    cls, name = method.split(".")
    task = getattr(getattr(session.xenapi.Async, cls), name)(*arguments)
    try:
        try:
            _wait(session, task, method, until, progress)
        except XapiError:
            raise
        except BaseException:
            _cancel(session, task, discard)
            raise
        return _result(session, task)
    finally:
        with contextlib.suppress(XapiError):
            session.xenapi.task.destroy(task)


def _result(session: Session, task: str) -> str:
    found = _RESULT.match(session.xenapi.task.get_result(task) or "<value></value>")
    return found.group(1) if found else ""


def _cancel(session: Session, task: str, discard: "Callable[[str], object]") -> None:
    until = time.monotonic() + CANCELLED_WITHIN

    def pause(seconds: float) -> None:
        if time.monotonic() > until:
            raise _not_in_time("a call that was cancelled")
        time.sleep(seconds)

    with contextlib.suppress(XapiError):
        session.xenapi.task.cancel(task)
        if ended(session, task, pause) == "success":
            discard(_result(session, task))


def _wait(session: Session, task: str, method: str, until: float, progress: "Callable[[float], None]") -> None:
    cancelled = False

    def pause(seconds: float) -> None:
        nonlocal cancelled
        now = time.monotonic()
        if now > until and not cancelled:
            cancelled = True
            with contextlib.suppress(XapiError):
                session.xenapi.task.cancel(task)
        if now > until + CANCELLED_WITHIN:
            raise _not_in_time(method)
        progress(float(session.xenapi.task.get_progress(task)))
        time.sleep(seconds)

    status = ended(session, task, pause)
    if status == "success":  # even if it was cancelled: that came too late
        return
    if cancelled:
        raise _not_in_time(method)
    details = session.xenapi.task.get_error_info(task)
    raise failure([str(detail) for detail in details] or [f"TASK_{status.upper()}"], method)


def _not_in_time(method: str) -> XapiUnavailable:
    return XapiUnavailable(f"XAPI did not end {method} in time.")
