"""The check of the words: it finds each kind of violation, in every file."""

import re
from pathlib import Path
from typing import List, Tuple

import pytest

from tests import words

GOOD = '''"""Read the list of a VM."""


def read(ref: str) -> str:
    """Return the list of the VM.

    :raises KeyError: the VM is gone.
    """
    # The list is stale after ten seconds.
    raise KeyError(f"the list of {ref} is stale")


def gone(ref: str) -> None:
    """:raises KeyError: always."""
    raise KeyError(ref)
'''
PAGE = """# A heading that is whoever's business

Prepare the VM. Then list its containers: `xscontainer list --with --so --many --long`.

```sh
no whoever is found in code
```

| a table | %s |
""" % ("x" * 200)


def problems(source: str) -> List[Tuple[int, str]]:
    return sorted(words.python(source))


def test_good_code_has_no_violation() -> None:
    assert problems(GOOD) == []


@pytest.mark.parametrize("line, problem", [
    ("What the list holds.", "begins with 'What'"),
    ("Whether the VM runs.", "begins with 'Whether'"),
    ("As the standard library has it.", "begins with 'As'"),
    ("The same for a template.", "begins with 'The'"),
    ("Its, and ours.", "begins with 'Its,'"),
    ("Return the list", "does not end with a full stop"),
    ("Return the list:", "does not end with a full stop"),
    ("Return " + "a " * 25 + "list.", "has 27 words"),
])
def test_a_first_line_that_is_no_sentence_is_found(line: str, problem: str) -> None:
    for source in (f'"""{line}"""\n', f'def read():\n    """{line}"""\n',
                   f'class A:\n    """{line}\n\n    More.\n    """\n'):
        ((_, found),) = problems(source)
        assert problem in found


@pytest.mark.parametrize("source", [
    'message = "the VM is believed in"\n',
    'message = f"{vm} is believed in by {host}"\n',
    'message = ("a key may be believed "\n           "in for ever")\n',
    'message = "%s is believed in" % vm\n',
    "# A socket that has\n# served is believed\n# in.\n",
    '"""Read the list.\n\nA socket is Believed\nin."""\n',
])
def test_a_banned_turn_of_phrase_is_found(source: str) -> None:
    ((_, found),) = problems(source)
    assert "elieved in'; better: keep using" in found


@pytest.mark.parametrize("phrase, allowed", [
    ("a stranger", False), ("strange", True), ("to vouch for", False), ("a voucher", True), ("such a one", False),
    ("such a VM", True), ("it ended on 2030-01-01", False), ("it ended on the host", True),
    ("it takes the role vm-admin", False), ("it requires the role vm-admin", True),
])
def test_only_the_whole_phrase_counts(phrase: str, allowed: bool) -> None:
    assert (list(words.phrases(phrase)) == []) is allowed


def test_every_banned_phrase_is_a_valid_expression_without_groups() -> None:
    assert {phrase for phrase in words.BANNED if re.compile(phrase).groups} == set()


@pytest.mark.parametrize("name, right", [
    ("test_a_stale_list_is_replaced_by_the_reason", True), ("test_what_is_stale_is_replaced", False),
    ("test_it_is_replaced", False), ("test_whoever_asks_is_answered", False), ("what_is_stale", True),
    ("test_whats_new_is_shown", True),
])
def test_a_test_that_is_named_by_a_pronoun_is_found(name: str, right: bool) -> None:
    assert (problems(f"def {name}() -> None:\n    pass\n") == []) is right


def test_names_and_single_words_are_not_prose() -> None:
    assert problems('whoever = {"whoever": 1}\n') == []


def test_a_good_page_has_no_violation() -> None:
    assert list(words.markdown(PAGE)) == []


@pytest.mark.parametrize("page, line, problem", [
    ("x" * 121, 1, "has 121 characters"),
    ("Fine.\n\n```\n" + "x" * 121 + "\n```\n", 4, "has 121 characters"),
    ("# Title\n\nIt is\nthere for whoever\nasks.\n", 3, "'whoever'"),
    ("| who | what |\n|---|---|\n| VM | whoever |\n", 3, "'whoever'"),
    ("One.\n\n* Two.\n* " + "w " * 26 + "end.\n", 4, "a sentence of 28 words"),
])
def test_a_violation_in_a_page_is_found(page: str, line: int, problem: str) -> None:
    ((where, found),) = words.markdown(page)
    assert where == line and problem in found


def test_code_tests_and_pages_are_all_read() -> None:
    names = {path.relative_to(words.ROOT).as_posix() for path in words.files()}
    assert {"xscontainer/errors/base.py", "xapi-plugins/xscontainer", "tests/conftest.py", "rpm/pack/payload.py",
            "README.md", "docs/tutorial.md", "docs/generate.py", "CONTRIBUTING.md"} <= names


def test_the_command_names_file_and_line_of_what_is_wrong(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: "pytest.CaptureFixture[str]") -> None:
    for name in ("xscontainer", "tests", "rpm", "docs", "guest-config", "xapi-plugins"):
        (tmp_path / name).mkdir()
    (tmp_path / "setup.py").write_text('"""Set it up."""\n')
    (tmp_path / "docs" / "tls.md").write_text("Fine.\n\nFor whoever asks.\n")
    monkeypatch.setattr(words, "ROOT", tmp_path)
    assert words.main([]) == 1
    assert capsys.readouterr().out.startswith("docs/tls.md:3: 'whoever'")
    assert words.main(["docs"]) == 1
    assert words.main(["tests", "xscontainer"]) == 0
