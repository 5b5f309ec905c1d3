"""The commands of each page work on a simulated pool, in the order of the page, and print what it shows."""

from pathlib import Path
from typing import Iterator, List

import pytest

from docs.blocks import ROOT, Block, blocks, pages
from tests.docs import pool as pools
from xscontainer.simulator.world import World

pytestmark = pytest.mark.real


def runnable(page: Path) -> List[Block]:
    return [block for block in blocks(page) if block.mark is not None and block.mark.run]


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pools.pool(str(tmp_path_factory.mktemp("w"))) as made:
        yield made


@pytest.mark.parametrize("page", [page for page in pages() if runnable(page)],
                         ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page_work_in_its_order(page: Path, world: World) -> None:
    for block in runnable(page):
        assert block.mark is not None
        given = dict(pools.values(world), **block.mark.values)
        outputs = block.outputs or [""] * len(block.commands)
        for number, (command, expected) in enumerate(zip(block.commands, outputs)):
            last = number == len(block.commands) - 1
            line = pools.filled(command, given, world)
            code, text = pools.run(world, line)
            assert code == (block.mark.exit if last else 0), f"{page.name}:{block.line}: {line}\n{text}"
            if expected.strip():
                same, pattern = pools.matches(text, expected)
                assert same, f"{page.name}:{block.line}: {line}\n{text}\nis not\n{expected}\n{pattern}"


def test_a_command_that_fails_is_noticed(world: World) -> None:
    code, text = pools.run(world, "xscontainer diagnose nobody")
    assert code == 4 and "nobody" in text
    assert pools.run(world, "xe vm-list --minimal nonsense=1").code == 1
    assert pools.run(world, "xe no-such-command").code == 1
    assert pools.run(world, "no-such-program").code == 127
    code, text = pools.run(world, pools.filled(
        "xe host-call-plugin host-uuid=HOST plugin=xscontainer fn=start args:vmuuid=VM args:container=nobody",
        pools.values(world), world))
    assert code == 1 and text.startswith("Error code: CONTAINER_NOT_FOUND\n")


@pytest.mark.parametrize("shown, expected, same", [
    ("one\ntwo\n", "one\ntwo\n", True), ("one\ntwo\n", "one\n", False), ("one\n", "one\ntwo\n", False),
    ("took 12 ms here\n", "took ... ms here", True), ("a\nb\nc\nd\n", "a\n...\nd\n", True),
    ("a\nb\n", "a\n...\nc\n", False), ("a.c\n", "abc\n", False), ("abc\n", "a.c\n", False),
])
def test_an_output_is_compared_line_by_line(shown: str, expected: str, same: bool) -> None:
    assert pools.matches(shown, expected)[0] is same
