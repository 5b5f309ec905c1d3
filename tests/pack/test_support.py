"""The support matrix agrees with everything that repeats a part of it."""

import configparser
import os

from docs import support
from rpm.pack.payload import ROOT
from rpm.pack.release import TARGETS
from tests.setup.prepare import NEWEST_FIRST


def test_the_classifiers_name_the_supported_versions_of_python() -> None:
    config = configparser.ConfigParser()
    config.read(os.path.join(ROOT, "setup.cfg"), encoding="utf-8")
    given = [line for line in config["metadata"]["classifiers"].splitlines() if "Python :: 3." in line]
    assert given == support.classifiers()
    assert config["options"]["python_requires"] == f">={support.PYTHONS[0].version}"


def test_there_is_a_pack_for_the_python_of_each_dom0() -> None:
    assert {dom0.python: dom0.pack for dom0 in support.DOM0S} == {
        python: target.tag for python, target in TARGETS.items()}


def test_the_newest_supported_python_is_the_one_that_make_test_prefers() -> None:
    assert NEWEST_FIRST[0] == f"python{support.PYTHONS[-1].version}"
