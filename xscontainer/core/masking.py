"""Mask secrets in what an engine says about a container. docs/api.md states the rule ("Masked environment").

The names stay, so that a reader sees which settings a container has. Secrets that nothing marks as such, as in
``mysql -psecret``, cannot be recognized.
"""

import re
from typing import Any, List, Set

MASK = "***"
# Parts of a name, in lower case, that mark its value as a secret.
SECRET_WORDS = ("password", "passwd", "passphrase", "passcode", "pwd", "secret", "token", "credential", "cookie",
                "auth", "apikey", "api_key", "api-key", "api.key", "accesskey", "access_key", "access-key",
                "privatekey", "private_key", "private-key", "encryptionkey", "encryption_key", "encryption-key")
LEAST_SECRET = 6  # characters of a variable's value that is looked for elsewhere, too
MOST_SECRETS = 50
MOST_CHARACTERS = 2 << 20  # of texts that are searched; all further ones are masked as a whole
LONGEST_TEXT = 65536 + 1  # characters: a writer shows no more, and sees that there was more

_AUTH = "auth(?!or(?!i))"  # "authorization", but not "authors", which is a usual label of an image
_WORDS = "|".join(re.escape(word) if word != "auth" else _AUTH for word in SECRET_WORDS)
_SECRET_NAME = re.compile(rf"(?:{_WORDS})|(?:\A|[._-])(?:pass|pw)(?:\Z|[._-])")
# The name's rest, what parts it from its value, and the value. A guest writes the text, so repetitions are bounded, and
# the rest is matched once, without backtracking.
_ASSIGNED = re.compile(rf"""(?:{_WORDS})(?=([\w.-]{{0,64}}))\1["']?(\s{{0,4}}[=:]\s{{0,4}}|\s{{1,4}})"""
                       r"""((?:(?:basic|bearer|digest|token)\s{1,4})?(?:"[^"]*"|'[^']*'|\S+))""", re.IGNORECASE)
_URL = re.compile(r"(://[^/\s:@]{0,256}:)[^/\s@]{1,1024}(@)")
_BEFORE = 64  # characters before a name in which its option begins
_ENVIRONMENTS = ("env", "environment")


def looks_secret(name: str) -> bool:
    """Return whether a name says that its value is a secret: SECRET_WORDS in it, or the word "pass" or "pw"."""
    return _SECRET_NAME.search(name.lower()) is not None


def mask(found: Any) -> Any:
    """Replace the secrets in decoded JSON in place; return it. A copy would take as much memory again.

    :param found: at most bounded.MOST_DEPTH levels deep.
    """
    masker = _Masker()
    masker.collect(found)
    return masker.walk(found, "", False)


class _Masker:
    """One masking: the variables' secret values, and how much text may still be searched."""

    def __init__(self) -> None:
        self._room = MOST_CHARACTERS
        self._secrets: "Set[str]" = set()
        self._sorted: "List[str]" = []

    def collect(self, value: Any) -> None:
        """Note the values of secret variables, which may stand in commands, too."""
        self._gather(value)
        # The longest first: one may be a part of another.
        self._sorted = sorted(self._secrets, key=len, reverse=True)[:MOST_SECRETS]

    def _gather(self, value: Any) -> None:
        if isinstance(value, dict):
            for key, member in value.items():
                if key.lower() in _ENVIRONMENTS and isinstance(member, list):
                    for entry in member:
                        name, _, text = entry.partition("=") if isinstance(entry, str) else ("", "", "")
                        if LEAST_SECRET <= len(text) <= LONGEST_TEXT and looks_secret(name[:LONGEST_TEXT]):
                            self._secrets.add(text)
                else:
                    self._gather(member)
        elif isinstance(value, list):
            for member in value:
                self._gather(member)

    def walk(self, value: Any, name: str, spoken: bool) -> Any:
        """Return the value with its secrets masked.

        :param name: of the member that it is.
        :param spoken: whether people or programs wrote it: a command, a label, the output of a health check.
        """
        if isinstance(value, dict):
            for key, member in value.items():
                lowered = key[:LONGEST_TEXT].lower()
                if lowered in _ENVIRONMENTS:
                    value[key] = _without_values(member)
                elif isinstance(member, str) and member and looks_secret(lowered):
                    value[key] = MASK
                else:
                    value[key] = self.walk(member, lowered, spoken or lowered in ("labels", "output"))
            return value
        if isinstance(value, list):
            follows = False  # the value of an option that was the word before
            for position, member in enumerate(value):
                if follows and isinstance(member, str) and not member.startswith("-"):
                    value[position], follows = MASK, False
                    continue
                follows = (isinstance(member, str) and member.startswith("-") and "=" not in member
                           and len(member) <= _BEFORE and looks_secret(member))
                value[position] = self.walk(member, name, True)
            return value
        return self._text(value, spoken) if isinstance(value, str) else value

    def _text(self, text: str, spoken: bool) -> str:
        text = text[:LONGEST_TEXT]
        self._room -= len(text)
        if self._room < 0:
            return MASK
        if spoken:
            for secret in self._sorted:
                text = text.replace(secret, MASK)
        if "://" in text:
            text = _URL.sub(rf"\1{MASK}\2", text)
        lowered = text.lower()
        if any(word in lowered for word in SECRET_WORDS):
            text = _ASSIGNED.sub(_masked, text)
        return text


def _masked(found: "re.Match[str]") -> str:
    if found.group(2).isspace():
        # "--password x" has a value; "the password expired" has none.
        before = found.string[max(0, found.start() - _BEFORE):found.start()]
        if not before.split(" ")[-1].startswith("-"):
            return found.group()
    return found.group()[:found.start(3) - found.start()] + MASK


def _without_values(environment: Any) -> Any:
    """Return an environment without its values, whatever form it has."""
    if isinstance(environment, list):
        for position, entry in enumerate(environment):
            environment[position] = _without_values(entry) if not isinstance(entry, str) else _variable(entry)
        return environment
    if isinstance(environment, dict):
        for key, member in environment.items():
            environment[key] = _without_values(member) if isinstance(member, (dict, list)) else MASK
        return environment
    return environment if environment is None else MASK


def _variable(entry: str) -> str:
    name, equals, _ = entry.partition("=")
    return f"{name}={MASK}" if equals else MASK
