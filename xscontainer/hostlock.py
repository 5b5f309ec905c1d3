"""Locks between the processes of one host: the daemon and the plugin's own, where no daemon runs.

The kernel gives one back when its holder ends, however that was.
"""

import contextlib
import fcntl
import os
import time
from typing import Iterator

LOOK = 0.05  # s between two tries: the kernel knows no waiting with an end


@contextlib.contextmanager
def held(directory: str, name: str, seconds: float) -> Iterator[bool]:
    """Hold a lock for the duration of the block; gives False if another held it for all of so many seconds.

    Threads exclude each other as processes do.

    :param directory: made if it is absent.
    :raises OSError: the lock's file cannot be made.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    lock = os.open(os.path.join(directory, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield _locked(lock, time.monotonic() + seconds)
    finally:
        os.close(lock)


def _locked(lock: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        time.sleep(LOOK)
