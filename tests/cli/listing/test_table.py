"""The table fits every terminal, names stay whole, and foreign text stays text."""

import io
import unicodedata
from typing import Any, List, Optional, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.listing.pools import container, pool, vm
from xscontainer.cli.listing.selection import Filter
from xscontainer.cli.listing.table import Table, table
from xscontainer.cli.ui.columns import width
from xscontainer.cli.ui.meaning import BAD, QUIET, Span
from xscontainer.cli.ui.terminal import Line, Terminal
from xscontainer.clients.inventory import Pool, Problem
from xscontainer.core.container import Port

NOW = 1_000_000.0


def terminal(columns: Optional[int]) -> Terminal:
    return Terminal(io.StringIO(), columns is not None, False, columns, 40)


def texts(lines: "Sequence[Line]") -> List[str]:
    return ["".join(span.text for span in line).rstrip() for line in lines]


def made(given: Pool, wide: bool = False, of_vms: bool = False, **chosen: Any) -> Table:
    return table(given, Filter(**chosen), NOW, wide, of_vms)


SHOP = pool(
    vm("web01",
       container("frontend", health="healthy", project="shop", started_at=int(NOW) - 3700,
                 image="registry.example.com/shop/frontend:2.14.0", ports=(Port(80, "tcp", 8080, "0.0.0.0"),)),
       container("old", "exited", exit_code=137, project="shop")),
    vm("db", container("postgres", health="unhealthy", image="postgres:16", command="postgres -c fsync=on")))


def test_the_usual_columns_are_name_state_uptime_image_ports_and_project() -> None:
    assert texts(made(SHOP).lines(terminal(120))) == [
        "NAME            STATE                UPTIME  IMAGE                                      PORTS         PROJECT",
        "db/postgres     running (unhealthy)          postgres:16",
        "web01/frontend  running (healthy)    1h 1m   registry.example.com/shop/frontend:2.14.0  8080->80/tcp  shop"]


def test_the_wide_table_has_all_facts() -> None:
    lines = texts(made(SHOP, wide=True, every=True).lines(terminal(None), heading=True))
    table_cells = [["".join(span.text for span in [part]) for part in line if part.text]
                   for line in made(SHOP, wide=True, every=True).lines(terminal(None))]
    assert table_cells[0] == ["NAME", "STATE", "UPTIME", "EXIT/REASON", "IMAGE", "PORTS", "PROJECT", "HOST", "ID",
                              "CREATED", "COMMAND"]
    assert any("exit code 137: killed" in line and "host1" in line for line in lines)
    assert any("postgres -c fsync=on" in line and "706f73746772" in line for line in lines)


def test_a_narrow_terminal_loses_the_registry_first_and_then_the_least_useful_column() -> None:
    def titles(columns: int) -> List[str]:
        return texts(made(SHOP).lines(terminal(columns)))[0].split()

    assert titles(100) == ["NAME", "STATE", "UPTIME", "IMAGE", "PORTS", "PROJECT"]
    assert "…/shop/frontend:2.14.0" in "\n".join(texts(made(SHOP).lines(terminal(100))))
    assert titles(65) == ["NAME", "STATE", "UPTIME", "IMAGE", "PORTS"]
    assert titles(50) == ["NAME", "STATE", "UPTIME", "IMAGE"]
    assert titles(40) == ["NAME", "STATE", "UPTIME"]
    assert titles(30) == ["NAME", "STATE"]


def test_a_pipe_gets_whole_cells_between_tabs() -> None:
    image = "registry.example.com/" + "x" * 200
    found = made(pool(vm("web01", container("nginx", image=image)))).lines(terminal(None))
    assert "".join("\t" if span.meaning == "tab" else span.text for span in found[1]) == (
        f"web01/nginx\trunning\t\t{image}\t\t")


def test_a_name_longer_than_the_others_does_not_push_columns_out() -> None:
    found = texts(made(pool(vm("web01", container("nginx"), container("n" * 100, image="redis")))).lines(terminal(80)))
    assert found[0].split() == ["NAME", "STATE", "UPTIME", "IMAGE", "PORTS", "PROJECT"]
    assert "".join(found[2:4]).replace(" ", "") .startswith("web01/nginx") or "n" * 60 in "".join(found)
    assert any(line.split() == ["running", "redis"] for line in found)


names = st.text(min_size=1, max_size=60)
containers = st.builds(
    lambda name, state, image, project: container(name, state, project, image=image), names,
    st.sampled_from(["running", "exited", "paused", "restarting"]), st.text(max_size=80), st.text(max_size=20))
vms = st.builds(lambda name, found: vm(name, *found), st.text(max_size=20), st.lists(containers, max_size=4))
pools = st.lists(vms, max_size=4).map(lambda given: pool(*given))


@given(pools, st.integers(20, 200), st.booleans())
def test_no_line_is_wider_than_the_terminal(given: Pool, columns: int, wide: bool) -> None:
    for line in texts(made(given, wide, every=True).lines(terminal(columns))):
        assert width(line) <= columns


