"""A removal that cannot wipe the published lists reports it, and prints what to do."""

import socket
import time
from typing import Iterator

import pytest

from tests.pack.conftest import Packs
from tests.pack.dom0 import Dom0
from xscontainer import keys

pytestmark = [pytest.mark.real, pytest.mark.limit(300)]


@pytest.fixture
def installed(dom0: Dom0, packs: Packs) -> Dom0:
    dom0.apply(packs.current.tree, packs.current.key)
    dom0.path("xapi-is-active").touch()
    return dom0


@pytest.fixture
def deaf(installed: Dom0) -> Iterator[Dom0]:
    """Yield a dom0 whose XAPI accepts connections and never answers."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(installed.path("var/lib/xcp/xapi")))
        listening.listen(5)
        yield installed


def check_told(output: str) -> None:
    assert "could not be removed" in output
    assert "xe vm-param-remove uuid=VM param-name=other-config param-key=KEY" in output
    # Keys that the general advice about xscontainer-* does not cover.
    assert all(key in output for key in keys.PUBLISHED if not key.startswith("xscontainer-"))


def test_a_removal_does_not_wait_for_a_xapi_that_does_not_answer(deaf: Dom0) -> None:
    begun = time.monotonic()
    check_told(deaf.remove())
    assert deaf.installed() == [] and time.monotonic() - begun < 60


def test_a_removal_stops_a_wipe_that_hangs(installed: Dom0) -> None:
    # XAPI hangs after its first answer. Only the deadline is shorter here.
    program = installed.path("usr/bin/xscontainer")
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    timeout = installed.path("usr/bin/timeout")
    timeout.unlink()
    timeout.write_text("#!/bin/sh\n[ $1 = 60 ] || exit 9\nshift\nexec /usr/bin/busybox timeout 1 \"$@\"\n")
    timeout.chmod(0o755)
    check_told(installed.remove())
    assert installed.installed() == []


@pytest.mark.parametrize("chroot", [False, True])
def test_a_removal_without_a_running_xapi_wipes_nothing(installed: Dom0, chroot: bool) -> None:
    installed.path("xapi-is-active").unlink()
    if chroot:
        installed.path("chroot").touch()
    program = installed.path("usr/bin/xscontainer")
    program.write_text("#!/bin/sh\ntouch /wiped\n")
    check_told(installed.remove())
    assert not installed.path("wiped").exists()
