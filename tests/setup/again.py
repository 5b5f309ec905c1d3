"""Run the few tests that have failed once more, alone, and name them.

    python -m tests.setup.again

CI's machines are shared: a test with real servers can fail because another program has taken the processor. So that one
such test does not hide the result of thousands, ``make test`` under CI calls this after a failed run. A fault fails
again. A test that passes now is printed as UNSTEADY, and is to be mended.

More than ``MOST`` failed tests are not run again. The list of failed tests is pytest's own.
"""

import json
import os
import subprocess
import sys
from typing import Dict, List

from tests.setup.parts import ROOT, say

FAILED = os.path.join(".pytest_cache", "v", "cache", "lastfailed")
MOST = 3


def failed(root: str) -> "List[str]":
    """Return the ids of the tests that failed in the last run; empty if that is unknown."""
    try:
        with open(os.path.join(root, FAILED), encoding="utf-8") as file:
            found: Dict[str, bool] = json.load(file)
    except (OSError, ValueError):
        return []
    return sorted(found)


def main(root: str = str(ROOT)) -> int:
    tests = failed(root)
    if not tests or len(tests) > MOST:
        say(f"{len(tests)} failed tests are named: no second run.")
        return 1
    say("once more, alone: " + ", ".join(tests))
    # Without the cache: a third run must not take the tests from this one.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    if subprocess.call(command, cwd=root):
        return 1
    for test in tests:
        say(f"UNSTEADY: {test} failed in the whole run and passed alone. Mend it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
