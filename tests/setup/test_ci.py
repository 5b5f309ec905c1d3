"""The scripts of CI report missing programs and leave nothing behind. CI itself shows that they work."""

import os
import subprocess
from pathlib import Path
from typing import Dict, Tuple

import pytest

from tests.need import need_program
from tests.setup.prepare import ROOT
from tests.setup.test_prepare import script

FRESH = str(ROOT / ".ci" / "fresh")
SCRIPTS = [str(ROOT / ".ci" / name) for name in ("run", "fresh")]
GOOD = {
    "id": "echo 0",
    "apt-get": 'case "$*" in *indextargets*) echo file:/nowhere ;; esac',
    "debootstrap": "exit 0",
}


def fresh(tmp_path: Path, programs: Dict[str, str]) -> Tuple[int, str]:
    """Run .ci/fresh with stand-ins for these programs and return exit code and output. Checks that nothing is left."""
    for name, line in programs.items():
        script(tmp_path / "bin" / name, line)
    place = tmp_path / "t"
    place.mkdir()
    done = subprocess.run([need_program("bash"), FRESH, "true"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60,
                          env=dict(os.environ, PATH=f"{tmp_path}/bin:{os.environ['PATH']}", TMPDIR=str(place)))
    assert list(place.iterdir()) == []
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize("programs, told", [
    ({"id": "echo 1000"}, "needs root"),
    ({"apt-get": "exit 0"}, "have no mirror of Debian bookworm"),
    ({"apt-get": 'echo "E: no network" >&2; exit 100'}, "E: no network"),
    ({"debootstrap": 'echo "E: Failed getting release file" >&2; exit 1'}, "E: Failed getting release file"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_missing_programs_for_a_fresh_root_are_reported(tmp_path: Path, programs: Dict[str, str], told: str) -> None:
    code, output = fresh(tmp_path, dict(GOOD, **programs))
    assert code == 1 and told in output and ".ci/fresh: " in output, output


def test_shellcheck_accepts_the_scripts() -> None:
    command = [need_program("shellcheck"), "--severity=warning", *SCRIPTS]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stdout.decode()
