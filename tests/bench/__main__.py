"""Run all measurements, or those named on the command line."""

import argparse
import sys

from tests.bench import (
    busy,
    drives,
    events,
    hostile_guests,
    hostile_memory,
    listing,
    log_command,
    logs,
    measure,
    packing,
    preparing,
    start,
    stats,
)
from tests.bench.figures import Report
from xscontainer.service.daemon import SWITCH_INTERVAL


def main() -> int:
    modules = (measure, start, listing, logs, stats, events, log_command, busy, preparing, packing, drives,
               hostile_guests, hostile_memory)
    measurements = {name[len("measure_"):]: function for module in modules
                    for name, function in vars(module).items() if name.startswith("measure_")}
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {' '.join(measurements)}")
    names = parser.parse_args().names or list(measurements)
    unknown = [name for name in names if name not in measurements]
    if unknown:
        parser.error(f"there is no measurement {', '.join(unknown)}; there are: {' '.join(measurements)}")
    # The simulated XAPI runs in this process, and must not delay the others.
    sys.setswitchinterval(SWITCH_INTERVAL)
    report = Report()
    for name in names:
        measurements[name](report)
    print(f"\n{len(report.missed)} figures missed their target" + "".join(f"\n  {what}" for what in report.missed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
