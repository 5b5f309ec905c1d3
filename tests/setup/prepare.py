"""Prepare virtual environments (and the tests' real parts), then print their interpreters, one a line.

    python3 -m tests.setup.prepare {run,test,fast,lint} [INTERPRETER ...] [-- PYTEST'S ARGUMENT ...]

INTERPRETER is a name (python3.6), a path, or ``current``, the newest installed one that is supported. The default is
``current``, and for ``test`` under CI also python3.6. Each interpreter has an environment in .venv/py<version>, and a
ready one is only checked, in milliseconds. ``test`` also installs the programs that the chosen tests need, and tries if
the engines among them can run here; ``fast`` installs no program.
"""

import argparse
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from tests.setup import parts
from tests.setup.parts import ROOT, find, say

VENVS = ROOT / ".venv"
REQUIREMENTS = ROOT / "requirements"
OLDEST = "python3.6"
NEWEST_FIRST = ["python3.13", "python3.12", "python3.11", "python3.10", "python3"]
LOOK = "import json, sys; print(json.dumps([sys.executable, list(sys.version_info[:2])]))"
PIP_SECONDS = 1200


class SetupFailed(Exception):
    """The set-up failed; the text is a sentence that says what is missing and what to do."""


class Interpreter(NamedTuple):
    path: str
    version: Tuple[int, int]

    @property
    def venv(self) -> Path:
        return VENVS / "py{}.{}".format(*self.version)

    @property
    def requirements(self) -> Path:
        """Current releases need 3.11 or newer; those pinned for 3.6 run up to 3.10 as well."""
        return REQUIREMENTS / ("current.txt" if self.version >= (3, 11) else "py36.txt")


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Prepare virtual environments; print their interpreters.")
    parser.add_argument("purpose", choices=["run", "test", "fast", "lint"])
    parser.add_argument("interpreters", nargs="*", metavar="INTERPRETER")
    given, arguments = split(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(given)
    strict = bool(os.environ.get("CI"))
    names = args.interpreters or ([OLDEST, "current"] if args.purpose == "test" and strict else ["current"])
    VENVS.mkdir(exist_ok=True)
    try:
        with open(str(VENVS / ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            chosen = choose(names, strict)
            for interpreter in chosen:
                prepare(interpreter, lint=args.purpose == "lint")
            if args.purpose == "test":
                provide(str(chosen[0].venv / "bin" / "python"), arguments, strict)
    except SetupFailed as error:
        say(f"set-up failed: {error}")
        return 1
    for interpreter in chosen:
        print(os.path.relpath(str(interpreter.venv / "bin" / "python"), str(ROOT)))
    return 0


def split(argv: List[str]) -> Tuple[List[str], List[str]]:
    """Return the arguments before and after ``--``."""
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1:]


def provide(python: str, arguments: List[str], strict: bool) -> None:
    """Return the programs that the chosen tests need.

    :param python: that of an environment that is ready.
    :param arguments: pytest's.
    :raises SetupFailed: strict, and one is missing or cannot run.
    """
    programs = None
    if arguments and (parts.missing() or not parts.node_is_there()):
        programs = set(ask(python, "tests.setup.chosen", arguments))
    if not parts.provide(strict, programs):
        raise SetupFailed("Under CI every part must be installed.")
    if strict and (programs is None or parts.SERVERS in programs):
        idle = ask(python, "tests.setup.probe", [])
        if idle:
            raise SetupFailed("Under CI every part must run: " + "; ".join(idle))


def ask(python: str, module: str, arguments: List[str]) -> List[str]:
    """Run a module of this tree and return the lines that it prints.

    :raises SetupFailed: when it fails or takes too long.
    """
    try:
        asked = subprocess.run([python, "-W", "ignore", "-m", module] + arguments, cwd=str(ROOT), check=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=300)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise SetupFailed(str(error)) from error
    return asked.stdout.decode().splitlines()


def choose(names: List[str], strict: bool) -> List[Interpreter]:
    """Return the interpreters with these names, each once.

    :param strict: an absent one is a failure; else the current one stands in for it.
    """
    chosen: List[Interpreter] = []
    for name in names:
        found = current() if name == "current" else look_up(name)
        if found is None and name != "current" and not strict:
            say(f"there is no {name} here (neither on PATH nor from pyenv); using the current Python instead")
            found = current()
        if found is None:
            raise SetupFailed(f"There is no working {name}, neither on PATH nor from pyenv.")
        if found.version < (3, 6):
            raise SetupFailed(f"{found.path} is too old; Python 3.6 is the oldest that works.")
        if found.venv not in [other.venv for other in chosen]:
            chosen.append(found)
    return chosen


def current() -> Optional[Interpreter]:
    for name in NEWEST_FIRST:
        found = look_up(name)
        if found is not None:
            return found
    return None


def look_up(name: str) -> Optional[Interpreter]:
    """Return the interpreter with this name on PATH, or the newest one of pyenv."""
    program = find(name)
    wanted = name[len("python"):] if os.path.basename(name) == name and name.startswith("python3.") else ""
    found = examine(program) if program else None
    if found is None and wanted:
        found = examine(_from_pyenv(wanted))
    if found is not None and wanted and "{}.{}".format(*found.version) != wanted:
        return None
    return found


def examine(program: str) -> Optional[Interpreter]:
    """Return the interpreter of ``program``; None if it does not run, like pyenv's shims of disabled versions."""
    if not program:
        return None
    try:
        asked = subprocess.run([program, "-c", LOOK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
        path, version = json.loads(asked.stdout.decode())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return Interpreter(path, (version[0], version[1]))


def _from_pyenv(version: str) -> str:
    """Return the path of the newest ``version``.* of pyenv, or ''."""
    if not find("pyenv"):
        return ""
    asked = subprocess.run([find("pyenv"), "root"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    versions = Path(asked.stdout.decode().strip()) / "versions"
    numbered = [path for path in versions.glob(version + ".*") if path.name[len(version) + 1:].isdigit()]
    newest = sorted(numbered, key=lambda path: int(path.name[len(version) + 1:]))[-1:]
    return str(newest[0] / "bin" / "python") if newest else ""


def prepare(interpreter: Interpreter, lint: bool) -> None:
    """Install exactly the pinned packages, and this package itself, into the environment of ``interpreter``."""
    python = str(interpreter.venv / "bin" / "python")
    existing = examine(python)
    if existing is None or existing.version != interpreter.version:
        create(interpreter)
    with _stamp(interpreter, "package", [interpreter.requirements, ROOT / "setup.py", ROOT / "setup.cfg"]) as stamp:
        if stamp.stale:
            say(f"installing into {interpreter.venv}")
            # The pip of an old Python does not support today's wheels.
            pip(python, [line for line in pins(interpreter.requirements) if line.startswith(("pip=", "setuptools="))])
            pip(python, ["-r", str(interpreter.requirements)])
            pip(python, ["--no-build-isolation", "--no-deps", "-e", str(ROOT)])
    if lint:
        with _stamp(interpreter, "lint", [REQUIREMENTS / "lint.txt"]) as stamp:
            if stamp.stale:
                pip(python, ["-r", str(REQUIREMENTS / "lint.txt")])


def pins(requirements: Path) -> List[str]:
    lines = [line.strip() for line in requirements.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


class _stamp:
    """A record of an installation: says if it is stale, and is written only if the block under ``with`` succeeds."""

    def __init__(self, interpreter: Interpreter, name: str, inputs: List[Path]) -> None:
        digest = hashlib.sha256(str(ROOT).encode())
        for path in inputs + [Path(__file__)]:
            digest.update(path.read_bytes())
        self._wanted = digest.hexdigest()
        self._path = interpreter.venv / f".installed-{name}"
        self.stale = not self._path.exists() or self._path.read_text() != self._wanted

    def __enter__(self) -> "_stamp":
        return self

    def __exit__(self, kind: Optional[type], *_: object) -> None:
        if kind is None and self.stale:
            self._path.write_text(self._wanted)


def create(interpreter: Interpreter) -> None:
    """Make the virtual environment, by virtualenv if this Python has no ensurepip (like Debian's python3)."""
    say(f"creating {interpreter.venv} with {interpreter.path}")
    if not _has(interpreter.path, "ensurepip") and parts.can_install():
        parts.apt_install(["python{}.{}-venv".format(*interpreter.version)])
    if _has(interpreter.path, "ensurepip"):
        run([interpreter.path, "-m", "venv", "--clear", str(interpreter.venv)])
        return
    environ = dict(os.environ)
    if not _has(interpreter.path, "virtualenv"):
        if not _has(interpreter.path, "pip"):
            raise SetupFailed(
                f"{interpreter.path} can make no virtual environment: "
                "install its module venv (Debian: apt-get install python3-venv) or virtualenv."
            )
        # A directory of our own: the system's packages stay unchanged.
        bootstrap = str(VENVS / "bootstrap")
        run([interpreter.path, "-m", "pip", "install", "-q", "--target", bootstrap, "virtualenv"])
        environ["PYTHONPATH"] = bootstrap
    run([interpreter.path, "-m", "virtualenv", "-q", "--clear", str(interpreter.venv)], environ)


def _has(python: str, module: str) -> bool:
    code = f"import {module}"
    return subprocess.run([python, "-c", code], stderr=subprocess.DEVNULL, timeout=60).returncode == 0


def pip(python: str, arguments: List[str]) -> None:
    run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"] + arguments)


def run(argv: List[str], environ: Optional[Dict[str, str]] = None) -> None:
    """Run one step; its output goes to stderr.

    :raises SetupFailed: it failed or took too long.
    """
    try:
        subprocess.run(
            argv,
            env=environ,
            cwd=str(ROOT),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            timeout=PIP_SECONDS,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise SetupFailed(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
