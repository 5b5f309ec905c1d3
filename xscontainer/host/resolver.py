"""Resolve host names with this host's resolver."""

import shutil
import subprocess
from typing import List, Tuple

from xscontainer.errors import NameUnresolved

MOST_ADDRESSES = 16
MOST_OUTPUT = 65536

# getent's exit status for an unknown name.
_NOT_FOUND = 2


def resolve(name: str, seconds: float) -> Tuple[str, ...]:
    """Return the addresses of a name as text, at least one, in the order in which the resolver prefers them.

    A process of its own (getent) asks: the C library's resolver has no deadline and cannot be interrupted.

    :param name: a host name of letters, digits, '-' and '.', which does not begin with '-'.
    :raises NameUnresolved: the name has no address, or there was no answer in time.
    """
    program = shutil.which("getent")
    if program is None:
        raise NameUnresolved(f"The name {name} cannot be resolved: this host has no getent.")
    try:
        done = subprocess.run([program, "ahosts", name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise NameUnresolved(f"The name {name} could not be resolved within {seconds:g} s.") from error
    except OSError as error:
        raise NameUnresolved(f"The name {name} could not be resolved: {error.strerror or error}.") from error
    found: List[str] = []
    for line in done.stdout[:MOST_OUTPUT].decode("ascii", "replace").splitlines():
        words = line.split()  # one line for each address and kind of socket
        if words and words[0] not in found:
            found.append(words[0])
    if done.returncode not in (0, _NOT_FOUND):
        raise NameUnresolved(f"The name {name} could not be resolved: getent ended with status {done.returncode}.")
    if not found:
        raise NameUnresolved(f"The resolver of this host knows no address of {name}.")
    return tuple(found[:MOST_ADDRESSES])
