"""The function ``get_stats`` in the plugin's own process."""

import json
from typing import Any

from tests.verbs.stats.scene import BUSY, pool


def test_a_call_without_a_daemon_shows_the_cpu(tmp_path_factory: Any) -> None:
    for world in pool(str(tmp_path_factory.mktemp("w")), daemons=False):
        for name in ("new", "podman"):
            found = json.loads(world.call(1, "get_stats", vmuuid=world.vm(name).uuid)[4:])
            shown = {each["name"]: each for each in found["containers"]}
            assert set(shown) == {"busy", "idle"} and 130 < shown["busy"]["cpu_percent"] < 170
            assert shown["busy"]["memory"] == BUSY.memory
