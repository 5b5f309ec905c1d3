"""Write the reference pages and man pages from the code's own tables; ``--check`` only says which are stale.

    python docs/generate.py [--check]

argparse formats its help differently in each version of Python, so the pages are made from the parsers' data.
"""

import argparse
import os
import re
import sys
import textwrap
from typing import Dict, List, NamedTuple, Optional, Tuple, Type

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from docs import blocks, completion, support  # noqa: E402
from xscontainer import errors, settings  # noqa: E402
from xscontainer.cli import exit_codes, prepare_vm  # noqa: E402
from xscontainer.cli import program as command_line  # noqa: E402
from xscontainer.cli.examples import Example  # noqa: E402
from xscontainer.core.verb import CLASSES, EVERYONE, LONG, NO_COMMAND, Verb  # noqa: E402
from xscontainer.plugin.dispatch import ANSWERED_WITHIN  # noqa: E402
from xscontainer.service import daemon  # noqa: E402
from xscontainer.verbs.table import VERBS  # noqa: E402

DOCS = os.path.join(ROOT, "docs")
WIDTH = 116
MADE = "<!-- Made by docs/generate.py; change the code instead. -->\n"
CODES, COMMANDS, FUNCTIONS, SUPPORT = "CODES", "COMMANDS", "VERBS", "SUPPORT"


class Argument(NamedTuple):
    """:ivar written: as it is typed: "--host HOST", "VM", "-u, --user USER"."""

    written: str
    meaning: str


class Command(NamedTuple):
    """:ivar name: with the program's: "xscontainer drive write"."""

    name: str
    usage: str
    description: str
    arguments: Tuple[Argument, ...]
    epilog: str
    commands: "Tuple[Command, ...]"
    examples: Tuple[Example, ...] = ()


# --- parsers ----------------------------------------------------------------


def describe(parser: argparse.ArgumentParser, short: str = "") -> Command:
    """Describe a parser with its subcommands.

    :param short: the help text of the subcommand, for parsers without a description.
    """
    arguments, commands = [], []
    words = [parser.prog]
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            # An alias has the parser of its command, whose own name comes first.
            unique = {id(child): (name, child) for name, child in reversed(list(action.choices.items()))}
            commands += [describe(child, helps.get(name, "")) for name, child in reversed(list(unique.values()))]
            words.append("COMMAND ...")
            continue
        written = _written(action)
        meaning = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
        arguments.append(Argument(written, meaning))
        words.append(_in_usage(action))
    return Command(parser.prog, " ".join(words), parser.description or short, tuple(arguments), parser.epilog or "",
                   tuple(commands), tuple(getattr(parser, "examples", ())))


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices is not None and action.metavar is None:
        return "|".join(map(str, action.choices))
    metavar = action.metavar or action.dest.upper().replace("_", "-")
    return str(metavar if isinstance(metavar, str) else " ".join(metavar))


def _written(action: argparse.Action) -> str:
    names, value = ", ".join(action.option_strings), _value(action)
    return f"{names} {value}".strip() if names else value


def _in_usage(action: argparse.Action) -> str:
    if not action.option_strings:
        value = _value(action) + ("..." if action.nargs in ("+", "*") else "")
        return f"[{value}]" if action.nargs in ("?", "*") else value
    longest = max(action.option_strings, key=len)
    text = f"{longest} {_value(action)}".strip()
    return text if action.required else f"[{text}]"


def programs() -> List[Command]:
    """The three programs, as users call them."""
    return [describe(command_line.parser()), describe(prepare_vm.parser()), describe(daemon.parser())]


# --- Markdown ---------------------------------------------------------------


def cli_page() -> str:
    lines = [MADE, "# Commands", ""]
    for program in programs():
        lines += _command(program, 2)
    lines += ["## Exit codes", "", "| code | meaning | error codes that lead to it |", "|---|---|---|"]
    lines += [f"| {row.code} | {_cell(row.meaning)} | {_names(row.errors) or '-'} |" for row in exit_codes.rows()]
    return "\n".join(lines).rstrip() + "\n"


