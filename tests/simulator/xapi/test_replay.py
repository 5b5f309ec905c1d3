"""Every recorded answer of the real xapi, compared with the simulator's."""
import os
from typing import Any, Dict

import pytest

from tests.simulator.xapi import scenes
from tests.simulator.xapi.replay import Replay, load_steps
from xscontainer.simulator.xapi import Pool

SCENES = {"session": scenes.session_scene, "errors": scenes.errors_scene, "other_config": scenes.other_config_scene,
          "messages_tasks_secrets": scenes.messages_scene, "records": scenes.records_scene}


@pytest.mark.parametrize("name", list(SCENES))
def test_recorded_steps(name: str, tmp_path: Any) -> None:
    """The file's steps, in order."""
    steps = load_steps()
    with Pool(str(tmp_path), hosts=2) as pool:
        pool.step_delay = 0.001
        replay = Replay(pool, steps[name])
        scenes.plugins(replay, steps["plugins"][0]["reply"]["source"])
        SCENES[name](replay)
        try:
            replay.run()
        finally:
            replay.close()
    print("{}: {} of {} steps compared, {} byte by byte".format(name, replay.compared, len(replay.steps), replay.texts))
    assert not replay.problems, "{} steps differ:\n{}".format(len(replay.problems), "\n".join(replay.problems))
