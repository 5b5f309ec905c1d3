"""Call a plugin function that takes long as a task of XAPI, and print its steps meanwhile."""

import contextlib
import time
import uuid
from typing import Any, Callable, Dict, Mapping, Optional, Set, Tuple

from xscontainer.cli import plugin_call
from xscontainer.cli.ui.output import say
from xscontainer.core import wire
from xscontainer.core.bounded import xml_from
from xscontainer.core.verb import Verb
from xscontainer.errors import XapiError, XapiUnavailable
from xscontainer.settings import Settings
from xscontainer.xapi import task
from xscontainer.xapi.jsonrpc import failure
from xscontainer.xapi.session import Session

INTERVAL = 0.2  # s between two polls of the task
LONGEST = 2700.0  # s, equal to forward.REPLY_TIMEOUT
_UNFINISHED = 'field "status" = "pending" or field "status" = "cancelling"'

Report = Callable[[str], None]


def on_stderr(step: str) -> None:
    """Print a step on standard error."""
    say(f"... {step}")


def call(session: Session, settings: Settings, verb: Verb, arguments: "Optional[Dict[str, str]]" = None,
         report: Report = on_stderr, ending: float = 0.0, pause: "Callable[[float], object]" = time.sleep) -> str:
    """Call the verb as a task and return its answer without the ``True`` before it.

    :param arguments: of the verb. wire.CALL is the id of the call; without it one is made.
    :param report: called with each step that the function's own task names.
    :param ending: seconds to wait for the end of a function that can be cancelled when this call is interrupted;
        0: the function goes on.
    :param pause: waits between two looks; an exception of it interrupts the call.
    :raises XapiError: when the function fails; ``details`` has its code and sentences, and so has the text.
    """
    given = dict(arguments or {})
    call_id = given.setdefault(wire.CALL, str(uuid.uuid4()))

    def send(method: str, params: "Tuple[Any, ...]") -> str:
        ref = session.xenapi_request("Async." + method, params)
        try:
            return _wait(session, ref, call_id, report, pause)
        except XapiError:
            raise
        except BaseException:
            if ending:
                _cancel(session, ref, call_id, ending, report)
            raise
        finally:
            with contextlib.suppress(XapiError):  # another client may have destroyed it
                session.xenapi.task.destroy(ref)

    return plugin_call.answered(plugin_call.permitted(session, settings, verb, given, send))


def _wait(session: Session, ref: str, call_id: str, report: Report, pause: "Callable[[float], object]") -> str:
    deadline = time.monotonic() + LONGEST
    reported = ""
    while True:
        record = session.xenapi.task.get_record(ref)
        if task.is_over(record["status"]):
            return _result(record)
        step = _step(session, call_id)
        if step and step != reported:
            report(step)
            reported = step
        if time.monotonic() > deadline:
            raise XapiUnavailable(f"The plugin has not answered for {LONGEST / 60:.0f} minutes.",
                                  "Look at the tasks of the pool: xe task-list.")
        pause(INTERVAL)


def _cancel(session: Session, ref: str, call_id: str, seconds: float, report: Report) -> None:
    """Cancel the function and wait for its end: it removes what it has made."""
    deadline = time.monotonic() + seconds
    cancelled: Set[str] = set()
    session.close()  # the interruption may have come in the middle of a call
    with contextlib.suppress(XapiError):
        while not task.is_over(session.xenapi.task.get_status(ref)) and time.monotonic() < deadline:
            for own in set(under_way(session, call_id)) - cancelled:  # its own task may appear late
                report("cancelling")
                session.xenapi.task.cancel(own)
                cancelled.add(own)
            time.sleep(INTERVAL)


def under_way(session: Session, call_id: str) -> "Dict[str, str]":
    """Return the unfinished tasks of the plugin for this call alone: ref -> step."""
    pending = session.xenapi.task.get_all_records_where(_UNFINISHED)
    return {ref: str(record["other_config"].get(task.STEP, "")) for ref, record in pending.items()
            if record["other_config"].get(wire.CALL) == call_id}


def _step(session: Session, call_id: str) -> str:
    return next(iter(under_way(session, call_id).values()), "")


def _result(record: "Mapping[str, Any]") -> str:
    if record["status"] != "success":
        details = [str(word) for word in record["error_info"]] or ["TASK_CANCELLED"]
        raise plugin_call.plugin_failure(details) or failure(details, "host.call_plugin")
    try:
        # XAPI keeps the result of a task as an XML-RPC value.
        return "".join(xml_from(record["result"]).itertext())
    except ValueError as error:
        raise XapiError(f"The result that XAPI returned cannot be read: {error}.") from error
