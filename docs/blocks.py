"""Find the fenced code blocks of the documentation, and read how each block with commands is tested.

A block with commands has the language ``sh`` (commands only) or ``console`` (commands after ``$``, and their output).
An HTML comment in the line above says how it is tested:

* ``<!-- run -->``: on a simulated pool. ``<!-- run: VM=legacy, exit 3 -->`` replaces the placeholder ``VM``, and
  expects that exit code of the last command.
* ``<!-- run by PATH -->``: by that file of the tree, which names all words and options of the commands.
* ``<!-- not run: REASON -->``: nowhere. docs/tested.md lists it.
"""

import re
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = ("sh", "console")
# Programs that an administrator calls, and that no test runs as the prose has it. Blocks call xe host-call-plugin.
OF_THE_HOST = "gpg|journalctl|qemu-img|rpm|ssh-keygen|systemctl|xe(?! host-call-plugin)|yum"
# A word in capitals is a placeholder, also in "uuid=VM".
PLACEHOLDER = re.compile(r"(?<![\w.-])[A-Z]{2,}(?![\w.-])")


class Mark(NamedTuple):
    """The way a block is tested: exactly one of ``run``, ``by`` and ``reason`` is set.

    :ivar values: placeholder -> what stands for it.
    :ivar exit: code of the last command.
    :ivar by: path of the file that runs it.
    :ivar reason: why it is not run.
    """

    run: bool = False
    values: Dict[str, str] = {}
    exit: int = 0
    by: str = ""
    reason: str = ""


class Block(NamedTuple):
    """:ivar page: relative to the root of the tree. :ivar line: of the fence. :ivar mark: None without a comment."""

    page: str
    line: int
    language: str
    text: str
    mark: Optional[Mark]

    @property
    def commands(self) -> List[str]:
        """The command lines, with continued lines joined."""
        lines = self.text.replace("\\\n", "").splitlines()
        if self.language == "console":
            return [line[2:].strip() for line in lines if line.startswith("$ ")]
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    @property
    def outputs(self) -> List[str]:
        """For each command of a ``console`` block the output that is shown, maybe nothing."""
        found: List[str] = []
        for line in self.text.replace("\\\n", "").splitlines():
            if line.startswith("$ "):
                found.append("")
            elif found:
                found[-1] += line + "\n"
        return found


def pages() -> List[Path]:
    """Every page whose commands people may type."""
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md")]
    return found + sorted((ROOT / "docs").glob("*.md")) + [ROOT / "guest-config" / "README.md"]


def blocks(page: Path) -> List[Block]:
    return list(parse(page.relative_to(ROOT).as_posix(), page.read_text("utf-8")))


def parse(page: str, text: str) -> Iterator[Block]:
    """The fenced blocks of a page, and indented ones, whose language is ``indented``."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        fence = re.match(r"( *)```(.*)", lines[number])
        above = lines[number - 1].strip() if number else ""
        if fence:
            end = next(at for at in range(number + 1, len(lines) + 1)
                       if at == len(lines) or lines[at].strip() == "```")
            inside = [line[len(fence.group(1)):] for line in lines[number + 1:end]]
            yield Block(page, number + 1, fence.group(2).strip(), "\n".join(inside), mark(above))
            number = end
        elif lines[number].startswith("    ") and not above:
            yield Block(page, number + 1, "indented", lines[number].strip(), None)
        number += 1


def mark(comment: str) -> Optional[Mark]:
    """Read the comment above a block.

    :returns: None if it does not say how a block is tested.
    """
    found = re.fullmatch(r"<!-- (run|run by|not run)(?:: (.+)| (\S+))? -->", comment)
    if not found:
        return None
    kind, detail, path = found.groups()
    if kind == "run" and path is None:
        return _run(detail)
    if kind == "run by" and path:
        return Mark(by=path)
    return Mark(reason=detail) if kind == "not run" and detail else None


def _run(detail: Optional[str]) -> Mark:
    values: Dict[str, str] = {}
    code = 0
    for part in (detail or "").split(", "):
        name, assigned, value = part.partition("=")
        if assigned:
            values[name] = value
        elif part.startswith("exit "):
            code = int(part[len("exit "):])
    return Mark(run=True, values=values, exit=code)


def inline(programs: str) -> Iterator[Tuple[str, str]]:
    """(page, command) of each command line in prose and tables that calls one of these programs ("xe|yum")."""
    for page in pages():
        text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text("utf-8"))
        # The table of tested.md is made of these.
        text = re.sub(r"(?s)<!-- COMMANDS:.*<!-- end of COMMANDS -->", "", text)
        for code in re.findall(rf"`((?:{programs}) [^`]+)`", text):
            yield page.relative_to(ROOT).as_posix(), " ".join(code.split())


def not_run() -> List[Block]:
    """The blocks of all pages that no test runs."""
    return [block for page in pages() for block in blocks(page) if block.mark is not None and block.mark.reason]
