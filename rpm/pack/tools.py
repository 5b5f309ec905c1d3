"""Run the programs of the build, each with a deadline and a clean environment."""

import os
import subprocess
import sys
from typing import Dict, List, Mapping, Optional, Sequence

from tests.setup import parts

# (program, package of Debian 12).
NEEDED = [
    ("rpmbuild", "rpm"), ("rpmsign", "rpm"), ("createrepo_c", "createrepo-c"), ("xorriso", "xorriso"), ("gpg", "gnupg"),
    ("gpg-connect-agent", "gnupg"),
]
SECONDS = 600.0
_KEPT = ("PATH", "TMPDIR", "HOME", "GNUPGHOME", "XSCONTAINER_TEST_RUN", "GPG_TTY")


class BuildError(Exception):
    """A step of the build failed; the text is a sentence for people."""


def provide() -> None:
    """Install missing programs if this process may install packages.

    :raises BuildError: when a program is still missing.
    """
    missing = sorted({package for program, package in NEEDED if not parts.find(program)})
    if missing and parts.can_install():
        parts.apt_install(missing)
        missing = sorted({package for program, package in NEEDED if not parts.find(program)})
    if missing:
        raise BuildError(f"The build needs the Debian packages {' '.join(missing)}.")


def environment(epoch_seconds: int, more: Optional[Mapping[str, str]] = None) -> "Dict[str, str]":
    """Return an environment in which the same input gives the same output."""
    environ = {key: os.environ[key] for key in _KEPT if key in os.environ}
    environ.update(LC_ALL="C.UTF-8", TZ="UTC", SOURCE_DATE_EPOCH=str(epoch_seconds))
    environ.update(more or {})
    return environ


def run(argv: "Sequence[str]", environ: "Mapping[str, str]", cwd: Optional[str] = None, text: str = "") -> str:
    """Run a program and return its standard output.

    :param text: its standard input.
    :raises BuildError: when it fails or takes too long; the text has its output.
    """
    try:
        done = subprocess.run(
            list(argv), env=dict(environ), cwd=cwd, input=text.encode(), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        output = (done.stdout[-3000:] + done.stderr[-3000:]).decode(errors="replace")
        raise BuildError(f"{' '.join(argv)} failed with exit code {done.returncode}:\n{output}")
    return done.stdout.decode(errors="replace")


def pip_download(arguments: "List[str]") -> None:
    """Run ``pip download`` in the caller's environment, which says where packages come from.

    :raises BuildError: when pip fails.
    """
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-input"]
    run(command + arguments, os.environ)
