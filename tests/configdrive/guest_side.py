"""Read a drive with the programs of guests."""

import base64
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any, Dict, NamedTuple

from tests.need import need_program

READER = Path(__file__).with_name("cloudinit_reads.py")
DEADLINE = 60


class Found(NamedTuple):
    user_data: bytes
    metadata: Dict[str, Any]


def run(*arguments: str) -> str:
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE)
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0, text
    return text


def extract(image: Path, target: Path) -> Path:
    """Extract all files of an image with xorriso."""
    target.mkdir()
    run(need_program("xorriso"), "-osirrox", "on", "-indev", str(image), "-extract", "/", str(target))
    for directory, _, _ in os.walk(str(target)):
        os.chmod(directory, stat.S_IRWXU)
    return target


def cloud_init_reads(directory: Path, layout: str = "configdrive") -> Found:
    """Return what cloud-init's own data source reads from a drive."""
    program = need_program("cloud-init")
    with open(program, "rb") as stream:
        interpreter = stream.readline()[2:].decode().split()[0]
    found = json.loads(run(interpreter, str(READER), layout, str(directory)).splitlines()[-1])
    return Found(base64.b64decode(found["user-data"]), found["metadata"])
