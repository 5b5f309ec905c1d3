"""Check the words of this project as far as a machine can: ``make lint``, or ``python -m tests.words [PATH ...]``.

The checks are these:

* The first line of a docstring is a sentence: it ends with a full stop, has at most 25 words, and begins neither with
  a conjunction nor with a pronoun that has no noun. A docstring may also consist of fields such as ``:raises X: when``.
* A test's name does not begin with such a word either: its failure has to read as a sentence.
* No string, docstring, comment or line of documentation contains a turn of phrase from ``BANNED``.
* A line of Markdown has at most 120 characters, tables excepted.
* A sentence of Markdown prose has at most 25 words.
"""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Set, Tuple

ROOT = Path(__file__).resolve().parent.parent
MOST_WORDS = 25
WIDTH = 120  # characters of a line of Markdown

BEGINNINGS = frozenset(
    "and as how it its like of so such that those until what whatever when where whether which who whoever whose why"
    .split())

# Turn of phrase (a regular expression, in lower case) -> what to write instead.
BANNED = {
    r"believed? in": "keep using, trust",
    r"beg[au]n before": "started before",
    r"(?:end|ended|ends) on \d+": "expires on",
    r"go(?:es)? without saying": "is implied",
    r"in doubt": "liveness probe, or name what is not known",
    r"(?:is|are|be|was) no pair": "do not match",
    r"nobody keeps": "not kept",
    r"none the worse": "not affected",
    r"strangers?": "another machine, another VM",
    r"such a one": "the noun",
    r"takes? the role": "requires the role",
    r"(?:be|is|are|was|were|been) told of": "is notified of, receives",
    r"so for the \w+ (?:above|below)": "the noun",
    r"vouch(?:ed|es)?": "confirm, or say that the list is stale",
    r"what answers": "the machine, server or VM that answers",
    r"whoever": "the noun: the caller, the user, the administrator",
    r"whatever (?:it|they|he|that) (?:is|are|be|may)": "any, all",
}
_BANNED = re.compile(r"\b(?:%s)\b" % "|".join(BANNED), re.IGNORECASE)


class Violation(NamedTuple):
    """:ivar path: relative to the root of the tree."""

    path: str
    line: int
    problem: str


# --- sentences --------------------------------------------------------------


def phrases(text: str) -> Iterator[str]:
    """The problem of each banned turn of phrase in a text."""
    for found in _BANNED.finditer(" ".join(text.split())):
        instead = next(new for old, new in BANNED.items() if re.fullmatch(old, found.group().lower()))
        yield f"{found.group()!r}; better: {instead}"


def first_line(docstring: str) -> Iterator[str]:
    """The problems of the first line of a docstring."""
    line = docstring.strip().splitlines()[0].strip()
    if line.startswith(":"):
        return
    words = line.split()
    if words[0].lower().rstrip(",;:") in BEGINNINGS or line.lower().startswith("the same"):
        yield f"begins with {words[0]!r}: name what is done or returned"
    if not line.endswith("."):
        yield "does not end with a full stop"
    if len(words) > MOST_WORDS:
        yield f"has {len(words)} words"


def named(name: str) -> Iterator[str]:
    """The problem of the name of a function, if it is a test."""
    kind, _, rest = name.partition("_")
    first = rest.split("_")[0]
    if kind == "test" and first in BEGINNINGS | {"neither", "nor", "they", "this", "these"}:
        yield f"{name} begins with {first!r}: name the subject and what it does"


# --- Python -----------------------------------------------------------------


