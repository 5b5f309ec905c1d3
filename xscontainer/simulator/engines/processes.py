"""Find and end processes that a started program has left behind, by Linux's /proc.

dockerd's shims and a guest's commands leave the process group and the parent of the started program, so neither
``kill(-pgid)`` nor ``wait`` reaches them.
"""

import os
import shutil
import signal
import subprocess
import time
from typing import Dict, Iterable, List, Optional, Set

# If not empty: the reason why this process and its children may start no sshd, dockerd or podman.
NO_SERVERS = "XSCONTAINER_NO_SERVERS"


def servers_off() -> str:
    """Return why no real server may be started, or the empty string."""
    return os.environ.get(NO_SERVERS, "")


def parents() -> Dict[int, int]:
    """Return pid -> parent pid of every process of the machine."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as stat:
                    # The name (field 2) may contain blanks and brackets: read from its last bracket.
                    found[int(entry)] = int(stat.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    return found


def descendants(roots: Iterable[int]) -> Set[int]:
    """Return all processes below ``roots``, without the roots."""
    table = parents()
    found: Set[int] = set()
    level = set(roots)
    while level:
        level = {pid for pid, parent in table.items() if parent in level and pid not in found}
        found |= level
    return found


def mentioning(text: str) -> Set[int]:
    """Return the processes other than this one with ``text`` in their command line."""
    needle = os.fsencode(text)
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as cmdline:
                    if needle in cmdline.read():
                        found.add(int(entry))
            except OSError:
                continue
    return found


def kill(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    """Signal each process; one that has ended already is no error."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue


def gone(pid: int) -> bool:
    """Return whether the process has ended; a zombie counts as ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def wait_gone(pids: Iterable[int], seconds: float) -> Set[int]:
    """Wait at most ``seconds`` until all have ended; return those that have not."""
    deadline = time.monotonic() + seconds
    remaining = {pid for pid in pids if not gone(pid)}
    while remaining and time.monotonic() < deadline:
        time.sleep(0.005)
        remaining = {pid for pid in remaining if not gone(pid)}
    return remaining


def end(process: "subprocess.Popen[bytes]", seconds: float, number: int = signal.SIGTERM) -> None:
    """Terminate a child, kill it after ``seconds``, and reap it."""
    if process.poll() is None:
        kill([process.pid], number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def find_program(name: str) -> Optional[str]:
    """Return the path of a program on PATH or in the sbin directories that a user's PATH may lack."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=os.pathsep.join([path, "/usr/local/sbin", "/usr/sbin", "/sbin"]))


def mounts_below(directory: str) -> List[str]:
    """Return the mount points at or below ``directory``, deepest first."""
    prefix = os.path.realpath(directory)
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            point = line.split(" ")[4].replace("\\040", " ")
            if point == prefix or point.startswith(prefix + "/"):
                found.append(point)
    return sorted(found, key=len, reverse=True)


def log_tail(path: str, size: int = 2000) -> str:
    """Return the last ``size`` bytes of a log as text; "" if there is no log."""
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - size))
            return log.read().decode("utf-8", "replace")
    except OSError:
        return ""
