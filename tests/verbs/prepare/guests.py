"""A guest as it comes from its installer: a real sshd that takes passwords, and nobody's key.

The users are real to sshd and to nobody else: it runs in a mount namespace of its own, with account files that lie
over this machine's, and the guest's directory at INSIDE, for the way to that of a test is closed to other users.
"""

import os
import shutil
import subprocess
from typing import Any, Dict, List, Optional

from tests.need import need, need_program
from xscontainer.simulator.guests import OpenSSHGuest

PASSWORD = "correct horse: 'battery' \"staple\" $HOME"
USER = "core"
UID = 64123
INSIDE = "/mnt"
_ACCOUNTS = ("passwd", "group", "shadow")


class FreshGuest(OpenSSHGuest):
    """See the module; for root only.

    :param shell: the user's login shell.
    :param sh: what the guest has as /bin/sh and, if it is busybox, for all other programs.
    :param password: the user's.
    :param options: of sshd, as for OpenSSHGuest.
    """

    seen_as = INSIDE

    def __init__(self, directory: str, shell: str = "/bin/sh", sh: str = "", options: Optional[Dict[str, str]] = None,
                 password: str = PASSWORD, **common: Any) -> None:
        need(os.geteuid() == 0, "root, for a namespace with users of its own")
        self._unshare = need_program("unshare", "util-linux")
        self.etc = os.path.join(directory, "etc")
        # Up to the home directory all has to be the user's or root's, and nobody else's to write to, if sshd is strict.
        self.home = os.path.join(directory, "user")
        os.makedirs(self.etc)
        os.makedirs(self.home, mode=0o755)
        os.chown(self.home, UID, UID)
        self._make_accounts(shell, password)
        self._tools_of_busybox = ""
        self._sh = sh
        super().__init__(directory, options={
            "StrictModes": "yes", "PasswordAuthentication": "yes", "UsePAM": "no",
            "AuthorizedKeysFile": ".ssh/authorized_keys",
            "SetEnv": f"PATH={self._user_path(sh)}",
            **(options or {})}, **common)
        wrap = self.sshd.wrap
        self.sshd.wrap = lambda command: self._wrap(wrap(command))
        os.chmod(directory, 0o755)
        self.user = USER
        self.keys_path = os.path.join(self.home, ".ssh", "authorized_keys")

    def __enter__(self) -> "FreshGuest":
        super().__enter__()
        return self

    def _make_accounts(self, shell: str, password: str) -> None:
        asked = subprocess.run([need_program("openssl", "openssl"), "passwd", "-6", "-stdin"],
                               input=password.encode(), stdout=subprocess.PIPE, check=True, timeout=20)
        hashed = asked.stdout.decode().strip()
        more = {"passwd": f"{USER}:x:{UID}:{UID}::{INSIDE}/user:{shell}\n", "group": f"{USER}:x:{UID}:\n",
                "shadow": f"{USER}:{hashed}:19000:0:99999:7:::\n"}
        for name in _ACCOUNTS:
            shutil.copyfile("/etc/" + name, os.path.join(self.etc, name))
            with open(os.path.join(self.etc, name), "a", encoding="utf-8") as file:
                file.write(more[name])

    def _user_path(self, sh: str) -> str:
        if not sh.endswith("busybox"):
            return f"{INSIDE}/hypervisor/bin:/usr/local/bin:/usr/bin:/bin"
        self._tools_of_busybox = os.path.join(os.path.dirname(self.etc), "busybox")
        os.makedirs(self._tools_of_busybox)
        shutil.copy(sh, self._tools_of_busybox)
        listed = subprocess.run([sh, "--list"], stdout=subprocess.PIPE, check=True, timeout=20)
        for name in listed.stdout.decode().split():
            if name != "busybox":
                os.symlink("busybox", os.path.join(self._tools_of_busybox, name))
        return "/usr/bin:/bin"

    def _wrap(self, command: List[str]) -> List[str]:
        mounts = [(f"{self.etc}/{name}", f"/etc/{name}") for name in _ACCOUNTS] + [(self.directory, INSIDE)]
        if self._tools_of_busybox:  # there is nothing else in the guest, so this is the last that is mounted by others
            mounts += [(self._tools_of_busybox, path) for path in sorted({os.path.realpath("/bin"), "/usr/bin"})]
        elif self._sh:
            mounts.append((self._sh, os.path.realpath("/bin/sh")))
        binds = " && ".join(f"mount --bind {source} {target}" for source, target in mounts)
        return [self._unshare, "-m", "--propagation", "private", "/bin/sh", "-c", f'{binds} && exec "$@"', "sh",
                ] + command

    # --- the user's files ----------------------------------------------------

    def write_keys(self, text: bytes, mode: int = 0o600) -> None:
        os.makedirs(os.path.dirname(self.keys_path), mode=0o700, exist_ok=True)
        with open(self.keys_path, "wb") as file:
            file.write(text)
        os.chmod(self.keys_path, mode)
        for path in (os.path.dirname(self.keys_path), self.keys_path):
            os.chown(path, UID, UID)

    def keys(self) -> bytes:
        with open(self.keys_path, "rb") as file:
            return file.read()
