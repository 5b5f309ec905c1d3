"""The second run of the few tests that have failed."""

import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.setup import again

TESTS = """
import os

def test_unsteady():
    open("runs", "a").write("u")

def test_broken():
    assert False

def test_other():
    open("runs", "a").write("o")
"""


@pytest.fixture
def failed(tmp_path: Path) -> "Callable[..., Path]":
    def make(*names: str) -> Path:
        (tmp_path / "test_some.py").write_text(TESTS)
        place = tmp_path / again.FAILED
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps({f"test_some.py::{name}": True for name in names}))
        return tmp_path

    return make


def runs(root: Path) -> str:
    return (root / "runs").read_text() if os.path.exists(str(root / "runs")) else ""


def test_a_test_that_passes_alone_is_named_and_no_other_runs(failed: "Callable[..., Path]", capfd: Any) -> None:
    root = failed("test_unsteady")
    assert again.main(str(root)) == 0
    assert runs(root) == "u"
    assert "UNSTEADY: test_some.py::test_unsteady" in capfd.readouterr().err


def test_a_fault_fails_again(failed: "Callable[..., Path]", capfd: Any) -> None:
    root = failed("test_unsteady", "test_broken")
    assert again.main(str(root)) == 1
    assert runs(root) == "u" and "UNSTEADY" not in capfd.readouterr().err


@pytest.mark.parametrize("names", [[], [f"test_{number}" for number in range(again.MOST + 1)]])
def test_none_and_many_are_not_run_again(failed: "Callable[..., Path]", names: Any) -> None:
    root = failed(*names)
    assert again.main(str(root)) == 1 and runs(root) == ""


def test_without_a_list_there_is_no_second_run(tmp_path: Path) -> None:
    assert again.main(str(tmp_path)) == 1
