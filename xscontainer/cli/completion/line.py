"""Divide a command line as a shell does, up to the cursor. Pure."""

from typing import List, NamedTuple

_OPERATORS = ";|&()\n"


class Line(NamedTuple):
    """A command line up to the cursor.

    :ivar words: the complete words, without quotes; the first one is the program.
    :ivar current: the word at the cursor, without quotes.
    :ivar quote: "'" or '"' if the word at the cursor begins with a quote that is still open.
    :ivar broken: characters of ``current`` that the shell keeps: it completes only what follows, see ``breaks``.
    :ivar readable: False if the word at the cursor cannot be completed, for example a quote in its middle.
    """

    words: List[str]
    current: str
    quote: str = ""
    broken: int = 0
    readable: bool = True


class _Reader:
    def __init__(self, breaks: str) -> None:
        self.words: List[str] = []
        self.word: List[str] = []
        self.begun = False
        self.quote = ""
        self.breaks = breaks
        self.broken = 0
        self.readable = True

    def end_word(self) -> None:
        if self.begun:
            self.words.append("".join(self.word))
        self.word, self.begun, self.broken, self.readable = [], False, 0, True

    def take(self, character: str) -> None:
        self.word.append(character)
        self.begun = True

    def plain(self, character: str) -> None:
        """Take a character that is not quoted."""
        if character in " \t":
            self.end_word()
        elif character in _OPERATORS:
            self.end_word()
            self.words = []
        elif character in "'\"":
            self.readable = not self.begun
            self.quote, self.begun = character, True
        else:
            self.take(character)
            if character in self.breaks:
                self.broken = len(self.word)


def divide(text: str, breaks: str = "") -> Line:
    """Divide the text before the cursor into words; of several commands in it the last one counts.

    :param breaks: characters at which bash begins a new word when it completes, if they are not quoted.
    """
    reader = _Reader(breaks)
    characters = iter(text)
    for character in characters:
        if reader.quote == "'" and character != "'" or reader.quote == '"' and character not in '"\\':
            reader.take(character)
        elif character == "\\":
            following = next(characters, "")
            if reader.quote == '"' and following not in '"\\$`':
                reader.take(character)
            if following:
                reader.take(following)
        elif reader.quote:
            reader.quote, reader.readable = "", False
        else:
            reader.plain(character)
    return Line(reader.words, "".join(reader.word), reader.quote, reader.broken,
                reader.readable and (not reader.quote or reader.broken == 0))
