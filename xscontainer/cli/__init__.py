"""xscontainer: looks at the pool's containers from any of its hosts.

Every subcommand is a module of this package with a function ``add`` that takes
argparse's subparsers and sets ``run``: (options, settings) -> exit code.

Exit codes: 0 done, 1 XAPI does not answer or refuses, 2 called wrongly; a command may add its own.
"""

import argparse
import contextlib
import errno
import os
import signal
import sys
import threading
from typing import Iterator, List, Optional

from xscontainer import __version__, settings
from xscontainer.cli import creating, diagnosing, drive, hostkeys, listing, preparing, rotating, wiping
from xscontainer.cli.telling import say
from xscontainer.errors import ArgumentError, SettingsError, XapiError, XSContainerError

MOST_ERROR = 10000  # characters
# The reader has seen enough (| head), or the terminal has gone: exit code.
_NOBODY_READS = {errno.EPIPE: 0, errno.EIO: 128 + signal.SIGHUP}

COMMANDS = (listing, creating, preparing, diagnosing, drive, hostkeys, rotating, wiping)


def main(arguments: "Optional[List[str]]" = None) -> int:
    """Entry point; returns the exit code."""
    return guarded("xscontainer", _parser().parse_args(arguments))


def guarded(program: str, options: argparse.Namespace) -> int:
    """``options.run`` with the settings that ``options.config`` names; what goes wrong is told as a person reads it."""
    with _ended_in_order():
        return _guarded(program, options)


@contextlib.contextmanager
def _ended_in_order() -> "Iterator[None]":
    """Have what was begun taken back when we are told to end, or the terminal goes: a disc with a key, for instance."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # once is enough
        raise SystemExit(128 + number)

    # One that is ignored stays so: that is how nohup works.
    before = {number: handler for number, handler in (
        (number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGHUP))
        if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _guarded(program: str, options: argparse.Namespace) -> int:
    try:
        loaded = settings.load(options.config)
        for warning in loaded.warnings:
            say(f"{program}: {warning}", MOST_ERROR)
        code: int = options.run(options, loaded.settings)
        sys.stdout.flush()
        return code
    except XSContainerError as error:
        say(f"{program}: {' '.join(str(error).split())}", MOST_ERROR)
        wrongly = isinstance(error, (SettingsError, ArgumentError)) or \
            isinstance(error, XapiError) and error.details[:1] == [ArgumentError.code]
        return 2 if wrongly else 1
    except OSError as error:
        if error.errno not in _NOBODY_READS:
            raise
        # Python would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS[error.errno]
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xscontainer", description="Looks at the pool's containers from any of its hosts.",
        epilog="Exit codes: 0 done, 1 XAPI does not answer or refuses, 2 called wrongly, 3 see the command.")
    parser.add_argument("--config", metavar="FILE", help=f"settings file (default: ${settings.ENVIRONMENT_VARIABLE} "
                                                         f"or {settings.DEFAULT_PATH})")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    commands.required = True
    for command in COMMANDS:
        command.add(commands)
    return parser
