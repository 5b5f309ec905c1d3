"""Containers that write to their logs all the time, on embedded engines."""

import threading
from contextlib import contextmanager
from typing import Any, Iterator, List, Sequence

from xscontainer.simulator.engines.log_api import write


@contextmanager
def noise(vms: Sequence[Any], container: str, text: str, pause: float) -> Iterator[List[int]]:
    """Have a container in each VM write a text again and again; yields how many were written so far, in a list.

    :param vms: their ``engine`` is embedded.
    :param pause: seconds between two rounds.
    """
    stop, count = threading.Event(), [0]

    def run() -> None:
        while not stop.wait(pause):
            for vm in vms:
                write(vm.engine.life, container, text)
                count[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()
