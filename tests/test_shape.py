"""Limits of the code's shape: files at the top of the package, methods of a class, parameters of a function."""

import ast
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
MOST_FILES_AT_TOP = 8
MOST_METHODS = 14
MOST_PARAMETERS = 7  # without self and cls


def too_large(source: str) -> Iterator[str]:
    """Each class and function of a module that is above a limit."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            methods = sum(isinstance(inner, ast.FunctionDef) for inner in node.body)
            if methods > MOST_METHODS:
                yield f"class {node.name} has {methods} methods"
        elif isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in _parameters(node.args)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > MOST_PARAMETERS:
                yield f"function {node.name} has {count} parameters"


def _parameters(arguments: ast.arguments) -> List[ast.arg]:
    single = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [*getattr(arguments, "posonlyargs", []), *arguments.args, *arguments.kwonlyargs, *single]


def modules() -> List[Tuple[str, str]]:
    return [(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
            for part in ("xscontainer", "rpm", "docs") for path in sorted((ROOT / part).rglob("*.py"))]


def test_no_class_and_no_function_is_too_large() -> None:
    found = [f"{path}: {what}" for path, source in modules() for what in too_large(source)]
    assert found == []


def test_the_top_of_the_package_holds_a_handful_of_files() -> None:
    files = sorted(path.name for path in (ROOT / "xscontainer").glob("*.py"))
    assert len(files) <= MOST_FILES_AT_TOP, files


@pytest.mark.parametrize("source, found", [
    ("class C:\n" + "".join(f"    def m{number}(self): ...\n" for number in range(15)), ["class C has 15 methods"]),
    ("class C:\n" + "".join(f"    def m{number}(self): ...\n" for number in range(14)), []),
    ("def f(a, b, c, d, e, f, g, *, h): ...", ["function f has 8 parameters"]),
    ("def f(a, b, c, d, e, f, *g, **h): ...", ["function f has 8 parameters"]),
    ("def f(self, a, b, c, d, e, f, g): ...", []),
])
def test_each_excess_is_found(source: str, found: List[str]) -> None:
    assert list(too_large(source)) == found
