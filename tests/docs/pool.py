"""The pool on which the commands of the documentation run, and a shell on a terminal beside it.

It is the pool of the demo: two hosts, some VMs that are prepared, and the VMs ``legacy`` and ``yours``, which are not.
"""

import fcntl
import os
import pty
import re
import select
import shlex
import ssl
import subprocess
import termios
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, NamedTuple, Tuple

from docs.blocks import PLACEHOLDER
from xscontainer.simulator.demo import cloud, guests
from xscontainer.simulator.demo.acts import CONTAINER, NEW
from xscontainer.simulator.demo.shell import install_commands
from xscontainer.simulator.world import Parts, World
from xscontainer.simulator.xapi import ROOT_PASSWORD
from xscontainer.xapi.trust import fingerprint_of

DEADLINE = 90.0  # s for the commands of one block
# The end of a question on the terminal -> the answer that is typed.
ANSWERS = {"[y/N] ": "y", "in the VM: ": guests.PASSWORD, "in yours: ": guests.PASSWORD}
SECRET = "secret"  # file with the password of root
CONFIGURATION = "#cloud-config\nhostname: web\n"


class Shown(NamedTuple):
    """:ivar text: as on the terminal, with the questions and without the answers."""

    code: int
    text: str


@contextmanager
def pool(directory: str) -> Iterator[World]:
    """Start the demo's pool and wait until all lists are published.

    A new SSH key of the pool counts at once, so that ``key-rotate --finish`` needs not ten minutes.
    """
    parts = Parts(ssh="embedded", engine="embedded", settings={"ssh": {"key_grace": 0}}, https=True)
    specs = guests.guest_specs(len(guests.GUESTS), stay=True)
    world = World(os.path.join(directory, "w"), guests=specs, parts=parts)
    with world, cloud.Cloud(world):
        world.wait_all_published()
        yield world


def values(world: World) -> Dict[str, str]:
    """Placeholder of the documentation -> what stands for it on this pool."""
    return {
        "VM": guests.CLASSIC, "CONTAINER": CONTAINER, "USER": world.vm(guests.CLASSIC).guest.user,
        "HOST": str(world.pool.coordinator.uuid), "NAME": NEW, "TEMPLATE": cloud.TEMPLATE,
        "NETWORK": cloud.NETWORK, "IMAGE": cloud.IMAGE,
        "FILE": os.path.join(world.directory, "configuration"), "SECRET": SECRET, "SERVER": server(world),
        "FINGERPRINT": fingerprint_of(ssl.PEM_cert_to_DER_cert(world.pool.coordinator.certificate)),
    }


def server(world: World) -> str:
    host = world.pool.coordinator
    return f"{host.address}:{host.https_port}"


def filled(command: str, given: Dict[str, str], world: World) -> str:
    """A command line with values in place of its placeholders; ``uuid=VM`` becomes the uuid of the VM of that name."""
    def replaced(match: Any) -> str:
        value = given.get(match.group(), match.group())
        if match.group() == "VM" and command[:match.start()].endswith("uuid="):
            value = world.vm(value).uuid
        return shlex.quote(value)

    return PLACEHOLDER.sub(replaced, command)


def run(world: World, command: str, columns: int = 108, coloured: bool = False) -> Shown:
    """Run a command line with ``xscontainer`` and ``xe`` on PATH, on a terminal whose reader answers the questions.

    :raises AssertionError: it did not end in time.
    """
    with open(os.path.join(world.directory, "configuration"), "w", encoding="utf-8") as file:
        file.write(CONFIGURATION)
    secret = os.open(os.path.join(world.directory, SECRET), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(secret, "w", encoding="utf-8") as file:
        file.write(ROOT_PASSWORD)
    environment = dict(os.environ, PATH=install_commands(world) + os.pathsep + os.environ["PATH"],
                       COLUMNS=str(columns), TERM="xterm", NO_COLOR="" if coloured else "1",
                       XDG_CONFIG_HOME=os.path.join(world.directory, "config"))
    master, slave = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(["sh", "-c", command], stdin=slave, stdout=slave, stderr=slave, cwd=world.directory,
                               env=environment, preexec_fn=own_terminal)
    os.close(slave)
    try:
        answers = {**ANSWERS, f"at {server(world)}: ": ROOT_PASSWORD}
        text = _converse(master, answers, time.monotonic() + DEADLINE)
        return Shown(process.wait(DEADLINE), text)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


def _converse(master: int, answers: Dict[str, str], deadline: float) -> str:
    """Read until the terminal is closed, and answer each question once."""
    text, answered = "", 0
    while True:
        ready = select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0]
        assert ready, f"the command did not end in time; it had shown:\n{text}"
        try:
            piece = os.read(master, 4096)
        except OSError:  # the last process that had it has ended
            piece = b""
        if not piece:
            return text.replace("\r\n", "\n")
        text += piece.decode("utf-8", "replace")
        for question, answer in answers.items():
            if text.endswith(question) and len(text) > answered:
                answered = len(text)
                os.write(master, answer.encode("utf-8") + b"\n")


def matches(shown: str, expected: str) -> Tuple[bool, str]:
    """Compare an output with the documentation, where ``...`` stands for any text in a line, or for any lines.

    :returns: whether they match, and the regular expression that was compared.
    """
    lines = [r"(?:.*\n)*?" if line.strip() == "..." else
             re.escape(line.rstrip()).replace(re.escape("..."), ".*") + r"[ ]*\n"
             for line in expected.strip("\n").split("\n")]
    pattern = "".join(lines)
    return bool(re.fullmatch(r"\n*" + pattern + r"\n*", shown.rstrip() + "\n")), pattern
