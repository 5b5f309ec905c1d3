"""The conditions under which a tree may be released."""

import os

import pytest

from rpm.pack.payload import ROOT
from rpm.release.conditions import Tree, dated, hindrances
from xscontainer import __version__

CLEAN = Tree("1.2.3", ("v1.2.3",), (), "# Changelog\n\n## 1.2.3 - 2026-11-30\n\n- x\n\n## [1.2.2] - 2026-01-01\n")


@pytest.mark.parametrize("tree, key, word", [
    (CLEAN._replace(changes=(" M README.md", "?? notes")), "k", "README.md, notes"),
    (CLEAN._replace(tags=("v1.2.2", "other")), "k", "v1.2.3"),
    (CLEAN._replace(tags=()), "k", "v1.2.3"),
    (CLEAN._replace(changelog="## Unreleased\n"), "k", "## 1.2.3 -"),
    (CLEAN._replace(changelog="## 1.2.3 - 2026-02-30\n"), "k", "## 1.2.3 -"),
    (CLEAN._replace(changelog="## 11.2.3 - 2026-02-03\n## [1x2.3] - 2026-02-03\n## [1.2.3 - 2026-02-03"), "k",
     "## 1.2.3 -"),
    (CLEAN, "", "SIGN_KEY"),
])
def test_each_reason_against_a_release_is_named(tree: Tree, key: str, word: str) -> None:
    (found,) = hindrances(tree, key)
    assert word in found


def test_a_clean_tagged_and_dated_tree_may_be_released() -> None:
    assert hindrances(CLEAN, "key") == []


def test_a_version_is_dated_with_and_without_brackets() -> None:
    assert (str(dated(CLEAN.changelog, "1.2.3")), str(dated(CLEAN.changelog, "1.2.2"))) == ("2026-11-30", "2026-01-01")


def test_the_changelog_of_this_tree_dates_its_version() -> None:
    with open(os.path.join(ROOT, "CHANGELOG.md"), encoding="utf-8") as file:
        assert dated(file.read(), __version__) is not None


def test_all_hindrances_are_reported_at_once() -> None:
    assert len(hindrances(Tree("2", (), ("?? x",), ""), "")) == 4
