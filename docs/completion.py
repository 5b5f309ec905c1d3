"""Make the table that completes command lines, xscontainer/cli/completion/words.json, from the parsers."""

import argparse
import json
from typing import Any, Dict

from xscontainer.cli.table import COMMANDS

# Word in the usage -> kind of word that xscontainer/cli/completion/candidates.py knows.
_KINDS = {"VM": "VM", "UUID": "VM", "CONTAINER": "CONTAINER", "HOST": "HOST", "NETWORK": "NETWORK", "SR": "SR",
          "TEMPLATE": "TEMPLATE", "FILE": "FILE", "IMAGE": "FILE", "VM|CONTAINER": "VM|CONTAINER"}


def words(parser: argparse.ArgumentParser) -> str:
    """Return the table as JSON.

    Each parser is ``{"help", "options": {name: kind}, "arguments": [{"kind", "many"}], "commands": {name: parser}}``. A
    kind is null for an option without a value, a list of the words that are allowed, or a word of candidates.py.
    """
    table = _parser(parser, "")
    table["aliases"] = {alias: command.name for command in COMMANDS for alias in command.aliases}
    for alias in table["aliases"]:
        del table["commands"][alias]
    return json.dumps(table, indent=1, sort_keys=True) + "\n"


def _parser(parser: argparse.ArgumentParser, help: str) -> Dict[str, Any]:
    made: Dict[str, Any] = {"help": help, "options": {}}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            made["commands"] = {name: _parser(child, helps.get(name, "")) for name, child in action.choices.items()}
        elif not action.option_strings:
            made.setdefault("arguments", []).append({"kind": _kind(action), "many": action.nargs in ("+", "*")})
        elif action.help != argparse.SUPPRESS:
            made["options"][max(action.option_strings, key=len)] = _kind(action)
            # A short option is not offered, but its value is completed.
            for name in action.option_strings:
                made["options"].setdefault(name, _kind(action))
    return made


def _kind(action: argparse.Action) -> Any:
    if action.nargs == 0:
        return None
    if action.choices is not None:
        return sorted(map(str, action.choices))
    return _KINDS.get(action.metavar if isinstance(action.metavar, str) else "", "")
