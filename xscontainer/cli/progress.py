"""A plugin function that takes long, called as a task of XAPI's, with what is being done on the screen meanwhile."""

import contextlib
import time
from typing import Any, Callable, Dict, Mapping, Optional, Set
from xml.etree import ElementTree

from xscontainer.cli import calling
from xscontainer.cli.telling import say
from xscontainer.errors import XapiError, XapiUnavailable
from xscontainer.settings import Settings
from xscontainer.xapi import task
from xscontainer.xapi.session import Session, failure

LOOK = 0.2  # s between two looks
LONGEST = 2700.0  # s, as forward.REPLY_TIMEOUT
_PENDING = 'field "status" = "pending"'

Tell = Callable[[str], None]


def on_stderr(step: str) -> None:
    say(f"... {step}")


def call(session: Session, settings: Settings, function: str, arguments: "Optional[Dict[str, str]]" = None,
         tell: Tell = on_stderr, ending: float = 0.0, **more: str) -> str:
    """What the function answers, after its ``True``.

    :param arguments: of the function; so are ``more``.
    :param tell: called with each step that the function's own task names.
    :param ending: seconds in which a function that can be called off is over when this is interrupted; 0: it goes on.
    :raises XapiError: it failed; ``details`` has its code and sentences, and so has the text.
    """
    here = calling.this_host(session, settings)
    given = dict(arguments or {}, **more)
    ref = session.xenapi.Async.host.call_plugin(here, settings.daemon.plugin_name, function, given)
    about = given.get("vmuuid", "")
    try:
        answer = _wait(session, ref, about, tell)
    except XapiError:
        raise
    except BaseException:
        if ending:
            _call_off(settings, ref, about, ending, tell)
        raise
    finally:
        with contextlib.suppress(XapiError):  # somebody else may have; it is not what went wrong
            session.xenapi.task.destroy(ref)
    return calling.answered(answer)


def _wait(session: Session, ref: str, about: str, tell: Tell) -> str:
    deadline = time.monotonic() + LONGEST
    told = ""
    while True:
        record = session.xenapi.task.get_record(ref)
        if record["status"] != "pending":
            return _result(record)
        step = _step(session, about)
        if step and step != told:
            tell(step)
            told = step
        if time.monotonic() > deadline:
            raise XapiUnavailable("The plugin has not answered for too long.", "Look at the tasks of the pool.")
        time.sleep(LOOK)


def _call_off(settings: Settings, ref: str, about: str, seconds: float, tell: Tell) -> None:
    """Have the function end, and wait for it: what it began it takes back."""
    deadline = time.monotonic() + seconds
    cancelled: Set[str] = set()
    # What interrupted us may have come in the middle of the other session's call.
    with contextlib.suppress(XapiError), calling.logged_in(settings) as session:
        while session.xenapi.task.get_status(ref) == "pending" and time.monotonic() < deadline:
            for own in set(under_way(session, about)) - cancelled:  # it may have had none until now
                tell("calling it off")
                session.xenapi.task.cancel(own)
                cancelled.add(own)
            time.sleep(LOOK)


def under_way(session: Session, about: str) -> "Dict[str, str]":
    """The tasks of functions that are at work on this VM: ref -> step."""
    pending = session.xenapi.task.get_all_records_where(_PENDING)
    return {ref: str(record["other_config"][task.STEP]) for ref, record in pending.items()
            if task.STEP in record["other_config"] and record["other_config"].get(task.VM, "") == about}


def _step(session: Session, about: str) -> str:
    return next(iter(under_way(session, about).values()), "")


def _result(record: "Mapping[str, Any]") -> str:
    if record["status"] != "success":
        details = [str(word) for word in record["error_info"]] or ["TASK_CANCELLED"]
        raise calling.told(details) or failure(details, "host.call_plugin")
    try:
        # XAPI keeps a task's result as XML-RPC would write it.
        return "".join(ElementTree.fromstring(record["result"]).itertext())
    except ElementTree.ParseError as error:
        raise XapiError(f"XAPI gave a result that cannot be read: {error}.") from error
