"""Calls that XAPI may take minutes for, as tasks: no answer is waited for longer than the rest of us can wait."""

import contextlib
import re
import time
from typing import Any, Callable

from xscontainer.errors import XapiError, XapiUnavailable
from xscontainer.xapi.session import Session, failure
from xscontainer.xapi.task import ended

# s that XAPI may take to end what was called off.
CALLED_OFF_WITHIN = 30.0

_RESULT = re.compile(r"<value>(?:<string>)?([^<]*)(?:</string>)?</value>\Z")


def run(session: Session, method: str, *arguments: Any, until: float,
        progress: "Callable[[float], None]" = lambda fraction: None) -> str:
    """The result of an API call, which must be a text (a ref, for instance) or nothing.

    :param method: "VM.start" and the like. :param until: deadline, by time.monotonic().
    :raises XapiUnavailable: it did not end in time and was called off. XAPI has ended it by then, unless that
        takes longer than CALLED_OFF_WITHIN. XapiError: it failed.
    """
    cls, name = method.split(".")
    task = getattr(getattr(session.xenapi.Async, cls), name)(*arguments)
    try:
        _wait(session, task, method, until, progress)
        found = _RESULT.match(session.xenapi.task.get_result(task) or "<value></value>")
        return found.group(1) if found else ""
    finally:
        with contextlib.suppress(XapiError):
            session.xenapi.task.destroy(task)


def _wait(session: Session, task: str, method: str, until: float, progress: "Callable[[float], None]") -> None:
    called_off = False

    def pause(seconds: float) -> None:
        nonlocal called_off
        now = time.monotonic()
        if now > until and not called_off:
            called_off = True
            with contextlib.suppress(XapiError):
                session.xenapi.task.cancel(task)
        if now > until + CALLED_OFF_WITHIN:
            raise _not_in_time(method)
        progress(float(session.xenapi.task.get_progress(task)))
        time.sleep(seconds)

    status = ended(session, task, pause)
    if status == "success":  # even if it was called off: that came too late
        return
    if called_off:
        raise _not_in_time(method)
    details = session.xenapi.task.get_error_info(task)
    raise failure([str(detail) for detail in details] or [f"TASK_{status.upper()}"], method)


def _not_in_time(method: str) -> XapiUnavailable:
    return XapiUnavailable(f"XAPI did not end {method} in time.")
