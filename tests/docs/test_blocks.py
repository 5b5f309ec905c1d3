"""Every command that the documentation shows is run by a test, or says why not."""

import argparse
import re

import pytest

from docs.blocks import LANGUAGES, OF_THE_HOST, ROOT, Block, Mark, blocks, inline, mark, pages, parse
from xscontainer.cli import program

ALL = [block for page in pages() for block in blocks(page)]
COMMANDS = [block for block in ALL if block.language in LANGUAGES]


def where(block: Block) -> str:
    return f"{block.page}:{block.line}"


def unknown(block: Block) -> str:
    """Return what is wrong with a block; empty if nothing is."""
    if block.language in LANGUAGES:
        return "" if block.mark else "a block of commands without a comment that says how it is tested"
    if block.language in ("", "indented"):
        return "a block without a language: fence it as sh, console or text"
    return "commands in a block of another language" if re.search(r"(?m)^\$ ", block.text) else ""


@pytest.mark.parametrize("text", [
    "```sh\nxscontainer list\n```\n", "```console\n$ xscontainer list\n```\n", "```\nxscontainer list\n```\n",
    "Run this:\n\n    xscontainer list\n", "```text\n$ xscontainer list\n```\n", "<!-- runs -->\n```sh\nxe\n```\n",
    "<!-- not run -->\n```sh\nxe\n```\n", "<!-- run by -->\n```sh\nxe\n```\n", "* Item:\n  ```sh\n  xe\n  ```\n",
    "<!-- run -->\n\n```sh\nxe\n```\n",
])
def test_a_block_that_nothing_tests_is_found(text: str) -> None:
    (block,) = parse("page.md", text)
    assert unknown(block)


@pytest.mark.parametrize("comment, meant", [
    ("<!-- run -->", Mark(run=True)),
    ("<!-- run: VM=legacy, exit 3 -->", Mark(run=True, values={"VM": "legacy"}, exit=3)),
    ("<!-- run by .ci/fresh -->", Mark(by=".ci/fresh")),
    ("<!-- not run: it needs a live host -->", Mark(reason="it needs a live host")),
])
def test_a_comment_says_how_a_block_is_tested(comment: str, meant: Mark) -> None:
    (block,) = parse("page.md", f"Text.\n\n{comment}\n```sh\nxscontainer list\n```\n")
    assert (block.mark, block.line, block.commands, unknown(block)) == (meant, 4, ["xscontainer list"], "")


def test_commands_and_their_output_are_told_apart() -> None:
    (block,) = parse("page.md", "```console\n$ one \\\n    more\nout\nput\n$ two\n```\n")
    assert block.commands == ["one     more", "two"]
    assert block.outputs == ["out\nput\n", ""]
    (block,) = parse("page.md", "```sh\n# a comment\none\n\ntwo\n```\n")
    assert block.commands == ["one", "two"]


def test_every_block_of_commands_is_tested_or_says_why_not() -> None:
    assert {where(block): unknown(block) for block in ALL if unknown(block)} == {}
    assert mark("<!-- MADE -->") is None


@pytest.mark.parametrize("block", [block for block in COMMANDS if block.mark and block.mark.by], ids=where)
def test_a_block_that_another_file_runs_is_in_that_file(block: Block) -> None:
    assert block.mark is not None
    text = (ROOT / block.mark.by).read_text("utf-8")
    for command in block.commands:
        words = [word for word in re.findall(r"[\w-]+", command) if not word.isupper()]
        missing = [word for word in words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)]
        assert missing == [], f"{block.mark.by} does not run {command!r}"


@pytest.mark.parametrize("command", sorted({command for _, command in inline(r"xscontainer(?! --| \()")}))
def test_a_command_in_the_prose_has_a_subcommand_and_options_that_exist(command: str) -> None:
    words = command.split()[1:]
    (subparsers,) = [action for action in program.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    parser = subparsers.choices[words[0]]
    options = {name for action in parser._actions for name in action.option_strings}
    assert {word.split("=")[0] for word in words if word.startswith("-")} - options == set()


def test_a_make_target_in_the_prose_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = {(page, command.split()[1]) for page, command in inline("make")}
    assert len(targets) > 10
    assert {found for found in targets if not re.search(rf"(?m)^{found[1]}:", makefile)} == set()


def test_commands_of_the_host_in_the_prose_are_listed_as_not_run() -> None:
    text = (ROOT / "docs" / "tested.md").read_text("utf-8").partition("<!-- COMMANDS")[2]
    found = {command for _, command in inline(OF_THE_HOST)}
    assert len(found) > 5
    assert {command for command in found if f"\n| `{command}` | " not in text} == set()
