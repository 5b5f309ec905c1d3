"""Every recorded answer of the real xapi, compared with the simulator's."""

from typing import Any, Callable, Dict, List, Tuple

import pytest

from tests.simulator.xapi import scenes, scenes_events, scenes_plugins
from tests.simulator.xapi.replay import Replay, load_steps
from xscontainer.simulator.xapi import Pool

SCENES: Dict[str, Callable[[Replay], None]] = {
    "session": scenes.session_scene,
    "errors": scenes.errors_scene,
    "other_config": scenes.other_config_scene,
    "records": scenes.records_scene,
    "messages_tasks_secrets": scenes.messages_scene,
    "events": scenes_events.events_scene,
    "events_more": scenes_events.events_more_scene,
    "plugins": scenes_plugins.plugins_scene,
    "plugins_more": scenes_plugins.plugins_more_scene,
}
SLOW = ("events", "events_more", "plugins", "plugins_more")
# Steps that are not compared, and why.
LEFT_OUT: Dict[Tuple[str, str], str] = {
    ("records", "VM.start"): "failed because the laboratory had no network devices, which the simulator does not need",
    ("events", "life.pause"): "failed because the laboratory's hypervisor could not pause a VM; the simulator can",
    ("events", "life.start.full"): "the unreduced answers of life.start, which is compared",
    ("plugins", "plugin-source"): "no call: the source of the plugin that the other steps use",
}


def _cases() -> List[Any]:
    return [pytest.param(name, marks=pytest.mark.real if name in SLOW else ()) for name in SCENES]


@pytest.mark.limit(300)
@pytest.mark.parametrize("name", _cases())
def test_every_recorded_answer_is_repeated(name: str, tmp_path: Any) -> None:
    """Send the steps of one recording in order."""
    steps = load_steps()
    with Pool(str(tmp_path), hosts=2) as pool:
        pool.step_delay = 0.001
        replay = Replay(pool, steps[name])
        replay.skipped.update({step: reason for (recording, step), reason in LEFT_OUT.items() if recording == name})
        scenes.plugins(replay, steps["plugins"][0]["reply"]["source"])
        SCENES[name](replay)
        try:
            replay.run()
        finally:
            replay.close()
    print(f"{name}: {replay.compared} of {len(replay.steps)} steps compared, {replay.texts} of them byte by byte")
    assert not replay.problems, "{} steps differ:\n{}".format(len(replay.problems), "\n".join(replay.problems))
    assert replay.compared + len(replay.left_out) == len(replay.steps)


def test_less_than_one_percent_of_the_steps_is_left_out() -> None:
    """All recordings are used, and every step that is left out exists."""
    steps = load_steps()
    assert set(steps) == set(SCENES)
    known = {(name, step["name"]) for name, recording in steps.items() for step in recording}
    assert set(LEFT_OUT) <= known
    total = sum(len(recording) for recording in steps.values())
    print(f"{total - len(LEFT_OUT)} of {total} recorded steps are compared")
    assert total > 1500
    assert len(LEFT_OUT) < 0.01 * total
