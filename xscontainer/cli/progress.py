"""A plugin function that takes long, called as a task of XAPI's, with what is being done on the screen meanwhile."""

import contextlib
import time
from typing import Any, Callable, Dict, Mapping, Optional
from xml.etree import ElementTree

from xscontainer.cli import calling
from xscontainer.cli.telling import say
from xscontainer.errors import XapiError, XapiUnavailable
from xscontainer.settings import Settings
from xscontainer.xapi import task
from xscontainer.xapi.session import Session, failure

LOOK = 0.2  # s between two looks
LONGEST = 900.0  # s, as forward.REPLY_TIMEOUT
_PENDING = 'field "status" = "pending"'

Tell = Callable[[str], None]


def on_stderr(step: str) -> None:
    say(f"... {step}")


def call(session: Session, settings: Settings, function: str, arguments: "Optional[Dict[str, str]]" = None,
         tell: Tell = on_stderr, **more: str) -> str:
    """What the function answers, after its ``True``.

    :param arguments: of the function; so are ``more``.
    :param tell: called with each step that the function's own task names.
    :raises XapiError: it failed; ``details`` has its code and sentences, and so has the text.
    """
    here = calling.this_host(session, settings)
    given = dict(arguments or {}, **more)
    ref = session.xenapi.Async.host.call_plugin(here, settings.daemon.plugin_name, function, given)
    try:
        answer = _wait(session, ref, given.get("vmuuid", ""), tell)
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


def _step(session: Session, about: str) -> str:
    for record in session.xenapi.task.get_all_records_where(_PENDING).values():
        config = record["other_config"]
        if task.STEP in config and config.get(task.VM, "") == about:
            return str(config[task.STEP])
    return ""


def _result(record: "Mapping[str, Any]") -> str:
    if record["status"] != "success":
        details = [str(word) for word in record["error_info"]] or ["TASK_CANCELLED"]
        raise calling.told(details) or failure(details, "host.call_plugin")
    try:
        # XAPI keeps a task's result as XML-RPC would write it.
        return "".join(ElementTree.fromstring(record["result"]).itertext())
    except ElementTree.ParseError as error:
        raise XapiError(f"XAPI gave a result that cannot be read: {error}.") from error