@given(pools, st.integers(8, 200), st.booleans())
def test_a_name_is_never_cut_unless_the_terminal_is_narrower(given: Pool, columns: int, wide: bool) -> None:
    found = made(given, wide, every=True)
    shown = texts(found.lines(terminal(columns)))
    for row in found.rows:
        name = "".join("\ufffd" if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
                       and letter not in "\u200c\u200d" else letter for letter in row[0].text).rstrip()
        if width(name) <= columns // 2:
            assert any(line.startswith(name) for line in shown), (name, shown)
        elif width(name) <= columns:  # on lines of its own
            joined = "".join("".join(line.split()) for line in shown)
            assert "".join(name.split()) in joined


@given(pools, st.one_of(st.none(), st.integers(20, 200)))
def test_no_control_character_reaches_the_terminal(given: Pool, columns: Optional[int]) -> None:
    found = made(given, wide=True, every=True)
    place = terminal(columns)
    text = place.text(found.lines(place) + found.note_lines(place))
    assert not any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
                   for letter in text if letter not in "\n\t\u200c\u200d")


HOSTILE = ["[red]markup[/red]", "\x1b[2J\x1b[31m", "a\tb\nc", "\u202egnirts", "[link=http://x]", "%s{0}", "世界"]


@pytest.mark.parametrize("name", HOSTILE)
def test_foreign_text_is_no_markup(name: str) -> None:
    found = pool(vm(name, container(name, image=name), problem=Problem("CODE", name)))
    coloured = Terminal(io.StringIO(), True, True, 120, 40)
    text = coloured.text(made(found).lines(coloured) + made(found).note_lines(coloured))
    assert text.count("\x1b[31m") == 1  # the note's own
    assert "\x1b[2J" not in text and "\u202e" not in text
    if name.startswith("["):
        assert f"{name}/{name}" in text


def test_problems_stand_below_with_code_sentence_and_next_step() -> None:
    found = made(pool(vm("slow one", problem=Problem("GUEST_UNREACHABLE", "Nothing answers.")),
                      vm("legacy", problem=Problem("KEY_NOT_ACCEPTED", "Run 'xscontainer prepare VM'.")),
                      vm("clone", problem=Problem("CARRIED_IN", "A clone."))))
    assert texts(found.note_lines(terminal(120))) == [
        "clone: CARRIED_IN: A clone. Next: xscontainer prepare clone",
        "legacy: KEY_NOT_ACCEPTED: Run 'xscontainer prepare VM'.",
        "slow one: GUEST_UNREACHABLE: Nothing answers. Next: xscontainer diagnose 'slow one'"]
    assert found.note_lines(terminal(120))[0][0] == Span("clone: CARRIED_IN:", BAD)


def test_a_next_step_for_a_name_that_cannot_be_typed_has_the_uuid() -> None:
    uuid = "11111111-2222-4333-8444-555555555555"
    found = made(pool(vm("a\x1b[2Jb", uuid=uuid, problem=Problem("X_Y", "Bad."))))
    assert found.notes[0].text.endswith(f"Next: xscontainer diagnose {uuid}")


def test_container_management_that_is_off_is_told_to_those_who_ask() -> None:
    given = pool(vm("off", problem=Problem("NOT_REGISTERED", "Container management is off.")),
                 vm("halted", power_state="Halted"))
    assert texts(made(given).note_lines(terminal(80))) == ["No containers."]
    assert texts(made(given, every=True).note_lines(terminal(80)))[0].startswith("off: NOT_REGISTERED")
    assert "halted: The VM is halted." in texts(made(given, of_vms=True).note_lines(terminal(80)))


@pytest.mark.parametrize("given, chosen, note", [
    (pool(), {}, "No VM here is container-managed. Prepare one: xscontainer prepare VM"),
    (pool(vm("a")), {}, "No containers."),
    (pool(vm("a", container("x"))), {"names": ("y",)}, "No container matches."),
    (pool(vm("a", container("x", "exited"))), {}, "1 container not shown: not running. --all shows it."),
    (pool(vm("a", container("x", "exited"), container("y", "created"))), {},
     "2 containers not shown: not running. --all shows them."),
    (pool(vm("a", container("x"), left_out=7)), {}, "7 containers did not fit into the published lists.")])
def test_a_note_says_what_is_not_shown(given: Pool, chosen: Any, note: str) -> None:
    assert [each.text for each in made(given, **chosen).notes] == [note]


def test_a_note_is_wrapped_at_the_width_of_the_terminal() -> None:
    found = made(pool(vm("a", problem=Problem("CODE_X", "word " * 60))))
    lines = texts(found.note_lines(terminal(40)))
    assert len(lines) > 6 and all(width(line) <= 40 for line in lines)
    assert "\n".join(lines).count("word") == 60


def test_a_container_that_ended_without_an_error_is_quiet() -> None:
    rows = made(pool(vm("a", container("x", "exited", exit_code=0), container("y", "exited", exit_code=1))),
                every=True).rows
    assert [row[1].meaning for row in rows] == [QUIET, BAD]
