"""The picture of README.md shows what the commands print."""

import re
import xml.etree.ElementTree as ElementTree
from typing import List

import pytest

from tests.docs import picture, pool

SVG = "{http://www.w3.org/2000/svg}"


def shown(svg: str) -> List[str]:
    """The lines of text in a picture; a line without text is not there."""
    root = ElementTree.fromstring(svg)
    return ["".join(text.itertext()) for text in root.iter(SVG + "text")]


def test_a_picture_has_every_line_in_its_place() -> None:
    lines = [picture.coloured("$ xscontainer ps"), [], picture.coloured("a <VM> & \x1b[33mpaused\x1b[0m  2s")]
    svg = picture.draw(lines)
    assert shown(svg) == ["$ xscontainer ps", "a <VM> & paused  2s"]
    rows = [float(text.attrib["y"]) for text in ElementTree.fromstring(svg).iter(SVG + "text")]
    assert rows[1] - rows[0] == 2 * picture.HEIGHT
    assert lines[2] == [("a <VM> & ", picture.GREY), ("paused", "#e5c07b"), ("  2s", picture.GREY)]


def test_the_picture_fits_its_frame_and_has_no_address_of_a_test() -> None:
    lines = shown(picture.PATH.read_text("utf-8"))
    assert max(map(len, lines)) <= picture.COLUMNS
    assert not [line for line in lines if re.search(r"127\.|/tmp|simulator", line)]


@pytest.mark.real
def test_the_picture_shows_what_the_commands_print(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pool.pool(str(tmp_path_factory.mktemp("w"))) as world:
        lines = [picture.plain(line) for line in picture.record(world)]
    assert shown(picture.PATH.read_text("utf-8")) == [line for line in lines if line], "run make docs"
