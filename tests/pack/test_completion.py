"""The pack has the completion for bash, made from the library that it carries."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from rpm.pack import payload
from rpm.pack.tools import BuildError
from xscontainer.cli.completion import scripts


def staged(tmp_path: Path) -> Path:
    """Return the root of a host's file system with the package xscontainer."""
    private = tmp_path / payload.PRIVATE
    shutil.copytree(os.path.join(payload.ROOT, "xscontainer"), str(private / "xscontainer"),
                    ignore=shutil.ignore_patterns("__pycache__", "simulator"))
    return private


def test_the_completion_for_bash_is_that_of_the_carried_library(tmp_path: Path) -> None:
    private = staged(tmp_path)
    found = importlib.util.find_spec("argcomplete")
    assert found is not None and found.submodule_search_locations
    shutil.copytree(found.submodule_search_locations[0], str(private / "argcomplete"))
    payload.lay_out_completion(str(tmp_path))
    assert (tmp_path / payload.COMPLETION).read_text("utf-8") == scripts.script("bash")
    assert list((private / "xscontainer").rglob("__pycache__")) == []


def test_a_missing_library_ends_the_build(tmp_path: Path) -> None:
    staged(tmp_path)
    with pytest.raises(BuildError, match="completion for bash"):
        payload.lay_out_completion(str(tmp_path))
