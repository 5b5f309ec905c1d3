"""The content of a simulated guest's /sys/hypervisor/uuid, which names its VM.

No file can be created there. So the guest has its own `cat` first on the PATH, which answers for this path.
"""

import os
from typing import Optional

ASKED = "/sys/hypervisor/uuid"

_CAT = """#!/bin/sh
test "$1" = %s || exec /bin/cat "$@"
echo >>%s
exec /bin/cat %s
"""


class Hypervisor:
    """
    :param directory: the guest's own.
    :param seen_as: the same directory as commands in the guest see it.
    """

    def __init__(self, directory: str, seen_as: str = "") -> None:
        place = os.path.join(directory, "hypervisor")
        self._answer, self._log = os.path.join(place, "uuid"), os.path.join(place, "asked")
        self.path = os.path.join(seen_as or directory, "hypervisor", "bin")
        """A directory for the PATH of the guest's commands."""
        os.makedirs(os.path.join(place, "bin"), exist_ok=True)
        program = os.path.join(place, "bin", "cat")
        with open(program, "w", encoding="ascii") as file:
            file.write(_CAT % (ASKED, *(os.path.join(seen_as or directory, "hypervisor", name)
                                        for name in ("asked", "uuid"))))
        for made in (place, os.path.join(place, "bin"), program):
            os.chmod(made, 0o755)
        open(self._log, "w").close()
        os.chmod(self._log, 0o666)  # commands in the guest may run as another user

    @property
    def asked(self) -> int:
        """Number of times that the guest was asked."""
        return os.path.getsize(self._log)

    def says(self, content: Optional[str]) -> None:
        """Set the content: the VM's uuid or any text. None: there is no such file, as outside Xen."""
        if content is None:
            if os.path.exists(self._answer):
                os.unlink(self._answer)
            return
        with open(self._answer, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(content + "\n")
        os.chmod(self._answer, 0o644)
