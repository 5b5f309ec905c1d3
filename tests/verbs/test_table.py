"""Every verb is declared once and completely: documented, decided, and in reach of a command."""

import argparse
import ast
import importlib
import pkgutil
from pathlib import Path
from typing import Dict, Iterator, Set, Tuple

import pytest

from xscontainer import cli, verbs
from xscontainer.cli import program
from xscontainer.core.verb import (
    ANY_HOST,
    CHANGE,
    CLASSES,
    ENGINE_HOST,
    EVERYONE,
    LONG,
    NO_COMMAND,
    PATIENT,
    PROBING,
    QUICK,
    READ,
    READING,
    ROOT,
    SEE,
    STORAGE_HOST,
    VM_HOST,
    Verb,
)
from xscontainer.verbs import table
from xscontainer.verbs.table import VERBS

API = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def modules_with_rows() -> Dict[str, Tuple[Verb, ...]]:
    found = {}
    for module in pkgutil.iter_modules(verbs.__path__):
        loaded = importlib.import_module(f"xscontainer.verbs.{module.name}")
        if loaded is not table and hasattr(loaded, "VERBS"):
            found[module.name] = loaded.VERBS
    return found


def commands(parser: argparse.ArgumentParser, words: Tuple[str, ...] = ()) -> Iterator[str]:
    """Each command of a parser, "drive write" for example."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield " ".join(words)
    for action in nested:
        for name, child in action.choices.items():
            yield from commands(child, words + (name,))


def rows_in(source: str) -> Set[str]:
    """Names of the verbs whose rows a module of the CLI uses, as ``module.ROW`` or as an imported ``ROW``."""
    tree = ast.parse(source)
    known: Dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xscontainer.verbs"):
            for alias in node.names:
                if node.module == "xscontainer.verbs":
                    value = importlib.import_module(f"xscontainer.verbs.{alias.name}")
                else:
                    value = getattr(importlib.import_module(str(node.module)), alias.name)
                known[alias.asname or alias.name] = value
    used = [known.get(node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)]
    used += [getattr(known.get(node.value.id), node.attr, None) for node in ast.walk(tree)
             if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    return {value.name for value in used if isinstance(value, Verb)}


def test_every_row_is_in_the_table_under_its_name() -> None:
    rows = [verb for family in modules_with_rows().values() for verb in family]
    assert len({verb.name for verb in rows}) == len(rows)
    assert VERBS == {verb.name: verb for verb in rows}


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_row_is_complete(name: str) -> None:
    verb = VERBS[name]
    assert callable(verb.action) and verb.help.endswith(".") and len(verb.help) < 120
    assert verb.place in (ANY_HOST, ENGINE_HOST, VM_HOST, STORAGE_HOST)
    assert verb.lane in (QUICK, PATIENT, PROBING, READING, LONG)
    assert verb.policy_class in CLASSES
    names = [argument.name for argument in verb.arguments]
    assert len(set(names)) == len(names)
    if verb.place == ENGINE_HOST:
        assert "vmuuid" in verb.required, "the host is found by the VM"


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_verb_is_documented(name: str) -> None:
    section = API.read_text("utf-8").split("<!-- end of VERBS -->")[0]
    row = next((line for line in section.splitlines() if line.startswith(f"| `{name}` |")), "")
    assert row, f"{API.name} has no row for {name}"
    assert [argument.name for argument in VERBS[name].arguments if f"`{argument.name}`" not in row] == []
    assert f"| {VERBS[name].policy_class.name} |" in section.split(f"| `{name}` |")[2].splitlines()[0]


def test_the_class_of_a_verb_never_opens_more_than_its_permission_suggests() -> None:
    by_name = {name: verb.policy_class for name, verb in VERBS.items()}
    assert {name for name, found in by_name.items() if found == ROOT} == {"key_rotate", "key_install"}
    assert by_name["get_inspect"] == by_name["get_top"] == READ, "environment variables and arguments hold secrets"
    for name, verb in VERBS.items():
        if verb.policy_class == SEE:
            assert verb.permission == EVERYONE, f"{name} needs more than seeing"
        if verb.permission != EVERYONE:
            assert verb.policy_class in (READ, CHANGE, ROOT), name


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_verb_has_a_command_or_a_reason_for_none(name: str) -> None:
    command = VERBS[name].command
    if command.startswith(NO_COMMAND):
        assert len(command) > len(NO_COMMAND) + 20, "the reason is missing"
    else:
        assert command in set(commands(program.parser()))


def test_the_cli_calls_exactly_the_verbs_that_have_a_command() -> None:
    sources = Path(cli.__file__).parent.rglob("*.py")
    used = {name for path in sources for name in rows_in(path.read_text("utf-8"))}
    assert used == {name for name, verb in VERBS.items() if not verb.command.startswith(NO_COMMAND)}


def test_an_unused_row_is_noticed() -> None:
    assert rows_in("from xscontainer.verbs import drives\nfrom xscontainer.verbs.diagnose import DIAGNOSE, diagnose\n"
                   "call(drives.READ)\ncall(DIAGNOSE)") == {"get_config_drive_configuration", "diagnose"}
    assert rows_in("from xscontainer.verbs import drives\ncall('get_config_drive_default')") == set()
