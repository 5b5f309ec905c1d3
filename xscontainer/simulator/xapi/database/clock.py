"""The time in XAPI's notation."""

import time

from xscontainer.simulator.xapi.wire.values import Time


def now() -> Time:
    """Return the current time, to the second, UTC."""
    return Time(time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime()))
