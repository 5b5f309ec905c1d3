"""The time in XAPI's notation."""

import time

from .values import Time


def now() -> Time:
    """The current time, to the second, UTC."""
    return Time(time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime()))
