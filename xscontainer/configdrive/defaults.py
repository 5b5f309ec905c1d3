"""Choose the default configuration for a new VM by its template."""

import json
import re
from pathlib import Path
from typing import Iterable

INSTALLED = Path("/usr/share/xscontainer/guest-config")  # by the package
TABLE = "defaults.json"


def directory() -> Path:
    """Return the directory guest-config: that of the checkout if this module is in one, else the installed one."""
    here = Path(__file__).resolve().parent.parent.parent / "guest-config"
    return here if (here / TABLE).is_file() else INSTALLED


def configuration(labels: "Iterable[str]", source: Path) -> str:
    """Return the default configuration for a template.

    :param labels: names of the template; the first one that matches a line of the table decides. The last line of the
        table is for all others.
    :param source: the directory guest-config.
    """
    table = json.loads((source / TABLE).read_text(encoding="utf-8"))
    for label in labels:
        for line in table[:-1]:
            if re.search(line["match"], label.lower()):
                return _text(source / line["file"])
    return _text(source / table[-1]["file"])


def _text(path: Path) -> str:
    with open(str(path), encoding="utf-8", newline="") as stream:  # do not change newlines
        return stream.read()
