"""List the programs that the chosen tests need: ``python -m tests.setup.chosen [ARGUMENT ...]``.

Prints the words of :class:`tests.setup.parts.Part`, one a line. They are read from the tests themselves: the marker
``real``, the directory tests/pack, the parsers' fixtures, and each program that a module (or what it uses of ours)
names when it calls ``need_program`` or ``find``. So a new test needs no entry anywhere.
"""

import contextlib
import os
import re
import sys
from types import ModuleType
from typing import Any, Iterator, List, Set

import pytest

from tests.setup import parts

_NAMED = re.compile(r"""(?:need_program|find)\(["']([\w-]+)["']""")
_OF_FIXTURES = {"orchestra": "node", "center": "mono"}
# Names of classes that run a parser of a client.
_OF_CLASSES = {"FastXmlParser": "node", "MonoXml": "mono"}
_SILENT = {"tests.setup.parts", "tests.setup.chosen", "tests.setup.prepare", "tests.need", "tests.clients"}


class _Collected:
    """A plugin of pytest that keeps the chosen tests."""

    def __init__(self) -> None:
        self.items: List[pytest.Item] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = list(session.items)


def programs(arguments: List[str]) -> Set[str]:
    """Return the programs that the chosen tests need; none if pytest cannot choose (it says why when it runs)."""
    chosen = _Collected()
    # The output of pytest is dropped; standard output carries the answer.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "-p", "no:xdist"] + _plain(arguments), [chosen])
    return needs(chosen.items)


def _plain(arguments: List[str]) -> List[str]:
    """Return the arguments without those of pytest-xdist."""
    kept = iter(arguments)
    plain = []
    for word in kept:
        if word in ("-n", "--dist", "--numprocesses"):
            next(kept, None)
        elif not re.match(r"-n\w|--(dist|numprocesses)=", word):
            plain.append(word)
    return plain


def needs(items: List[Any]) -> Set[str]:
    found: Set[str] = set()
    seen: Set[str] = set()
    for item in items:
        if item.get_closest_marker("real") is not None:
            found.add(parts.SERVERS)
        if item.nodeid.startswith("tests/pack/"):
            found.add(parts.PACKS)
        found |= {_OF_FIXTURES[name] for name in item.fixturenames if name in _OF_FIXTURES}
        for module in _conftests(item):
            found |= _named_in(module, seen)
    return found


def _conftests(item: Any) -> Iterator[ModuleType]:
    """Return the item's module and every conftest.py of its directories, except that of all tests."""
    yield item.module
    package = item.module.__name__.rpartition(".")[0]
    while "." in package:
        conftest = sys.modules.get(package + ".conftest")
        if conftest is not None:
            yield conftest
        package = package.rpartition(".")[0]


def _named_in(module: ModuleType, seen: Set[str]) -> Set[str]:
    """Return the programs that the module names, and the modules of tests/ that it imports from."""
    if module.__name__ in seen | _SILENT:
        return set()
    seen.add(module.__name__)
    with open(str(module.__file__), encoding="utf-8") as source:
        found = set(_NAMED.findall(source.read()))
    found |= {_OF_CLASSES[name] for name in vars(module) if name in _OF_CLASSES}
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str) and name.startswith("tests.") and name in sys.modules:
            found |= _named_in(sys.modules[name], seen)
    return found


if __name__ == "__main__":
    for program in sorted(programs(sys.argv[1:])):
        print(program)
