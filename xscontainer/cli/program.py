"""The program xscontainer: its parser, its exit code and its end by a signal."""

import argparse
import contextlib
import errno
import os
import signal
import sys
import threading
from typing import Iterator, List, Optional

from xscontainer import settings, version_text
from xscontainer.cli import exit_codes, server_options
from xscontainer.cli.parsing import Commands, Parser
from xscontainer.cli.table import COMMANDS
from xscontainer.cli.ui.output import MOST_ERROR, complain, say
from xscontainer.cli.ui.terminal import AUTO, WHEN
from xscontainer.errors import Ambiguous, XSContainerError

# errno of a write -> exit code: the reader has seen enough (| head), or the terminal is gone.
_NO_READER = {errno.EPIPE: 0, errno.EIO: 128 + signal.SIGHUP}


def main(arguments: "Optional[List[str]]" = None) -> int:
    """Run a command line and return its exit code."""
    with orderly_exit():
        return guarded("xscontainer", parser().parse_args(arguments))


@contextlib.contextmanager
def orderly_exit() -> "Iterator[None]":
    """Turn SIGTERM and SIGHUP into SystemExit while a command runs, so that clean-up runs; keep the exit code."""
    try:
        with _signals_as_exit():
            yield
    except OSError as error:  # also of argparse, which prints
        if error.errno not in _NO_READER:
            raise
        raise SystemExit(_NO_READER[error.errno]) from error
    finally:
        _drop_unwritten()


def _drop_unwritten() -> None:
    """Drop output that a vanished terminal or reader does not accept.

    Python flushes both streams when it ends. If that fails it exits with 120, whatever the exit code was.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _signals_as_exit() -> "Iterator[None]":
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    received: List[int] = []

    def end(number: int, _frame: object) -> None:
        received.append(number)
        for each in before:
            # One signal is enough. Not SIG_IGN: Python fails on a signal that has arrived by then.
            signal.signal(each, lambda *_: None)
        raise SystemExit(128 + number)

    # A signal that is ignored stays ignored: nohup works by that.
    before = {number: handler for number, handler in (
        (number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGHUP))
        if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        if received:
            # The process ends now. While Python ends, it restores the default actions: a second signal would replace
            # the exit code by its own.
            signal.pthread_sigmask(signal.SIG_BLOCK, before)
        else:
            for number, handler in before.items():
                signal.signal(number, handler)


def guarded(program: str, options: argparse.Namespace) -> int:
    """Run ``options.run`` with the settings of ``options.config``; print errors for people and return the exit code."""
    try:
        loaded = settings.load(options.config)
        for warning in loaded.warnings:
            say(f"{program}: {warning}", MOST_ERROR)
        code: int = options.run(options, loaded.settings)
        sys.stdout.flush()
        return code
    except XSContainerError as error:
        complain(error, program=program)
        if isinstance(error, Ambiguous):
            for candidate in error.candidates:
                say(f"  {candidate}", MOST_ERROR)
        return exit_codes.of(error)
    except OSError as error:
        if error.errno not in _NO_READER:
            raise
        return _NO_READER[error.errno]
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with a subparser for each command."""
    made = Parser(
        prog="xscontainer", description="See into the containers in a pool's VMs and act on them, with docker's words. "
                                        "Prepare, create and diagnose these VMs. Commands work on any host of the "
                                        "pool, and with --server from any machine.",
        epilog=exit_codes.in_words())
    made.add_argument("--config", metavar="FILE", help=f"settings file (default: ${settings.ENVIRONMENT_VARIABLE} "
                                                         f"or {settings.DEFAULT_PATH})")
    made.add_argument("--color", choices=WHEN, default=AUTO, metavar="WHEN",
                      help="use colours: auto (on a terminal, unless NO_COLOR is set or TERM is dumb), always or never")
    made.add_argument("--version", action="version", version=version_text(made.prog),
                      help="print name, version and commit, and exit")
    server_options.add(made)
    commands = made.add_subparsers(title="commands", dest="command", metavar="COMMAND", action=Commands)
    commands.required = True
    for command in COMMANDS:
        commands.add(command)  # type: ignore[attr-defined]
    return made
