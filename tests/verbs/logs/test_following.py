"""Following a container's log from call to call, over the simulated engine."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, List

import pytest

from tests.engine.conftest import ENGINE
from tests.engine.peers import engine_at
from tests.verbs.logs.scene import UUID, Scene, texts
from tests.waiting import until
from xscontainer.core import current_call, memory_budget
from xscontainer.core.budget import CPU
from xscontainer.core.log_document import LogContainer
from xscontainer.core.log_follow import Position
from xscontainer.core.log_lines import MOST_LINES
from xscontainer.engine.logs import LogOptions
from xscontainer.errors import (
    ArgumentError,
    Busy,
    FollowLost,
    FollowUnavailable,
    GuestSilent,
    LogsUnreadable,
    VMNotRegistered,
)
from xscontainer.verbs.followers import Followed

NOBODYS = "0" * 32


def opened(scene: Scene, **arguments: str) -> str:
    token = scene.call(follow="new", **arguments)["follow"]
    assert isinstance(token, str)
    return token


def test_the_first_answer_has_the_lines_that_are_there_and_a_token(scene: Scene) -> None:
    scene.write("one", "two")
    began = time.monotonic()
    found = scene.call(follow="new", wait="20")
    assert time.monotonic() - began < 5.0, "it waits for no further line"
    assert texts(found) == ["one", "two"] and not found["ended"]
    assert texts(scene.more(found["follow"], 0)) == []
    scene.write("three")
    later = scene.more(found["follow"])
    assert texts(later) == ["three"] and later["follow"] == found["follow"]
    assert later["container"] == found["container"]


def test_a_call_waits_for_a_line_and_answers_with_it(scene: Scene) -> None:
    token = opened(scene)
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(scene.more, token, 20)
        until(lambda: scene.asked == 2, "the log is not followed")
        written = time.monotonic()
        scene.write("line")
        assert texts(answer.result(15)) == ["line"]
        assert time.monotonic() - written < 5.0


def test_lines_that_follow_each_other_closely_come_together(scene: Scene) -> None:
    token = opened(scene)
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(scene.more, token, 20)
        until(lambda: scene.asked == 2)
        scene.write("one", "two", "three")
        assert texts(answer.result(15)) == ["one", "two", "three"]


def test_a_call_without_lines_ends_after_its_wait(scene: Scene) -> None:
    token = opened(scene)
    began = time.monotonic()
    found = scene.more(token, 1)
    assert time.monotonic() - began >= 1.0
    assert texts(found) == [] and found["follow"] == token and not found["ended"]


def test_a_call_is_answered_before_its_deadline(scene: Scene) -> None:
    token = opened(scene)
    with current_call.serving("id", 4.0):
        began = time.monotonic()
        scene.more(token, 20)
        assert time.monotonic() - began < 3.5


def test_nothing_is_asked_of_the_engine_between_calls(scene: Scene) -> None:
    token = opened(scene)
    assert scene.asked == 1
    for number in range(3):
        scene.write(str(number))
        assert texts(scene.more(token)) == [str(number)]
    assert scene.asked == 2, "one stream for all calls"


def test_a_log_that_was_empty_is_followed_from_its_first_line(scene: Scene) -> None:
    for tail in ("0", "100"):
        token = opened(scene, tail=tail)
        scene.write("first " + tail)
        assert texts(scene.more(token)) == ["first " + tail]
        scene.server.do("remove", "web")
        scene.server.run("web")


@pytest.mark.parametrize("tail, shown", [("0", []), ("1", ["two"]), ("100", ["one", "two"])])
def test_the_tail_says_how_many_old_lines_come_first(scene: Scene, tail: str, shown: "List[str]") -> None:
    scene.write("one", "two")
    found = scene.call(follow="new", tail=tail)
    assert texts(found) == shown
    scene.write("three")
    assert texts(scene.more(found["follow"])) == ["three"]


def test_one_stream_of_a_log_is_followed(scene: Scene) -> None:
    scene.write("old error", stream=2)
    scene.write(*(f"out {number}" for number in range(5)))
    found = scene.call(follow="new", stream="stderr", tail="3")
    assert texts(found) == []
    scene.write("out")
    scene.write("error", stream=2)
    assert texts(scene.more(found["follow"])) == ["error"]


def test_a_log_is_followed_from_a_time_on(scene: Scene) -> None:
    scene.write("one", "two")
    second = scene.call()["lines"][1]["time"]
    found = scene.call(follow="new", since=second)
    assert texts(found) == ["two"]
    assert texts(scene.more(found["follow"], 0)) == []
    scene.write("three")
    assert texts(scene.more(found["follow"])) == ["three"]


def test_a_log_ends_with_its_container(scene: Scene) -> None:
    token = opened(scene)
    scene.write("last")
    scene.more(token)
    scene.server.do("restart", "web")
    scene.write("another life")
    found = scene.more(token)
    assert found["ended"] and found["follow"] is None
    with pytest.raises(FollowLost):
        scene.more(token)
    assert len(scene.followers) == 0


def test_the_last_lines_of_a_container_come_with_the_end(scene: Scene) -> None:
    token = opened(scene)
    assert texts(scene.more(token, 0)) == []
    scene.write("last words")
    scene.server.do("stop", "web")
    found: Any = {"ended": False}
    seen: List[str] = []
    while not found["ended"]:
        found = scene.more(token)
        seen += texts(found)
    assert seen == ["last words"]


def test_the_log_of_a_container_that_does_not_run_has_ended_already(scene: Scene) -> None:
    scene.write("last")
    scene.server.do("stop", "web")
    found = scene.call(follow="new")
    assert texts(found) == ["last"] and found["ended"] and found["follow"] is None
    assert len(scene.followers) == 0


def test_a_container_that_was_removed_ends_its_log(scene: Scene) -> None:
    token = opened(scene)
    scene.server.do("remove", "web")
    found = scene.more(token)
    assert found["ended"] and found["follow"] is None


def test_a_lost_connection_loses_and_repeats_no_line(scene: Scene) -> None:
    scene.write("one")
    token = opened(scene)
    seen: List[str] = []
    for number in range(4):
        with engine_at(scene.server.socket_path, ENGINE) as another:
            scene.context.opened = another
            scene.write(f"a{number}", f"b{number}")
            seen += texts(scene.more(token))
            scene.write(f"c{number}")
            seen += texts(scene.more(token))
            another.hang_up()
        scene.write(f"lost {number}")
    with engine_at(scene.server.socket_path, ENGINE) as another:
        scene.context.opened = another
        seen += texts(scene.more(token))
        assert ["one"] + seen == texts(scene.call())


def test_a_connection_that_is_lost_during_a_call_is_waited_for(scene: Scene) -> None:
    token = opened(scene)
    old = scene.context.opened
    with engine_at(scene.server.socket_path, ENGINE) as another, ThreadPoolExecutor(1) as executor:
        answer = executor.submit(scene.more, token, 20)
        until(lambda: scene.asked == 2)
        scene.context.failure = GuestSilent("VM web is being connected to.")
        old.hang_up()
        scene.write("meanwhile")
        scene.context.opened = another
        scene.context.failure = None
        assert texts(answer.result(15)) == ["meanwhile"]


def test_an_outage_that_lasts_is_the_calls_error_and_the_token_stays(scene: Scene) -> None:
    token = opened(scene)
    scene.context.failure = GuestSilent("VM web is being connected to.")
    with pytest.raises(GuestSilent):
        scene.more(token, 1)
    scene.context.failure = None
    scene.write("after")
    assert texts(scene.more(token)) == ["after"]


def test_a_vm_that_left_loses_its_followers(scene: Scene) -> None:
    token = opened(scene)
    scene.context.failure = VMNotRegistered("The containers are not managed on this host.")
    with pytest.raises(FollowLost, match="left this host"):
        scene.more(token)
    scene.context.failure = None
    with pytest.raises(FollowLost):
        scene.more(token)


def test_a_token_is_lost_if_nobody_asks_for_half_a_minute(scene: Scene) -> None:
    token = opened(scene)
    for _ in range(3):
        scene.context.now += 29.0
        scene.more(token, 0)
    before = memory_budget.BUDGET.total
    scene.context.now += 31.0
    scene.followers.drop_left()
    assert len(scene.followers) == 0 and memory_budget.BUDGET.total < before, "its memory is free"
    with pytest.raises(FollowLost) as caught:
        scene.more(token)
    assert "since" in caught.value.hint
    # So is a follower whose last call is long.
    token = opened(scene)
    with scene.followers.held(token, UUID):
        scene.context.now += 31.0
        scene.followers.drop_left()
    assert texts(scene.more(token, 0)) == []


def test_a_vm_that_is_monitored_no_longer_loses_its_followers_at_once(scene: Scene) -> None:
    token = opened(scene)
    scene.followers.drop_of(UUID.replace("4a1b", "5a1b"))
    scene.more(token, 0)
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(scene.more, token, 20)
        scene.followers.drop_of(UUID)
        with pytest.raises(FollowLost):
            answer.result(15)
    assert len(scene.followers) == 0


def test_the_end_of_the_daemon_ends_the_calls_that_wait(scene: Scene) -> None:
    token = opened(scene)
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(scene.more, token, 20)
        until(lambda: scene.asked == 2)
        scene.context.stopping.set()
        scene.followers.close()
        with pytest.raises(FollowLost):
            answer.result(15)


@pytest.mark.parametrize("token", [NOBODYS, "another VM's"])
def test_an_unknown_token_is_lost(scene: Scene, token: str) -> None:
    mine = opened(scene)
    vm = UUID if token == NOBODYS else UUID.replace("4a1b", "5a1b")
    with pytest.raises(FollowLost) as caught:
        scene.call(follow=token if token == NOBODYS else mine, vmuuid=vm)
    assert caught.value.code == "FOLLOW_LOST"


def test_a_token_serves_one_call_at_a_time(scene: Scene) -> None:
    token = opened(scene)
    with scene.followers.held(token, UUID), pytest.raises(Busy) as caught:
        scene.more(token)
    assert caught.value.description()[2] == "1"


def test_a_vm_has_four_followers_at_most(scene: Scene) -> None:
    tokens = [opened(scene) for _ in range(4)]
    with pytest.raises(Busy, match=f"4 logs of the VM {UUID} are followed already") as caught:
        opened(scene)
    assert caught.value.description()[2] == "30"
    scene.server.do("stop", "web")
    while not scene.more(tokens[0])["ended"]:
        pass
    scene.server.do("start", "web")
    opened(scene)


def test_a_follower_whose_client_has_gone_gives_its_place_to_a_new_one(scene: Scene) -> None:
    tokens = [opened(scene) for _ in range(4)]
    scene.context.now += 11.0
    for token in tokens[1:]:
        scene.more(token, 0)
    tokens.append(opened(scene))
    with pytest.raises(FollowLost):
        scene.more(tokens[0])
    with pytest.raises(Busy):
        opened(scene)
    for token in tokens[1:]:
        scene.more(token, 0)


def follower(vm: int) -> Followed:
    return Followed(f"vm-{vm}", LogContainer("f" * 64, ""), LogOptions(), Position())


def test_a_vm_that_has_all_its_followers_takes_no_place_of_another_vm(scene: Scene) -> None:
    left = [follower(number) for number in range(4)]
    for each in left:
        scene.followers.add(each)
    scene.context.now += 11.0
    for _ in range(4):
        scene.followers.add(follower(5))
    with pytest.raises(Busy, match="4 logs"):
        scene.followers.add(follower(5))
    assert len(scene.followers) == 8 and not any(each.closed for each in left)


def test_a_full_host_drops_the_follower_that_was_left_first(scene: Scene) -> None:
    made = [follower(number) for number in range(16)]
    for each in made:
        scene.followers.add(each)
        scene.context.now += 0.5
    with pytest.raises(Busy, match="16 logs"):
        scene.followers.add(follower(16))
    scene.context.now += 2.1
    scene.followers.add(follower(16))
    assert [each.closed for each in made] == [True] + 15 * [False]


@pytest.mark.parametrize("wrong", [
    {"follow": "newer"}, {"follow": ""}, {"follow": "F" * 32}, {"follow": "new", "wait": "21"},
    {"follow": "new", "wait": "-1"}, {"follow": "new", "wait": "1.5"}, {"follow": "new", "until": "5m"}], ids=str)
def test_wrong_arguments_are_refused(scene: Scene, wrong: Any) -> None:
    with pytest.raises(ArgumentError):
        scene.call(**wrong)
    assert not scene.server.requests


def test_without_the_daemon_a_log_is_read_and_not_followed(scene: Scene) -> None:
    scene.write("one")
    scene.context.followers = None
    assert scene.texts() == ["one"]
    with pytest.raises(FollowUnavailable, match="xscontainer-monitor"):
        scene.call(follow="new")
    with pytest.raises(FollowLost):
        scene.call(follow=NOBODYS)


def test_a_log_that_cannot_be_read_is_not_followed(scene: Scene) -> None:
    scene.server.run("dumb", HostConfig={"LogConfig": {"Type": "none", "Config": {}}})
    with pytest.raises(LogsUnreadable):
        scene.call("dumb", follow="new")
    assert len(scene.followers) == 0


def test_a_flood_is_answered_in_bounded_pieces_and_the_rest_is_counted(scene: Scene) -> None:
    token = opened(scene)
    scene.write(*(f"{number:05d}" + "x" * 200 for number in range(MOST_LINES)))
    found = scene.more(token)
    assert found["dropped"] > 0 and 0 < len(texts(found)) <= 1000
    assert sum(map(len, texts(found))) < 300000
    seen, dropped = len(texts(found)), found["dropped"]
    while seen + dropped < MOST_LINES:
        found = scene.more(token)
        seen, dropped = seen + len(texts(found)), dropped + found["dropped"]
    assert seen + dropped == MOST_LINES


def test_a_guest_that_has_used_up_its_time_is_read_later(scene: Scene) -> None:
    token = opened(scene)
    scene.write("one")
    scene.context.access.budgets.of(UUID).charge(CPU.burst + 60.0)
    asked = scene.asked
    assert texts(scene.more(token, 1)) == [] and scene.asked == asked


def test_a_wait_is_cut_short_if_another_call_needs_the_worker(scene: Scene) -> None:
    token = opened(scene)
    scene.context.is_crowded = True
    began = time.monotonic()
    assert texts(scene.more(token, 20)) == []
    assert 0.9 < time.monotonic() - began < 10.0


def test_the_time_of_a_call_is_charged_to_the_guest(scene: Scene) -> None:
    token = opened(scene)
    scene.write(*("x" * 100 for _ in range(300)))
    charged: List[float] = []
    budget = scene.context.access.budgets.of(UUID)
    budget.charge = charged.append
    assert len(texts(scene.more(token))) == 300
    assert charged and all(seconds > 0.0 for seconds in charged)


def test_many_threads_share_the_followers(scene: Scene) -> None:
    outcomes: List[str] = []

    def work() -> None:
        for _ in range(5):
            try:
                token = opened(scene)
            except Busy:
                outcomes.append("busy")
                continue
            scene.more(token, 0)
            with scene.followers.held(token, UUID) as followed:
                scene.followers.drop(followed)
            outcomes.append("served")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 40 and "served" in outcomes
    assert len(scene.followers) == 0
    for _ in range(4):
        opened(scene)
