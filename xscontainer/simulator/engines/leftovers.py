"""Removing what outlives an engine: containers and their shims, mounts, cgroups, sockets."""

import os
import subprocess
import time
from typing import List, Set

from xscontainer.simulator.engines import processes

SHIM_SOCKETS = "/run/containerd/s"


class Leftovers:
    """Finds what belongs to one engine.

    :param directory: the engine's own.
    :param state: the directory that the command line of every process of the engine names.
    :param cgroup: the engine's own group under every cgroup controller.
    """

    def __init__(self, directory: str, state: str, cgroup: str) -> None:
        self._directory = directory
        self._state = state
        self._cgroup = cgroup

    def kill(self) -> None:
        """Kill shims, containers and all other processes that outlived their engine."""
        for _ in range(5):
            found = processes.mentioning(self._state)
            found |= processes.descendants(found)
            for group in self._cgroups():
                found |= _members(group)
                # A paused container is frozen: no signal ends it.
                _write_quietly(os.path.join(group, "freezer.state"), "THAWED")
                _write_quietly(os.path.join(group, "cgroup.freeze"), "0")
            if not found:
                return
            processes.kill(found)
            processes.wait_gone(found, 2.0)

    def _cgroups(self) -> List[str]:
        """Return the engine's groups under every cgroup hierarchy, deepest first."""
        base = "/sys/fs/cgroup"
        if not os.path.isdir(base):
            return []
        tops = [base] + [os.path.join(base, name) for name in os.listdir(base)]
        return [root for top in tops for root, _, _ in os.walk(os.path.join(top, self._cgroup), topdown=False)]

    def unmount(self) -> None:
        umount = processes.find_program("umount")
        for point in processes.mounts_below(self._directory):
            if umount:
                subprocess.call([umount, "-l", point], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def shim_sockets(self) -> List[str]:
        """Return the sockets of killed shims: containerd keeps them outside its own directory."""
        found = []
        for root, _, files in os.walk(os.path.join(self._directory, "exec", "containerd")):
            if "address" in files:
                with open(os.path.join(root, "address"), encoding="utf-8", errors="replace") as address:
                    path = address.read().strip()
                if path.startswith("unix://" + SHIM_SOCKETS + "/"):
                    found.append(path[len("unix://"):])
        return found

    def remove_cgroups(self) -> None:
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            left = self._cgroups()
            if not left:
                return
            for group in left:
                try:
                    os.rmdir(group)
                except OSError:
                    # The kernel lets go of a killed process' group a moment after its end.
                    time.sleep(0.01)


def remove_quietly(path: str) -> None:
    try:
        os.remove(path)
    except OSError:
        return


def _write_quietly(path: str, text: str) -> None:
    try:
        # Not "w": that would try to create the file where the hierarchy has none.
        with open(path, "r+", encoding="ascii") as file:
            file.write(text)
    except OSError:
        return


def _members(group: str) -> Set[int]:
    try:
        with open(os.path.join(group, "cgroup.procs"), encoding="ascii") as file:
            return {int(line) for line in file}
    except (OSError, ValueError):
        return set()
