"""Skip a test if a part of the machine is absent; under CI fail it."""

import os
import shutil

import pytest

# Parts that may be absent under CI, too: the beginnings of their names, separated by "|".
MAY_LACK = "XSCONTAINER_MAY_LACK"


def need(condition: object, what: str) -> None:
    """Skip the test unless ``condition`` holds; fail it when the environment variable CI is not empty.

    :param what: the missing part, for a person: "mono's mcs (Debian: mono-mcs)".
    """
    if condition:
        return
    allowed = tuple(filter(None, os.environ.get(MAY_LACK, "").split("|")))
    if os.environ.get("CI") and not what.startswith(allowed):
        pytest.fail(f"missing here: {what}", pytrace=False)
    # An installed engine that cannot run has a reason of its own. pytest folds skips with one reason into one line.
    pytest.skip(what if "cannot run here" in what else f"needs {what}")


def need_program(name: str, package: str = "") -> str:
    """Return the path of a program that the test needs, also in system directories that PATH may lack."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    need(path, f"the program {name}" + (f" (Debian: {package})" if package else ""))
    assert path is not None
    return path