def _command(command: Command, level: int) -> List[str]:
    usage = textwrap.wrap(command.usage, WIDTH, subsequent_indent="    ", break_long_words=False,
                          break_on_hyphens=False)
    lines = [f"{'#' * min(level, 4)} {command.name}", "", "```text"] + usage + ["```", ""]
    if command.description:
        lines += [_prose(command.description), ""]
    if command.arguments:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{_cell(found.written)}` | {_cell(found.meaning)} |" for found in command.arguments] + [""]
    if command.epilog:
        lines += [_prose(command.epilog), ""]
    if command.examples:
        lines += ["| example | what it does |", "|---|---|"]
        lines += [f"| `{_cell(example.line)}` | {_cell(example.does)} |" for example in command.examples] + [""]
    for child in command.commands:
        lines += _command(child, level + 1)
    return lines


def _prose(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def settings_page() -> str:
    lines = [MADE, "# Settings", "",
             _prose(f"`{settings.DEFAULT_PATH}`, or the file that the environment variable "
                    f"`{settings.ENVIRONMENT_VARIABLE}` names. Every key is optional. Restart `xscontainer-monitor` "
                    "after a change. The installed file lists every key with its default."), ""]
    section = ""
    for name, key, default, described in settings.rows():
        if name != section:
            lines += [""] if section else []
            lines += [f"## [{name}]", "", "| key | default | allowed | meaning |", "|---|---|---|---|"]
            section = name
        shown = f"`{default}`" if default else "empty"
        lines.append(f"| `{key}` | {shown} | {_cell(described.kind.allowed)} | {_cell(described.meaning)} |")
    return "\n".join(lines) + "\n"


def codes() -> str:
    """A heading for each error code, each class before its subclasses."""
    lines: List[str] = []
    for kind in _classes(errors.XSContainerError):
        if "code" not in vars(kind) or kind is errors.XSContainerError:
            continue
        meaning = re.split(r"\n\s*:(?:param|[ic]var)", kind.__doc__ or "")[0]
        lines += [f"### {kind.code}", "", _prose(meaning), ""]
        if kind.default_hint:
            lines += [_prose("**What to do:** " + kind.default_hint), ""]
    for code, (meaning, remedy) in errors.PLUGIN_CODES.items():
        lines += [f"### {code}", "", _prose(meaning), "", _prose("**What to do:** " + remedy), ""]
    return "\n".join(lines).rstrip() + "\n"


def commands() -> str:
    """A table of the commands in the documentation that no test runs."""
    lines = ["| page | command | reason |", "|---|---|---|"]
    for block in blocks.not_run():
        shown = "<br>".join(f"`{_cell(command)}`" for command in block.commands)
        lines.append(f"| {block.page} | {shown} | {block.mark.reason if block.mark else ''} |")
    lines += ["", "These stand in the text:", "", "| command | pages |", "|---|---|"]
    found = sorted({(command, page) for page, command in blocks.inline(blocks.OF_THE_HOST)})
    for command in sorted({command for command, _ in found}):
        lines.append(f"| `{_cell(command)}` | {', '.join(page for name, page in found if name == command)} |")
    return "\n".join(lines) + "\n"


def _classes(of: Type[errors.XSContainerError]) -> List[Type[errors.XSContainerError]]:
    return [of] + [below for child in of.__subclasses__() for below in _classes(child)
                   if below.__module__.startswith(errors.__name__ + ".")]


def verbs() -> str:
    """Tables of the functions: arguments and results; roles, hosts and times; and of the classes."""
    lines = ["| function | what it does | arguments | optional | result after `True` |", "|---|---|---|---|---|"]
    for verb in VERBS.values():
        lines.append(f"| `{verb.name}` | {verb.help} | {_arguments(verb, True)} | {_arguments(verb, False)} | "
                     f"{verb.result} |")
    lines += ["", "| function | role | class | served on | answered within | command |", "|---|---|---|---|---|---|"]
    for verb in VERBS.values():
        within = "minutes" if verb.lane == LONG else f"{ANSWERED_WITHIN + verb.patience + 2.0:.0f} s"
        lines.append(f"| `{verb.name}` | {_role(verb)} | {verb.policy_class.name} | {verb.place} | {within} | "
                     f"{_command_of(verb)} |")
    lines += ["", _prose("The class says what a function reveals or changes. The plugin does not look at it: XAPI lets "
                         "nobody below vm-operator call a plugin. A door that knows its callers may ask them for the "
                         "role of the class, too."), "", "| class | role | reason |", "|---|---|---|"]
    lines += [f"| {found.name} | {found.role} | {found.reason} |" for found in CLASSES]
    return "\n".join(lines) + "\n"


def _names(names: Tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _arguments(verb: Verb, required: bool) -> str:
    return ", ".join(f"`{each.name}`" + (f" ({each.form})" if each.form else "") for each in verb.arguments
                     if each.required is required)


def _role(verb: Verb) -> str:
    special = [argument for argument in verb.arguments if argument.permission != EVERYONE]
    return verb.permission.role + (
        f"; with {_names(tuple(each.name for each in special))} {special[0].permission.role}" if special else "")


def _command_of(verb: Verb) -> str:
    return verb.command if verb.command.startswith(NO_COMMAND) else f"`xscontainer {verb.command}`"


def between(text: str, name: str, made: str) -> str:
    """Replace the part of ``text`` between the marks of ``name``.

    :raises ValueError: the marks are not there.
    """
    begin, end = f"<!-- {name}: made by docs/generate.py -->\n", f"<!-- end of {name} -->"
    before, mark, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not mark or not last:
        raise ValueError(f"the marks of {name} are missing")
    return before + begin + "\n" + made + "\n" + end + after


# --- man pages --------------------------------------------------------------


def man_page(command: Command, section: int, see: str) -> str:
    """A page in roff."""
    name = command.name.replace(" ", "-")
    lines = [f'.TH {name.upper()} {section} "" "xscontainer"', ".SH NAME",
             f"{_roff(name)} \\- {_roff(_first_sentence(command.description))}",
             ".SH SYNOPSIS", ".B " + _roff(command.usage), ".SH DESCRIPTION", _roff(command.description)]
    lines += _options(command)
    if command.commands:
        lines.append(".SH COMMANDS")
        for child in command.commands:
            lines += _man_command(child)
    if command.epilog:
        lines += [".SH EXIT STATUS", _roff(command.epilog)]
    return "\n".join(lines + [".SH FILES", ".TP", ".I " + settings.DEFAULT_PATH, "Settings, see xscontainer.conf(5).",
                              ".SH SEE ALSO", see]) + "\n"


def _options(command: Command) -> List[str]:
    lines = [".SH OPTIONS"] if command.arguments else []
    for found in command.arguments:
        lines += [".TP", ".B " + _roff(found.written), _roff(found.meaning) or "\\&"]
    return lines


def _man_command(command: Command) -> List[str]:
    lines = [".SS " + _roff(command.usage), _roff(command.description) or "\\&"]
    for found in command.arguments:
        lines += [".TP", ".B " + _roff(found.written), _roff(found.meaning) or "\\&"]
    if command.epilog:
        lines += [".PP", _roff(command.epilog)]
    for example in command.examples:
        does = example.does[0].upper() + example.does[1:] + "."
        lines += [".PP", "Example:", ".B " + _roff(example.line), ".br", _roff(does)]
    for child in command.commands:
        lines += _man_command(child)
    return lines


def settings_man() -> str:
    lines = ['.TH XSCONTAINER.CONF 5 "" "xscontainer"', ".SH NAME", "xscontainer.conf \\- settings of xscontainer",
             ".SH SYNOPSIS", ".I " + settings.DEFAULT_PATH, ".SH DESCRIPTION",
             "An INI file. Every key is optional. Restart xscontainer\\-monitor after a change. The environment "
             f"variable {settings.ENVIRONMENT_VARIABLE} names another file."]
    section = ""
    for name, key, default, described in settings.rows():
        if name != section:
            lines.append(f".SH [{name}]")
            section = name
        lines += [".TP", ".B " + _roff(key), _roff(described.meaning) + " " + _roff(
            f"Allowed: {described.kind.allowed}. Default: {default or 'empty'}.")]
    return "\n".join(lines + [".SH SEE ALSO", "xscontainer(1), xscontainer\\-monitor(8)"]) + "\n"


def _roff(text: str) -> str:
    escaped = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped[:1] in (".", "'") else escaped


def _first_sentence(text: str) -> str:
    return re.split(r"\.(?:\s|$)", text, maxsplit=1)[0]


# --- all of it --------------------------------------------------------------


def pages() -> Dict[str, str]:
    """Return the wanted content of each generated file, by its path in the tree."""
    program, prepare, monitor = programs()
    return {
        "README.md": between(_text("README.md"), SUPPORT, support.readme()),
        "docs/tested.md": between(between(_text("docs/tested.md"), SUPPORT, support.tested()), COMMANDS, commands()),
        "docs/cli.md": cli_page(),
        "docs/settings.md": settings_page(),
        "docs/api.md": between(_text("docs/api.md"), FUNCTIONS, verbs()),
        "docs/troubleshooting.md": between(_text("docs/troubleshooting.md"), CODES, codes()),
        "docs/man/xscontainer.1": man_page(program, 1, "xscontainer\\-monitor(8), xscontainer.conf(5)"),
        "docs/man/xscontainer-prepare-vm.8": man_page(prepare, 8, "xscontainer(1)"),
        "docs/man/xscontainer-monitor.8": man_page(monitor, 8, "xscontainer(1), xscontainer.conf(5)"),
        "docs/man/xscontainer.conf.5": settings_man(),
        "rpm/xscontainer.conf": settings.sample(),
        "xscontainer/cli/completion/words.json": completion.words(command_line.parser()),
    }


def _text(path: str) -> str:
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def stale() -> List[str]:
    """Return the paths of the files whose content is not the wanted one."""
    return [path for path, text in pages().items() if _read(os.path.join(ROOT, path)) != text]


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is stale")
    if parser.parse_args(arguments).check:
        found = stale()
        for path in found:
            print(f"{path} is stale: run make docs")
        return 1 if found else 0
    for path, text in pages().items():
        place = os.path.join(ROOT, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8") as file:
            file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
