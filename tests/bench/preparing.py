"""Measure the preparation of a VM from password to list: the command, and the plugin function alone."""

import os
import subprocess
import tempfile
import time
from typing import List

from tests.bench.figures import Report, quantile
from tests.verbs.prepare.guests import PASSWORD, USER
from tests.verbs.prepare.world import Fresh, password_file

TIMES = 5


def measure_prepare(report: Report) -> None:
    report.title("A VM that nobody prepared, real sshd with passwords")
    with tempfile.TemporaryDirectory(prefix="xsb") as directory, Fresh(os.path.join(directory, "w")) as world:
        world.prepare(world.add(), 0, PASSWORD, fingerprint=world.added[-1].fingerprint)  # makes the pool's key
        took: List[float] = []
        again: List[float] = []
        commands: List[float] = []
        for _ in range(TIMES):
            vm = world.add()
            begun = time.monotonic()
            world.prepare(vm, 0, PASSWORD, fingerprint=vm.fingerprint)
            took.append(time.monotonic() - begun)
            begun = time.monotonic()
            world.prepare(vm)
            again.append(time.monotonic() - begun)
            commands.append(_command(world))
        report.figure("plugin function, password -> first docker_ps: median", quantile(took, 0.5), "s", 2.0)
        report.figure("the same where nothing is left to do: median", quantile(again, 0.5), "s", 1.0)
        report.figure("xscontainer prepare, start to printed list: median", quantile(commands, 0.5), "s", 5.0)


def _command(world: Fresh) -> float:
    vm = world.add()
    with password_file() as descriptor:
        begun = time.monotonic()
        process = world.command("prepare", vm.uuid, "-u", USER, "--yes", "--password-fd", str(descriptor),
                                pass_fds=(descriptor,))
        process.communicate(timeout=60)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, "prepare")
        return time.monotonic() - begun
