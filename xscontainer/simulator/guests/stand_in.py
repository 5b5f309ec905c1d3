"""Stand-ins for programs that connect a channel to an engine's socket, where this machine lacks them."""

import os
import shutil
import sys
from typing import List, Optional, Sequence

from xscontainer.simulator.guests.base import clean_path

TOOLS = ("docker", "socat", "ncat")

# It connects stdin and stdout to a Unix socket, for which the three programs are used. Python without site: 15 ms.
_STAND_IN = r'''import os, select, socket, sys
words = sys.argv[1:]
path = next((w.split(":", 1)[1] for w in words if w.upper().startswith("UNIX-CONNECT:")), "")
path = path or next((w[7:] for w in words if w.startswith("unix://")), "")
path = path or next((w for w in words if w.startswith("/")), "")
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(path)
except OSError as error:
    sys.exit("cannot connect to %s: %s" % (path, error))
inputs = [0, sock]
while sock in inputs:
    for source in select.select(inputs, [], [])[0]:
        data = os.read(0, 65536) if source == 0 else sock.recv(65536)
        if not data:
            inputs.remove(source)
            if source == 0:
                sock.shutdown(socket.SHUT_WR)
        elif source == 0:
            sock.sendall(data)
        else:
            while data:
                data = data[os.write(1, data):]
'''


def make_path(directory: str, tools: Optional[Sequence[str]]) -> str:
    """Return a PATH of the named tools (this machine's or a stand-in); None: all, then the stand-ins."""
    path = os.path.join(directory, "bin")
    os.makedirs(path, exist_ok=True)
    script = os.path.join(directory, "stand-in.py")
    with open(script, "w", encoding="ascii") as file:
        file.write(_STAND_IN)
    for tool in TOOLS if tools is None else tools:
        link, real = os.path.join(path, tool), shutil.which(tool)
        if real is not None:
            os.symlink(real, link)
        elif tool in TOOLS:
            with open(link, "w", encoding="utf-8") as file:
                file.write(f'#!/bin/sh\nexec {sys.executable} -I -S {script} "$@"\n')
            os.chmod(link, 0o755)
    machine: List[str] = [] if tools is not None else os.environ.get("PATH", os.defpath).split(":")
    return clean_path([path] + machine)
