"""All measurements, or those named on the command line."""

import argparse
import sys

from tests.bench import drives, measure, packing, preparing
from tests.bench.figures import Report


def main() -> int:
    measurements = {name[len("measure_"):]: function for module in (measure, preparing, packing, drives)
                    for name, function in vars(module).items() if name.startswith("measure_")}
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {' '.join(measurements)}")
    names = parser.parse_args().names or list(measurements)
    report = Report()
    for name in names:
        measurements[name](report)
    print(f"\n{len(report.missed)} figures missed their target" + "".join(f"\n  {what}" for what in report.missed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
