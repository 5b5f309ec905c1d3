"""Choose or make the key of a pack, and sign with it.

gnupg 2.0 in dom0 and XAPI accept only an RSA signing-only key without subkeys or expiry date.
"""

import contextlib
import os
import re
import subprocess
import tempfile
import time
from typing import Dict, Iterator, List, NamedTuple, Optional

from rpm.pack.tools import BuildError, environment, run
from tests.setup import parts

THROW_AWAY = "RPM-GPG-KEY-xscontainer-throwaway"
RELEASE_KEY = "RPM-GPG-KEY-xscontainer"
LEAST_BITS = 2048
AGENT_SECONDS = 10.0
_PARAMETERS = """%no-protection
Key-Type: RSA
Key-Length: 3072
Key-Usage: sign
Name-Real: xscontainer throw-away key, trust it on no real host
Expire-Date: {expire}
%commit
"""


class Signer(NamedTuple):
    """A key to sign with.

    :ivar home: gpg's directory with the key; "" for the caller's own.
    :ivar key_file: name of the file with the public key.
    """

    home: str
    fingerprint: str
    key_file: str

    def _environ(self) -> "Dict[str, str]":
        return environment(0, {"GNUPGHOME": self.home} if self.home else {})

    def sign_file(self, path: str) -> None:
        """Write a detached signature to ``path``.asc."""
        run(["gpg", "--batch", "--yes", "--armor", "--digest-algo", "SHA256", "--local-user", self.fingerprint,
             "--detach-sign", "--output", path + ".asc", path], self._environ())

    def sign_packages(self, paths: "List[str]") -> None:
        macros = {"__gpg": parts.find("gpg"), "_gpg_name": self.fingerprint, "_gpg_digest_algo": "sha256"}
        if self.home:
            macros["_gpg_path"] = self.home
        defines = [part for key, value in macros.items() for part in ("--define", f"{key} {value}")]
        run(["rpmsign"] + defines + ["--addsign"] + paths, self._environ())

    def export(self, directory: str) -> str:
        """Write the armored public key into ``directory`` and return its path."""
        path = os.path.join(directory, self.key_file)
        text = run(["gpg", "--batch", "--armor", "--export", self.fingerprint], self._environ())
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path


@contextlib.contextmanager
def signer(key: Optional[str]) -> "Iterator[Signer]":
    """Yield a signer.

    :param key: a file with a secret key, or the name of a key in the caller's keyring; None makes a throw-away key.
    :raises BuildError: when there is no such key, or hosts cannot use it.
    """
    if key and not os.path.isfile(key):
        yield _checked(Signer("", key, RELEASE_KEY))
        return
    with keyring() as home:
        if key:
            run(["gpg", "--batch", "--import", key], environment(0, {"GNUPGHOME": home}))
        else:
            generate(home)
        yield _checked(Signer(home, "", RELEASE_KEY if key else THROW_AWAY))


@contextlib.contextmanager
def keyring() -> "Iterator[str]":
    """Yield an empty directory for gpg; remove it at the end and stop its agent."""
    with tempfile.TemporaryDirectory(prefix="xg") as home:
        try:
            yield home
        finally:
            end_agent(home)


def end_agent(home: str) -> None:
    """Stop the agent that gpg leaves behind, and wait until it has ended."""
    command = ["gpg-connect-agent", "--homedir", home, "--no-autostart", "GETINFO pid", "/bye"]
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30).stdout
    found = re.search(rb"(?m)^D ([0-9]+)$", told)
    if not found:
        return
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=30)
    deadline = time.monotonic() + AGENT_SECONDS
    while _runs(found.group(1).decode()) and time.monotonic() < deadline:
        time.sleep(0.01)


def _runs(pid: str) -> bool:
    """Return True if the process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def generate(home: str, expire: str = "0") -> None:
    run(["gpg", "--batch", "--gen-key"], environment(0, {"GNUPGHOME": home}), text=_PARAMETERS.format(expire=expire))


def _checked(found: Signer) -> Signer:
    command = ["gpg", "--batch", "--with-colons", "--list-secret-keys"]
    listing = run(command + ([found.fingerprint] if found.fingerprint else []), found._environ())
    lines = [line.split(":") for line in listing.splitlines()]
    keys = [line for line in lines if line[0] == "sec"]
    wrong = None
    if len(keys) != 1:
        wrong = f"names {len(keys)} keys"
    elif any(line[0] == "ssb" for line in lines):
        wrong = "has subkeys"
    elif keys[0][3] != "1" or int(keys[0][2]) < LEAST_BITS:
        wrong = f"is not RSA with at least {LEAST_BITS} bits"
    elif keys[0][1] == "r":
        wrong = "is revoked"
    elif keys[0][6]:
        wrong = "expires"
    # Lower-case letters are the abilities of the key itself; every primary key can certify.
    elif sorted(letter for letter in keys[0][11] if letter.islower()) != ["c", "s"]:
        wrong = "is not a signing-only key"
    if wrong:
        raise BuildError(f"The key {wrong}: hosts cannot use it.")
    fingerprint = next(line[9] for line in lines if line[0] == "fpr")
    return found._replace(fingerprint=fingerprint)
