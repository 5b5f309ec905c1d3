"""Which configuration a new VM is offered, by its template."""

import json
import re
from pathlib import Path
from typing import Iterable

# Where the package installs guest-config.
INSTALLED = Path("/usr/share/xscontainer/guest-config")
TABLE = "defaults.json"


def directory() -> Path:
    """guest-config: of the checkout that this module stands in, else the installed one."""
    here = Path(__file__).resolve().parent.parent.parent / "guest-config"
    return here if (here / TABLE).is_file() else INSTALLED


def configuration(labels: "Iterable[str]", source: Path) -> str:
    """The default configuration for a template.

    :param labels: its names; the first that a line of the table means counts, the table's last line means all.
    :param source: a directory as guest-config is.
    """
    table = json.loads((source / TABLE).read_text(encoding="utf-8"))
    for label in labels:
        for line in table[:-1]:
            if re.search(line["match"], label.lower()):
                return _text(source / line["file"])
    return _text(source / table[-1]["file"])


def _text(path: Path) -> str:
    with open(str(path), encoding="utf-8", newline="") as stream:  # newlines as they are
        return stream.read()
