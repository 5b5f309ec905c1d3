"""The command line imports the module of the command that is used, and names the word that was probably meant."""

import subprocess
import sys
from pathlib import Path
from typing import Set

import pytest

from xscontainer.cli import program
from xscontainer.cli.parsing import Commands, Parser
from xscontainer.cli.table import COMMANDS, Command

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([sys.executable, "-W", "ignore", "-m", "xscontainer.cli", *arguments], cwd=str(ROOT),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)


def imported(*arguments: str) -> Set[str]:
    """Return the modules of cli/ that a command line imports."""
    code = ("import sys\nfrom xscontainer.cli import program\n"
            "try:\n    program.parser().parse_args(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
            "print('\\n' + ' '.join(sys.modules))")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *arguments], cwd=str(ROOT),
                          stdout=subprocess.PIPE, timeout=60, check=True)
    prefix = "xscontainer.cli."
    return {name[len(prefix):] for name in done.stdout.decode().splitlines()[-1].split() if name.startswith(prefix)}


def test_the_help_imports_no_command() -> None:
    found = imported("--help")
    assert found & {command.module.rpartition(".")[2] for command in COMMANDS} == set()
    assert found & {"plugin_call", "inventory", "lookup", "ui.progress", "ui.live"} == set()


def test_the_list_imports_no_other_command() -> None:
    assert imported("list", "--help") & {each.module.rpartition(".")[2] for each in COMMANDS} == {"ps"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_module_of_a_command_makes_the_parser_of_its_row(command: Command) -> None:
    commands = program.parser()._subparsers._group_actions[0]  # type: ignore[union-attr]
    assert isinstance(commands, Commands)
    for name in (command.name, *command.aliases):
        assert commands.parsers[name].prog == f"xscontainer {command.name}"
    assert command.help and not command.help.endswith(".") and len(command.help) < 60


def test_no_name_of_a_command_occurs_twice() -> None:
    names = [name for command in COMMANDS for name in (command.name, *command.aliases)]
    assert len(set(names)) == len(names)


def test_the_help_lists_every_command() -> None:
    shown = run("--help").stdout.decode()
    assert [command.name for command in COMMANDS if f"    {command.name}" not in shown] == []
    assert [command.help for command in COMMANDS if command.help.split()[0] not in shown] == []


@pytest.mark.parametrize("words, said", [
    ("diagnos", "There is no command 'diagnos'. Did you mean 'diagnose'?"),
    ("drive writ VM -", "There is no command 'writ'. Did you mean 'write'?"),
    ("wipe --hepl", "unrecognized arguments: --hepl. Did you mean '--help'?"),
    ("xyzzy", "There is no command 'xyzzy'."),
])
def test_a_wrong_word_gets_the_word_that_was_meant(words: str, said: str) -> None:
    done = run(*words.split())
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines()[-1].partition("error: ")[2].rstrip() == said


def test_an_alias_has_the_parser_of_its_command() -> None:
    parser = Parser(prog="p")
    commands = parser.add_subparsers(dest="command", action=Commands)
    assert isinstance(commands, Commands)
    commands.add(Command("wipe", "help", aliases=("clean",)))
    assert commands.parsers["clean"] is commands.parsers["wipe"]
    assert parser.parse_args(["clean"]).command == "clean"
