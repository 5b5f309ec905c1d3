"""What a test needs of the machine: absent, it is skipped for a user and fails under CI."""

import os
import shutil

import pytest


def need(condition: object, what: str) -> None:
    """Skip the test unless ``condition`` holds; fail it when the environment variable CI is not empty.

    :param what: the missing part, for a person: "mono's mcs (Debian: mono-mcs)".
    """
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"missing here: {what}", pytrace=False)
    pytest.skip(f"needs {what}")


def need_program(name: str, package: str = "") -> str:
    """The path of a program that the test needs, also one in the system directories PATH may leave out."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    need(path, f"the program {name}" + (f" (Debian: {package})" if package else ""))
    assert path is not None
    return path
