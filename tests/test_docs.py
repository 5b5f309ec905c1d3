"""The documentation: complete, not stale, and readable in any editor."""

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Iterator, List, Tuple

import pytest

from tests import words
from tests.need import need_program
from xscontainer import keys

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
OTHERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md")]
WIDTH = 120  # characters of a line of prose


def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", str(DOCS / "generate.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_code_and_pages_keep_the_rules_of_style() -> None:
    assert [violation for path in words.files() for violation in words.check(path)] == []


def test_no_generated_page_is_stale() -> None:
    assert generate().stale() == [], "run make docs"


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (DOCS / "README.md").read_text("utf-8")
    assert [page.name for page in PAGES if page.name != "README.md" and f"]({page.name})" not in contents] == []


def links(page: Path) -> Iterator[Tuple[str, str]]:
    """(path, anchor) of each link to another file of the tree, or to a place in the page itself."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(page: Path) -> List[str]:
    """The anchors that Markdown viewers make of the headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text("utf-8"))
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES + OTHERS, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {path}, which does not exist"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name} links to {path}#{anchor}: {target.name} has no such heading"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_the_walks_name_files_that_exist() -> None:
    text = (DOCS / "design.md").read_text("utf-8")
    named = re.findall(r"`([\w/-]+\.py)`", text)
    assert len(named) > 20
    assert [path for path in named if not (ROOT / "xscontainer" / path).is_file()] == []


def test_the_map_of_the_house_names_directories_that_exist_and_every_room() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## The house")[2].partition("\n## ")[0]
    named = {path for row in re.findall(r"(?m)^\| (`.+?) \|", text) for path in re.findall(r"`([\w/-]+/)`", row)}
    assert {path for path in named if not (ROOT / path).is_dir() and "ROOM" not in path} == set()
    rooms = {f"xscontainer/{path.parent.name}/" for path in (ROOT / "xscontainer").glob("*/__init__.py")}
    assert rooms - named == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_prose_is_too_long(page: Path) -> None:
    inside, long = False, []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        inside ^= line.lstrip().startswith("```")
        if len(line) > WIDTH and not line.startswith("|") and (not inside or len(line) > WIDTH):
            long.append(number)
    assert long == []


def test_every_key_of_ours_is_documented() -> None:
    documented = (DOCS / "keys.md").read_text("utf-8")
    ours = {value for name, value in vars(keys).items()
            if name.isupper() and isinstance(value, str) and value.startswith(("xscontainer", "docker_"))}
    assert {key for key in ours if f"`{key}`" not in documented} == set()


@pytest.mark.parametrize("page", sorted((DOCS / "man").iterdir()), ids=lambda page: page.name)
def test_a_man_page_is_read_without_a_complaint(page: Path) -> None:
    man = need_program("groff", "groff-base")
    done = subprocess.run([man, "-man", "-Tutf8", "-ww", str(page)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    shown = re.sub(".\x08", "", done.stdout.decode())  # bold letters are struck twice
    assert "NAME" in shown and "SYNOPSIS" in shown
