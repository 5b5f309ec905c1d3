"""Each command has examples that its parser takes, in its help, in the reference and in the man page."""

import shlex
from pathlib import Path

import pytest

from xscontainer.cli import examples, program
from xscontainer.cli.table import COMMANDS, Command

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_has_examples_that_can_be_typed(command: Command) -> None:
    found = examples.of(command.name)
    assert found
    for example in found:
        words = shlex.split(example.line)
        assert words[:2] == ["xscontainer", command.name]
        assert program.parser().parse_args(words[1:]).command == command.name
        assert example.does and not example.does.endswith(".")


def test_the_examples_are_in_the_help_the_reference_and_the_man_page(capsys: "pytest.CaptureFixture[str]") -> None:
    reference = (DOCS / "cli.md").read_text("utf-8")
    man = (DOCS / "man" / "xscontainer.1").read_text("utf-8").replace("\\-", "-")
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            program.main([command.name, "--help"])
        shown = capsys.readouterr().out
        for example in examples.of(command.name):
            assert f"  {example.line}\n      {example.does}\n" in shown
            assert f"| `{example.line}` | {example.does} |" in reference and example.line in man
