"""Draw the picture of README.md: a terminal with real output of real commands on the simulated pool, as an SVG.

    python -m tests.docs.picture

The drawing is the same each time: addresses, uuids and times differ from run to run and are replaced by fixed ones. The
colours are those that the commands print. tests/docs/test_picture.py fails when the commands print something else.
"""

import html
import re
import sys
import tempfile
from typing import Any, List, Tuple

from docs.blocks import ROOT
from tests.docs import pool as pools
from xscontainer.simulator.demo.guests import BUILD, FAILING
from xscontainer.simulator.world import World

PATH = ROOT / "docs" / "picture.svg"
FAILS = f"xscontainer start {BUILD}/{FAILING}"
COMMANDS = ("xscontainer ps", FAILS, f"xscontainer status {BUILD}")
PROMPT = "$ "
COLUMNS = 80
WIDTH, HEIGHT, LEFT, TOP = 8.4, 19, 18, 46  # pixels: of a character, of a line, and the margins


def _as_wide(text: str) -> Any:
    return lambda found: text.ljust(len(found.group()))


FIXED = (
    (r"127\.\d+\.\d+\.\d+", "192.0.2.15"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "5f1e0c8a-4c4b-4bb0-9d4e-0a2f3c6b7d81"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "2026-11-30 20:15:04"),
    (r"(?<= )\d+s +", _as_wide("4d")),
)
# Parameters of the terminal's command SGR -> colour.
COLOURS = {"32": "#7fd962", "31": "#f07178", "33": "#e5c07b", "36": "#73b8ff", "2": "#8b98a9", "1": "#ffffff"}
GREY = "#c7d0db"

# Pieces of a line: text and colour.
Line = List[Tuple[str, str]]


def record(world: World) -> List[Line]:
    """The lines that the terminal shows."""
    lines: List[Line] = []
    for command in COMMANDS:
        code, text = pools.run(world, command, COLUMNS, coloured=True)
        if code:
            raise RuntimeError(f"{command} ended with {code}:\n{text}")
        for pattern, fixed in FIXED:
            text = re.sub(pattern, fixed, text)
        lines += [[(PROMPT + command, "#ffffff")], *map(coloured, text.rstrip().splitlines()), []]
        if command == FAILS:
            world.wait_published(BUILD, lambda listed: listed[FAILING].state == "exited")
    return lines[:-1]


def coloured(line: str) -> Line:
    """Return the pieces of a line of output with its colours."""
    pieces: Line = []
    colour = GREY
    for number, part in enumerate(re.split(r"\x1b\[([0-9;]*)m", line)):
        if number % 2:
            colour = COLOURS.get(part, GREY)
        elif part:
            pieces.append((part, colour))
    return pieces


def plain(line: Line) -> str:
    return "".join(text for text, _ in line)


def draw(lines: List[Line]) -> str:
    """An SVG of a terminal. Each line is stretched to its width, so that every font shows the columns."""
    width = round(2 * LEFT + COLUMNS * WIDTH)
    height = TOP + len(lines) * HEIGHT + LEFT
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, Liberation Mono, monospace" font-size="14">',
        "<title>xscontainer on a simulated pool</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#151b23"/>',
        *(f'<circle cx="{22 + 18 * number}" cy="20" r="5.5" fill="{colour}"/>'
          for number, colour in enumerate(("#f07178", "#e5c07b", "#7fd962"))),
    ]
    for number, line in enumerate(lines):
        if line:
            spans = "".join(f'<tspan fill="{colour}">{html.escape(text)}</tspan>' for text, colour in line)
            drawn.append(f'<text x="{LEFT}" y="{TOP + number * HEIGHT + 14}" xml:space="preserve" '
                         f'textLength="{len(plain(line)) * WIDTH:.1f}" lengthAdjust="spacingAndGlyphs">{spans}</text>')
    return "\n".join(drawn + ["</svg>"]) + "\n"


def main() -> int:
    """Write the picture."""
    with tempfile.TemporaryDirectory(prefix="xp") as directory, pools.pool(directory) as world:
        lines = record(world)
    PATH.write_text(draw(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
