"""Write candidates as a shell reads them, so that each one stays one word and runs nothing. Pure.

Names of VMs are hostile. A name is left out where it could be read as anything but itself.
"""

from typing import Iterable, List, NamedTuple

from xscontainer.cli.completion.line import Line

BASH, ZSH, FISH = "bash", "zsh", "fish"
MOST = 500  # candidates

# Characters besides letters and digits that mean nothing to a shell, wherever they stand in a word.
_HARMLESS = "-_./+%,"
# Between two candidates, as argcomplete's scripts expect.
_SEPARATORS = {BASH: "\013", ZSH: "\013", FISH: "\n"}


class Candidate(NamedTuple):
    """A word that may stand at the cursor.

    The scripts let no space follow a word that ends in "/" or "=".
    """

    word: str
    note: str = ""


def written(candidates: "Iterable[Candidate]", line: Line, shell: str) -> str:
    """Return the answer for a shell: the candidates that begin as the word at the cursor does."""
    if not line.readable:
        return ""
    words: List[str] = []
    for candidate in candidates:
        if candidate.word.startswith(line.current) and candidate.word.isprintable():
            words += _for_shell(candidate, line, shell)
        if len(words) >= MOST:
            break
    return _SEPARATORS.get(shell, "\013").join(words)


def _for_shell(candidate: Candidate, line: Line, shell: str) -> List[str]:
    """Return the word in a list, or an empty list if it cannot be written."""
    note = candidate.note if candidate.note.isprintable() else ""
    if shell == FISH:  # quotes by itself
        return [f"{candidate.word}\t{note}"]
    if shell == ZSH:  # quotes by itself; a colon begins the note, a backslash keeps it from doing so
        word = candidate.word.replace("\\", "\\\\").replace(":", "\\:")
        return [f"{word}:{note}" if note else word]
    return _bash(candidate.word[line.broken:], line.quote)


def _bash(word: str, quote: str) -> List[str]:
    if any(character in "*?[!" for character in word) and (quote or "!" in word):
        return []  # the script expands patterns, and "!" is replaced also in quotes
    if quote == "'":
        return [] if "'" in word else [word]
    if quote == '"':
        return ["".join("\\" + each if each in '"\\$`' else each for each in word)]
    return ["".join(each if each.isalnum() or each in _HARMLESS else "\\" + each for each in word)]
