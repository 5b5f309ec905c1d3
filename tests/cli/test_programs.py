"""The programs are the same, whether installed from the pack or by pip."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_pip_installs_the_programs_of_the_pack() -> None:
    config = configparser.ConfigParser()
    config.read(str(ROOT / "setup.cfg"), encoding="utf-8")
    scripts = dict(re.findall(r"^(\S+) = (\S+):main$", config["options.entry_points"]["console_scripts"], re.MULTILINE))
    packed = {}
    for path in (ROOT / "rpm" / "files").iterdir():
        text = path.read_text(encoding="utf-8")
        if text.startswith("#!/usr/bin/python3"):
            (packed[path.name],) = re.findall(r"^from (xscontainer\S*) import main\b", text, re.MULTILINE)
    assert scripts == packed
