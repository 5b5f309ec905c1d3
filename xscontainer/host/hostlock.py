"""Locks between the processes of one host: the daemon, and plugin processes where no daemon runs.

The kernel releases a lock when its holder ends in any way.
"""

import contextlib
import fcntl
import os
import time
from typing import Iterator

LOOK = 0.05  # s between two attempts: flock() has no timeout


@contextlib.contextmanager
def held(directory: str, name: str, seconds: float) -> Iterator[bool]:
    """Hold a lock for the duration of the block; yield False if it could not be taken within ``seconds``.

    It excludes threads of one process, too.

    :param directory: created if it does not exist.
    :raises OSError: the lock's file cannot be created.
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
