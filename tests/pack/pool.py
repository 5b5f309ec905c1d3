"""A simulated pool whose only host has a directory for its dom0, and a guest with a real sshd and a real dockerd."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Iterator

from rpm.pack.release import LABEL
from tests.pack.dom0 import Dom0
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

CONTAINERS = (ContainerSpec("hadoop"), ContainerSpec("tomcat", state="paused"))


@contextlib.contextmanager
def pool_of(dom0: Dom0) -> "Iterator[World]":
    """The guest is the VM ``classic``; XAPI runs, and its plugins are those in ``dom0``."""
    with World(str(dom0.root / "w"), hosts=1, guests=[GuestSpec("classic", CONTAINERS)],
               parts=Parts(daemons=False, ssh="openssh", engine="real")) as made:
        host = made.pool.hosts[0]
        inside = "/" + os.path.relpath(host.socket_path, str(dom0.root))
        dom0.path("var/lib/xcp/xapi").symlink_to(inside)
        shutil.copy(host.inventory_path, str(dom0.path("etc/xensource-inventory")))
        dom0.path("etc/xscontainer").mkdir()
        # Settings that an administrator wrote before the installation: simulated guests have loopback addresses.
        dom0.path("etc/xscontainer/xscontainer.conf").write_text(
            "[daemon]\nlog_file = /var/log/xscontainer.log\n[address]\nallow_loopback = yes\n")
        plugin = Path(host.plugin_dir, LABEL)
        plugin.write_text(f'#!/bin/sh\nexec chroot {dom0.root} /etc/xapi.d/plugins/{LABEL} "$@"\n')
        dom0.path("xapi-is-active").touch()
        yield made
        dom0.stop_monitor()
