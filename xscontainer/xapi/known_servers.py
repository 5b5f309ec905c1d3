"""The certificates of XAPI servers that a person has confirmed, in a file of the user's own.

Each line has a server's address and the SHA-256 fingerprint of its certificate.
"""

import contextlib
import fcntl
import os
import stat
import tempfile
from typing import Iterator, List, Mapping, Optional

from xscontainer.errors import SettingsError
from xscontainer.xapi.address import Address

MOST = 1 << 20  # bytes of the file


def default_path(environ: "Mapping[str, str]") -> str:
    """Return the path of the file of the user with this environment."""
    directory = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(directory):  # the specification has relative paths ignored
        directory = os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(directory, "xscontainer", "known_servers")


class KnownServers:
    """The file at a path; it need not exist."""

    def __init__(self, path: str) -> None:
        self.path = path

    def fingerprint(self, address: Address) -> "Optional[str]":
        """Return the confirmed fingerprint of a server, None if there is none.

        :raises SettingsError: the file cannot be read, or other users may write to it.
        """
        for line in self._lines():
            words = line.split()
            if len(words) == 2 and words[0] == str(address):
                return words[1]
        return None

    def add(self, address: Address, fingerprint: str) -> None:
        """Store a fingerprint, instead of the server's old one.

        :raises SettingsError: the file cannot be written.
        """
        try:
            path = os.path.realpath(self.path)
            directory = os.path.dirname(path)
            os.makedirs(directory, 0o700, exist_ok=True)
            with _locked(directory):
                kept = [line for line in self._lines() if line.split()[:1] != [str(address)]]
                _replace(path, "".join(f"{line}\n" for line in [*kept, f"{address} {fingerprint}"]))
        except OSError as error:
            raise SettingsError(f"The confirmed certificate cannot be stored in {self.path}: "
                                f"{error.strerror or error}.", "Give --fingerprint or --ca-file instead.") from error

    def _lines(self) -> "List[str]":
        try:
            with open(self.path, "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
                    raise SettingsError(f"The file {self.path} is not yours alone: other users may write to it.",
                                        f"Check its lines, then: chmod 600 {self.path}.")
                content = file.read(MOST + 1)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SettingsError(f"The file {self.path} cannot be read: {error.strerror or error}.") from error
        if len(content) > MOST:
            raise SettingsError(f"The file {self.path} is longer than {MOST} bytes.")
        return content.decode("utf-8", "replace").splitlines()


@contextlib.contextmanager
def _locked(directory: str) -> "Iterator[None]":
    """Hold the lock of a directory: another command may be adding a server at the same time."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: str, text: str) -> None:
    """Write a file atomically; only its owner may read it."""
    descriptor, written = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".known_servers-")  # 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(written, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(written)
        raise
