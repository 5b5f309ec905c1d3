"""Calls that wait for news end early if another call needs their worker."""

import json
import time

from xscontainer.access.event_record import EventRecord
from xscontainer.verbs import events


class Crowded:
    """A context in which another call waits for a worker."""

    def __init__(self) -> None:
        self.kept = EventRecord()
        self.kept.subscribed(None, True)

    def record(self, vm_uuid: str) -> EventRecord:
        return self.kept

    def crowded(self) -> bool:
        return True


def test_a_wait_for_events_is_cut_short_if_another_call_needs_the_worker() -> None:
    begun = time.monotonic()
    found = events.get_events(Crowded(), "vm", wait="20")  # type: ignore[arg-type]
    assert json.loads(found[4:])["events"] == [] and 0.9 < time.monotonic() - begun < 10.0
