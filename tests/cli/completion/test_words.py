"""The words that may stand at the cursor are found, and written so that a shell reads them as they are."""

import shlex
from typing import Any, Dict, List, NamedTuple, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.cli.completion import candidates, line, quoting
from xscontainer.cli.completion.line import Line
from xscontainer.cli.completion.quoting import Candidate
from xscontainer.xapi.names import VM, Container, containers

TABLE: Dict[str, Any] = {
    "help": "", "aliases": {"list": "ps"}, "options": {"--config": "FILE", "--help": None},
    "commands": {
        "ps": {"help": "list containers", "options": {"--json": None, "--vm": "VM", "--format": ["json", "table"]}},
        "stop": {"help": "stop containers", "options": {"-t": "", "--time": ""},
                 "arguments": [{"kind": "CONTAINER", "many": True}]},
        "pause": {"help": "", "options": {}, "arguments": [{"kind": "CONTAINER", "many": True}]},
        "stats": {"help": "", "options": {}, "arguments": [{"kind": "VM|CONTAINER", "many": True}]},
        "start": {"help": "", "options": {}, "arguments": [{"kind": "CONTAINER", "many": True}]},
        "diagnose": {"help": "", "options": {}, "arguments": [{"kind": "VM", "many": False}]},
        "drive": {"help": "", "options": {}, "commands": {
            "show": {"help": "", "options": {}, "arguments": [{"kind": "VM", "many": False}]}}},
    }}


class Pool(NamedTuple):
    """Stands for a connection to XAPI."""

    all: List[VM]

    def vms(self) -> List[VM]:
        return self.all


def published(*containers: "Tuple[str, str]") -> str:
    return "".join(f"<entry><names>{name}</names><status>{status}</status></entry>" for name, status in containers)


POOL = Pool([
    VM("u1", "web", "Running", True, published(("nginx", "Up"), ("job", "Exited (1)"))),
    VM("u2", "db one", "Running", True, published(("nginx", "Up (Paused)"))),
    VM("u3", "twin", "Halted", False, ""), VM("u4", "twin", "Halted", False, ""),
    VM("u5", "-rf", "Halted", False, ""), VM("u6", "new\nline", "Halted", False, "")])


def words(text: str) -> List[str]:
    typed = line.divide(text)
    at = candidates.position(typed.words[1:], TABLE)
    if at is None:
        return []
    found = candidates.candidates(at, typed.current, lambda: POOL)
    return [each.word for each in found if each.word.startswith(typed.current)]


@pytest.mark.parametrize("text, expected", [
    ("x ", ["ps", "stop", "pause", "stats", "start", "diagnose", "drive"]), ("x st", ["stop", "stats", "start"]),
    ("x --", ["--config", "--help"]),
    ("x --config /dev/nul", ["/dev/null"]), ("x --config f ps --f", ["--format"]),
    ("x ps --format ", ["json", "table"]), ("x ps --format=j", ["--format=json"]), ("x list --vm w", ["web"]),
    ("x ps --json --", ["--vm", "--format"]), ("x ps ", []), ("x nonsense ", []), ("x drive ", ["show"]),
    ("x drive show we", ["web"]), ("x diagnose ", ["db one", "web", "u5", "u6", "u3", "u4"]),
    ("x diagnose web ", []), ("x stop -t ", []), ("x stop -t 5 w", ["web/"]), ("x stop ", ["db one/", "web/"]),
    ("x pause ", ["web/"]),
    ("x stop web/", ["web/nginx"]), ("x stats w", ["web", "web/"]), ("x stats web/", ["web/nginx"]),
    ("x stop web/nginx web/", []), ("x start ", ["web/"]),
    ("x start web/", ["web/job"]), ("x start j", ["job"]), ("x stop n", []), ("x stop -- -", []),
])
def test_the_words_at_the_cursor_are_found(text: str, expected: List[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize("text, expected", [
    ("x a b", Line(["x", "a"], "b")), ("x ", Line(["x"], "")), ("x a\\ b c\\ ", Line(["x", "a b"], "c ")),
    ("x 'a b' c", Line(["x", "a b"], "c")), ("x 'a b", Line(["x"], "a b", "'")),
    ('x "a \\"b', Line(["x"], 'a "b', '"')), ("y; x a | x b", Line(["x"], "b")), ("x a'b", Line(["x"], "ab", "'",
                                                                                             readable=False)),
    ("x 'a'b", Line(["x"], "ab", readable=False)), ("x --a=b", Line(["x"], "--a=b", broken=4)),
    ("x a\\=b", Line(["x"], "a=b")), ("", Line([], "")), ("x \\", Line(["x"], ""))])
def test_a_line_is_divided_as_a_shell_does(text: str, expected: Line) -> None:
    assert line.divide(text, "=:") == expected


@given(st.text(max_size=40))
def test_every_line_is_divided(text: str) -> None:
    found = line.divide(text, "=:@")
    assert found.broken <= len(found.current)
    words(text)


@given(st.text(min_size=1, max_size=20), st.sampled_from(["", "'", '"']))
def test_a_word_for_bash_is_read_as_one_word_or_left_out(word: str, quote: str) -> None:
    text = quoting.written([Candidate(word)], Line(["x"], "", quote), quoting.BASH)
    assert text.isprintable()
    if text:
        if quote == '"':  # between these bash takes a backslash away before four characters, shlex only before two
            text = text.replace("\\$", "$").replace("\\`", "`")
        assert shlex.split(quote + text + quote) == [word]


@given(st.lists(st.text(max_size=20), max_size=5), st.sampled_from([quoting.ZSH, quoting.FISH]))
def test_each_word_stays_one_candidate(names: List[str], shell: str) -> None:
    text = quoting.written(map(Candidate, names), Line(["x"], ""), shell)
    separator = "\n" if shell == quoting.FISH else "\013"
    assert len(text.split(separator)) == max(1, sum(name.isprintable() for name in names))


def test_bash_keeps_what_it_does_not_complete() -> None:
    assert quoting.written([Candidate("--vm=a b")], Line(["x"], "--vm=a", broken=5), quoting.BASH) == "a\\ b"


def test_many_candidates_are_cut() -> None:
    text = quoting.written((Candidate(str(number)) for number in range(10000)), Line(["x"], ""), quoting.BASH)
    assert len(text.split("\013")) == quoting.MOST


def test_names_of_containers_are_read_from_a_published_list() -> None:
    document = ("<docker_ps><item><entry><id>1</id><names>web</names><status>Up</status><image>a&amp;b</image></entry>"
                "</item><item><entry><names>$(id)</names></entry></item><item><entry><names>b</names></entry></item>")
    assert containers(document) == (Container("web", "Up", "a&amp;b"), Container("b", "", ""))
    assert containers("<entry>" * 1000) == containers("") == ()
