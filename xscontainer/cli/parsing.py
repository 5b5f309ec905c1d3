"""The parser of the command line. It imports the module of a subcommand when that command is used."""

import argparse
import importlib
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Sequence, Set

from xscontainer.cli import examples, server_options
from xscontainer.cli.examples import Example
from xscontainer.cli.table import Command


def _meant(word: str, known: "Iterable[str]") -> str:
    from xscontainer.core.naming import did_you_mean  # here for start-up time

    return " " + did_you_mean(word, list(known))


class Parser(argparse.ArgumentParser):
    """A parser whose errors name the word that was probably meant.

    :ivar examples: shown at the end of the help.
    """

    examples: Sequence[Example] = ()

    def format_help(self) -> str:
        text = super().format_help()
        if self.examples:
            text += "\nexamples:\n" + "".join(f"  {each.line}\n      {each.does}\n" for each in self.examples)
        return text

    def parse_args(self, args: "Optional[Sequence[str]]" = None,  # type: ignore[override]
                   namespace: Any = None) -> argparse.Namespace:
        options, left = self.parse_known_args(args, namespace)
        if left:
            known = [name for action in self._actions for name in action.option_strings]
            self.error(f"unrecognized arguments: {' '.join(left)}.{_meant(left[0], known)}")
        return options

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            self.error(f"There is no command {value!r}.{_meant(value, action.choices)}")
        super()._check_value(action, value)


class Commands(argparse._SubParsersAction):
    """The subcommands of a parser: use it as ``add_subparsers(action=Commands)``, then call :meth:`add` for each one.

    :ivar parsers: name or alias -> parser.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parsers = _Parsers(self)
        self.choices = self.parsers  # type: ignore[assignment]

    def add(self, command: Command) -> None:
        """Add a row of the table."""
        for name in (command.name, *command.aliases):
            self.parsers.commands[name] = command
        self._choices_actions.append(self._ChoicesPseudoAction(command.name, command.aliases, command.help))

    def new(self, name: str, **options: Any) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = self._parser_class(prog=f"{self._prog_prefix} {name}", **options)
        return made

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: Optional[str] = None) -> None:
        # Unknown options are an error of the subcommand, which knows what was meant.
        setattr(namespace, self.dest, values[0])
        for name, value in vars(self.parsers[values[0]].parse_args(values[1:])).items():
            setattr(namespace, name, value)


class _Parsers(Mapping[str, argparse.ArgumentParser]):
    """The parsers of the subcommands, each made when it is first asked for."""

    def __init__(self, action: Commands) -> None:
        self.commands: Dict[str, Command] = {}
        self._action = action
        self._made: Dict[str, argparse.ArgumentParser] = {}
        self._complete: Set[str] = set()

    def __getitem__(self, name: str) -> argparse.ArgumentParser:
        command = self.commands[name]
        if command.name not in self._made:
            importlib.import_module(command.module).add(self)
        if command.name not in self._complete:
            made = self._made[command.name]
            server_options.add_again(made)
            if isinstance(made, Parser):
                made.examples = examples.of(command.name)
            self._complete.add(command.name)
        return self._made[command.name]

    def __iter__(self) -> "Iterator[str]":
        return iter(self.commands)

    def __len__(self) -> int:
        return len(self.commands)

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Make the parser of a subcommand. Its line of help is in the table."""
        made = self._made[name] = self._action.new(name, **options)
        return made
