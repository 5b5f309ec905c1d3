"""Ask a guest over SSH for the uuid of its own VM."""

import time

from xscontainer.core.identity import QUESTION, parse_answer
from xscontainer.engine import failures
from xscontainer.engine.ssh.shell import Shell
from xscontainer.errors import EngineTimeout, ScriptNotRun, ScriptSilent, TransportLost

SECONDS = 5.0
MOST_OUTPUT = 4096  # bytes


def ask_vm_uuid(shell: Shell, seconds: float = SECONDS, script: str = QUESTION) -> str:
    """Return the uuid of the VM that the guest says it is; "" if the guest runs no commands or does not answer.

    :param seconds: until the guest must have answered.
    :raises TransportLost: if the connection ended meanwhile.
    """
    answer = b""
    try:
        with failures.translating("Asking the guest which VM it is", failures.SSH_SIDE):
            answer = shell.run(script, deadline=time.monotonic() + seconds, most=MOST_OUTPUT).output
    except (EngineTimeout, ScriptNotRun, ScriptSilent):
        pass
    if shell.closed:
        raise TransportLost("The guest closed the connection when it was asked which VM it is.")
    return parse_answer(answer)
