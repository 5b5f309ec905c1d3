"""Measure config drives and VMs from a template, without the time of storage: the simulator's takes none."""

import os
import tempfile
import time
from pathlib import Path
from typing import List

from tests.bench.figures import Report, quantile
from tests.configdrive.cloud import Cloud
from tests.configdrive.test_create import create, templates

TIMES = 9
TEMPLATE = "Docker on Debian"


def measure_drives(report: Report) -> None:
    report.title("Config drives and new VMs, simulated storage and guests")
    with tempfile.TemporaryDirectory(prefix="xsb") as directory, Cloud(os.path.join(directory, "w")) as cloud:
        cloud.pool.step_delay = 0.0
        (Path(directory) / "t").mkdir()
        cloud.templates = templates(cloud, Path(directory) / "t")  # type: ignore[attr-defined]
        cloud.image = cloud.add_image()
        sr = cloud.uuid("SR", cloud.storage["Shared storage"])
        template = cloud.uuid("VM", cloud.templates[TEMPLATE])  # type: ignore[attr-defined]
        configuration = cloud.call(0, "get_config_drive_default", templateuuid=template)[len("True"):]
        drives: List[float] = []
        vm = cloud.uuid("VM", cloud.pool.create_vm("halted", power_state="Halted"))
        for _ in range(TIMES):
            begun = time.monotonic()
            cloud.call(0, "create_config_drive", vmuuid=vm, sruuid=sr, configuration=configuration)
            drives.append(time.monotonic() - begun)
        create(cloud, TEMPLATE, name="first")  # makes the pool's key and loads all modules
        made: List[float] = []
        for number in range(TIMES):
            begun = time.monotonic()
            create(cloud, TEMPLATE, name=f"vm {number}")
            made.append(time.monotonic() - begun)
        report.figure("create_config_drive: median", quantile(drives, 0.5) * 1000, "ms", 250)
        report.figure("create, with a guest that boots in no time: median", quantile(made, 0.5), "s", 1.5)