def python(source: str) -> Iterator[Tuple[int, str]]:
    """(line, problem) of each violation in a module."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring and docstring.strip():
                for problem in first_line(docstring):
                    yield getattr(node, "lineno", 1), f"docstring {problem}: {docstring.strip().splitlines()[0]!r}"
        if isinstance(node, ast.FunctionDef):
            for problem in named(node.name):
                yield node.lineno, problem
    for line, text in _strings(tree):
        for problem in phrases(text):
            yield line, problem
    for line, text in _comments(source):
        for problem in phrases(text):
            yield line, problem


def _strings(tree: ast.AST) -> Iterator[Tuple[int, str]]:
    """(line, text) of each string with a space in it; an f-string has one text, with ``{}`` for each value."""
    inside: Set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside.update(map(id, node.values))
            text = "".join(_literal(part) if _literal(part) is not None else "{}"  # type: ignore[misc]
                           for part in node.values)
        elif id(node) not in inside and _literal(node) is not None:
            text = _literal(node) or ""
        else:
            continue
        if " " in text:
            yield getattr(node, "lineno", 1), text


def _literal(node: ast.AST) -> Optional[str]:
    # CPython 3.6 and 3.7 have ast.Str, which 3.12 deprecates.
    text = getattr(node, "value", None) if type(node).__name__ == "Constant" else getattr(node, "s", None)
    return text if isinstance(text, str) else None


def _comments(source: str) -> Iterator[Tuple[int, str]]:
    """(line, text) of each block of comments."""
    begun, last, lines = 0, 0, []  # type: int, int, List[str]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if lines and token.start[0] != last + 1:
            yield begun, " ".join(lines)
            lines = []
        if not lines:
            begun = token.start[0]
        last = token.start[0]
        lines.append(token.string.lstrip("#: "))
    if lines:
        yield begun, " ".join(lines)


# --- Markdown ---------------------------------------------------------------


def markdown(text: str) -> Iterator[Tuple[int, str]]:
    """(line, problem) of each violation in a page."""
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > WIDTH and not line.lstrip().startswith("|"):
            yield number, f"has {len(line)} characters"
    for number, paragraph in paragraphs(text):
        for problem in phrases(paragraph):
            yield number, problem
        for sentence in sentences(paragraph):
            words = len(sentence.split())
            if words > MOST_WORDS and not paragraph.startswith("|"):
                yield number, f"a sentence of {words} words: {' '.join(sentence.split()[:8])} ..."


def paragraphs(text: str) -> Iterator[Tuple[int, str]]:
    """(line, text) of each paragraph, list item and table row; headings, code blocks and comments are left out."""
    begun, lines, fenced = 0, [], False  # type: int, List[str], bool
    for number, line in enumerate(text.splitlines() + [""], 1):
        bare = line.strip()
        fence = bare.startswith("```")
        code = fence or fenced or (not lines and line.startswith("    "))
        outside = code or not bare or bare.startswith(("#", "<!--"))
        if lines and (outside or bare.startswith("|") or re.match(r"(?:[*-]|\d+\.) ", bare)):
            yield begun, " ".join(lines)
            lines = []
        fenced ^= fence
        if not outside:
            begun = begun if lines else number
            lines.append(bare)


def sentences(paragraph: str) -> List[str]:
    """The sentences of a paragraph; code, and the target of a link, counts as one word."""
    plain = re.sub(r"`[^`]*`", "CODE", paragraph)
    plain = re.sub(r"\]\([^)]*\)", "]", plain)
    return [found for found in re.split(r"(?<=[.!?:])[)*\"']*\s+", plain) if found]


# --- the tree ---------------------------------------------------------------


def files() -> List[Path]:
    """Every module and page that is written by hand."""
    found = [path for name in ("xscontainer", "tests", "rpm", "docs") for path in (ROOT / name).rglob("*.py")]
    found += [ROOT / "setup.py"] + [path for path in (ROOT / "xapi-plugins").iterdir() if path.is_file()]
    found += list(ROOT.glob("*.md")) + list((ROOT / "docs").glob("*.md")) + list((ROOT / "guest-config").glob("*.md"))
    # This module and its test quote what they forbid.
    return sorted(path for path in found
                  if "node_modules" not in path.parts and path.name not in ("words.py", "test_words.py"))


def check(path: Path) -> List[Violation]:
    """The violations in one file."""
    text = path.read_text("utf-8")
    name = path.relative_to(ROOT).as_posix()
    problems = markdown(text) if path.suffix == ".md" else python(text)
    return [Violation(name, line, problem) for line, problem in sorted(problems)]


def main(arguments: List[str]) -> int:
    """Print the violations in the paths that are given, or in the whole tree; returns the exit code."""
    found = [violation for path in files() for violation in check(path)]
    shown = [violation for violation in found if violation.path.startswith(tuple(arguments) or "")]
    for violation in shown:
        print(f"{violation.path}:{violation.line}: {violation.problem}")
    return 1 if shown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
