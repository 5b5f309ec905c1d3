"""Commands for a shell beside a simulated pool: ``xscontainer`` and ``xe``, as on the coordinator."""

import os
import shlex
import sys
from typing import List

from xscontainer.simulator.install import ROOT
from xscontainer.simulator.world import World


def install_commands(world: World) -> str:
    """Write both commands into a directory of the world.

    :returns: the directory, for PATH.
    """
    directory = os.path.join(world.directory, "bin")
    os.makedirs(directory, exist_ok=True)
    coordinator = world.pool.coordinator
    config = world.daemon(coordinator).config_path
    _write(directory, "xscontainer", ["xscontainer.cli", "--config", config])
    _write(directory, "xscontainer-prepare-vm", ["xscontainer.cli.prepare_vm", "--config", config])
    _write(directory, "xe", ["xscontainer.simulator.demo.xe", coordinator.socket_path])
    return directory


def _write(directory: str, name: str, module: List[str]) -> None:
    path = os.path.join(directory, name)
    command = " ".join(map(shlex.quote, [sys.executable, "-W", "ignore", "-m", *module]))
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\nPYTHONPATH={shlex.quote(ROOT)} exec {command} "$@"\n')
    os.chmod(path, 0o755)
