"""The verb for the last container events of a VM, which its monitor records."""

import json
import logging
import time
from typing import Any, Dict, List

from xscontainer.access.event_record import SECOND, EventRecord, Missed, Shown
from xscontainer.core import current_call, log_times
from xscontainer.core import memory_budget as memory
from xscontainer.core.arguments import SINCE, VM_UUID, wait, whole
from xscontainer.core.event_log import MOST_EVENTS, Recorded
from xscontainer.core.signals import signal_name
from xscontainer.core.verb import ENGINE_HOST, EVERYONE, READ, READING, Argument, Verb
from xscontainer.errors import ConnectError, GuestThrottled, XSContainerError
from xscontainer.verbs import DONE
from xscontainer.verbs.context import Context

MOST_WAIT = 20  # s
# Characters of a result. Names may be long and in any script, which ASCII-safe JSON writes in 6 to 12 characters each.
MOST_CHARACTERS = 256 * 1024
_LATEST_NUMBER = 10 ** 15 - 1

_ANSWERING = 3.0  # s of a call that are reserved for asking the engine and for the reply
_TURN = 1.0  # s of waiting, after which a call ends if another one needs its worker

log = logging.getLogger(__name__)


def get_events(context: Context, vmuuid: str, since: str = "", after: str = "0", wait: str = "0") -> str:
    """Return the last container events of a VM as JSON, oldest first.

    :param since: the oldest time, as docker's --since takes it.
    :param after: the number of the last event that the caller has.
    :param wait: whole seconds to wait for the first event after that.
    """
    record = context.record(vmuuid)
    since_ns = log_times.moment(since, time.time()) or 0 if since else 0
    number = int(after)
    deadline = min(time.monotonic() + int(wait), current_call.deadline() - _ANSWERING)
    for_later: List[Missed] = []
    try:
        while True:
            _ask_for_missed(context, vmuuid, record, for_later)
            shown = record.show(number, since_ns)
            remaining = deadline - time.monotonic()
            if shown.events or remaining <= 0.0 or not record.wait(shown.last, min(remaining, _TURN)):
                break
            if context.crowded():
                deadline = time.monotonic()  # a last look
    finally:
        for missed in for_later:
            record.give_back(missed)
    result = _result(shown)
    memory.keep(vmuuid, 6 * len(result))  # until the reply is sent, which holds it escaped
    return DONE + result


def _ask_for_missed(context: Context, vm_uuid: str, record: EventRecord, for_later: "List[Missed]") -> None:
    """Ask the engine for the events that were missed while there was no event stream, once for each gap.

    :param for_later: gets the gap if another call may ask with more success.
    """
    missed = record.take_missed()
    if missed is None:
        return
    try:
        with context.engine(vm_uuid) as engine:
            record.heard(engine.past_events(*missed), past=True)
    except (ConnectError, GuestThrottled):
        for_later.append(missed)
    except XSContainerError as error:  # the record says from when on it is complete
        log.info("VM %s: the engine does not give its past events: %s", context.vm(vm_uuid).label, error)


def _result(shown: Shown) -> str:
    events: List[str] = []
    room = MOST_CHARACTERS
    complete_from = shown.complete_from
    for event in reversed(shown.events):
        text = json.dumps(_event(event))
        room -= len(text)
        if room < 0:
            complete_from = max(complete_from, event.time_ns + 1)
            break
        events.append(text)
    rest = json.dumps({"last": shown.last, "since": round(complete_from / SECOND, 6)})
    return f'{{"events": [{", ".join(reversed(events))}], {rest[1:]}'


def _event(event: Recorded) -> "Dict[str, Any]":
    happening = event.happening
    return {
        "number": event.number, "time": round(event.time_ns / SECOND, 6), "action": happening.action,
        "container": event.subject._asdict(), "exit_code": happening.exit_code,
        "signal": signal_name(happening.signal) or None, "health": happening.health, "by": happening.by or None,
    }


GET_EVENTS = Verb(
    "get_events", get_events, "Return the last container events of a VM.",
    (VM_UUID, SINCE, Argument("after", whole(0, _LATEST_NUMBER), required=False, form="number of an event"),
     wait(MOST_WAIT)),
    EVERYONE, READ, "events", ENGINE_HOST, READING,
    result=f"JSON, [below](#get_events); at most {MOST_EVENTS} events")
VERBS = (GET_EVENTS,)
