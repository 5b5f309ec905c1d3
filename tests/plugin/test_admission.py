"""Backpressure: calls to hung guests never take all workers."""

import threading
from contextlib import contextmanager
from typing import Callable, Iterator, List, Optional, Set

import pytest

from tests.plugin.process import wait_until
from xscontainer.core.verb import LONG, PATIENT, PROBING, QUICK, READING
from xscontainer.errors import Busy
from xscontainer.plugin.admission import Admission, Limits, _Ticket

LIMITS = Limits()
WORKERS = 16
SHARE = WORKERS // 2


class Call:
    """A call in a thread of its own, that works until it is ended."""

    def __init__(self, entrance: Admission, function: str, vm: str, lane: str) -> None:
        self.state = "waiting"
        self.busy: Optional[Busy] = None
        self.vm = vm
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(entrance, function, lane))
        self._thread.start()

    def _run(self, entrance: Admission, function: str, lane: str) -> None:
        try:
            with entrance.admitted(function, self.vm, lane):
                self.state = "working"
                self._end.wait(60)
            self.state = "ended"
        except Busy as error:
            self.busy = error
            self.state = "refused"

    def end(self) -> None:
        self._end.set()
        self._thread.join(60)


class Scene:
    """An entrance with a clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.unreachable: Set[str] = set()
        self.entrance = Admission(WORKERS, lambda vm: vm in self.unreachable, lambda: self.now)
        self.calls: List[Call] = []

    def call(self, vm: str = "", function: str = "get_top", lane: str = QUICK) -> Call:
        made = Call(self.entrance, function, vm, lane)
        self.calls.append(made)
        # One after the other, so that their order is known.
        wait_until(lambda: made.state != "waiting" or any(
            ticket.vm == vm for ticket in self.entrance._waiting), "the call has arrived")
        return made

    def count(self, state: str) -> int:
        return sum(call.state == state for call in self.calls)

    def settled(self, **counts: int) -> None:
        wait_until(lambda: all(self.count(state) == count for state, count in counts.items()),
                   f"{counts}; it is {[call.state for call in self.calls]}", 30.0)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.now += 1000
    for call in made.calls:
        call.end()


def test_one_vm_never_has_more_than_its_share_of_the_workers(scene: Scene) -> None:
    for _ in range(10):
        scene.call("hung")
    scene.settled(working=LIMITS.per_vm[QUICK], waiting=10 - LIMITS.per_vm[QUICK])
    assert scene.call("well").state == "working"


def test_ten_calls_to_a_vm_that_answers_are_all_served(scene: Scene) -> None:
    calls = [scene.call("well") for _ in range(10)]
    for _ in range(3):
        for call in calls:
            if call.state == "working":
                call.end()
        wait_until(lambda: all(call.state != "waiting" for call in calls) or scene.count("working"), "it goes on")
    scene.settled(refused=0, waiting=0)


def test_a_refused_caller_gets_the_time_after_which_to_repeat_the_call(scene: Scene) -> None:
    for _ in range(LIMITS.per_vm[QUICK]):
        scene.call("hung")
    late = scene.call("hung")
    scene.now += LIMITS.queue_seconds + 0.1
    wait_until(lambda: late.state == "refused", "the call is refused")
    assert late.busy is not None and late.busy.code == "BUSY"
    code, sentence, seconds = late.busy.description()
    assert code == "BUSY" and "hung" in sentence and f"Repeat the call in {seconds} s." in sentence
    assert 1 <= int(seconds) <= 30


def test_calls_to_a_hung_vm_do_not_queue(scene: Scene) -> None:
    for _ in range(LIMITS.per_vm[QUICK]):
        scene.call("hung")
    scene.now += LIMITS.hung_after + 0.1
    for _ in range(20):
        scene.call("hung")
    scene.settled(refused=18)


@pytest.mark.parametrize("hung", [20, 2 * WORKERS - SHARE])
def test_a_call_to_a_healthy_vm_passes_many_vms_that_hang_for_the_first_time(scene: Scene, hung: int) -> None:
    for number in range(hung):
        for _ in range(2):
            scene.call(f"hung-{number}")
        scene.now += LIMITS.slow_after + 0.1
    # Each VM has one call at work, and what more there was did not take the places of the others.
    wait_until(lambda: len({call.vm for call in scene.calls if call.state == "working"}) == hung, "one of each", 30)
    assert scene.count("working") <= hung + SHARE // 2 + 1
    well = scene.call("well")
    wait_until(lambda: well.state == "working", "the healthy VM's call works")


def test_vms_that_are_known_to_hang_share_half_of_the_workers(scene: Scene) -> None:
    scene.unreachable = {f"hung-{number}" for number in range(40)}
    for vm in sorted(scene.unreachable):
        scene.call(vm)
    scene.now += LIMITS.queue_seconds + 0.1
    scene.settled(working=SHARE, refused=40 - SHARE)
    for number in range(SHARE):
        assert scene.call(f"well-{number}").state == "working"


def test_the_first_call_for_a_vm_displaces_further_ones_for_another(scene: Scene) -> None:
    for _ in range(SHARE):
        scene.call()  # about no VM: they take all places
    for _ in range(LIMITS.queue):
        scene.call("many")
    scene.settled(working=SHARE, waiting=LIMITS.queue)
    first = scene.call("one")
    scene.settled(refused=1)
    assert first.state == "waiting" and not scene.calls[SHARE].busy
    for call in scene.calls[:SHARE]:
        call.end()
    wait_until(lambda: first.state == "working", "it is served")


@pytest.mark.parametrize("lane", [QUICK, PATIENT, PROBING, READING, LONG])
def test_a_call_that_is_alone_works_at_once_even_for_a_vm_out_of_reach(lane: str) -> None:
    entrance = Admission(1, lambda vm: True)
    with entrance.admitted("get_top", "vm", lane):
        assert [ticket.lane for ticket in entrance._working] == [lane]
    assert entrance._is_free_for(_Ticket("get_top", "vm", lane, 0.0)), "the limits agree"


def test_a_call_displaces_one_other_call_even_if_that_one_is_slow_to_leave() -> None:
    entrance = Admission(WORKERS)
    entrance._working.extend(_Ticket("get_top", "", QUICK, 0.0) for _ in range(SHARE))
    many = [_Ticket("get_top", "many", QUICK, 0.0) for _ in range(LIMITS.queue)]
    first = _Ticket("get_top", "one", QUICK, 0.0)
    entrance._waiting.extend([*many, first])
    assert [entrance._is_hopeless(first) for _ in range(3)] == [False] * 3
    assert [ticket.displaced for ticket in many] == [False] * (LIMITS.queue - 1) + [True]


@pytest.mark.parametrize("way", ["answers", "is forgotten"])
def test_a_vm_does_not_count_as_hung_for_ever(scene: Scene, way: str) -> None:
    slow = scene.call("moody")
    scene.now += LIMITS.hung_after + 0.1
    slow.end()
    assert scene.entrance._health.is_hung("moody")
    if way == "answers":
        scene.call("moody").end()
    else:
        scene.now += LIMITS.hung_for + 0.1
    assert not scene.entrance._health.is_hung("moody")


def test_a_container_that_stops_slowly_does_not_make_its_vm_count_as_hung(scene: Scene) -> None:
    for _ in range(LIMITS.per_vm[PATIENT]):
        scene.call("well", "stop", PATIENT)
        scene.now += LIMITS.slow_after + 0.1
    scene.now += 60
    scene.settled(working=LIMITS.per_vm[PATIENT])
    assert scene.call("well").state == "working"


def test_diagnoses_leave_room_for_each_other_and_for_actions(scene: Scene) -> None:
    for number in range(10):
        for _ in range(3):
            scene.call(f"hung-{number}", "diagnose", PROBING)
    assert scene.count("working") == SHARE // 2
    assert max(sum(call.vm == f"hung-{number}" and call.state == "working" for call in scene.calls)
               for number in range(10)) <= LIMITS.per_vm[PROBING]
    assert scene.call("another", "hostkey_show", PROBING).state == "working"
    for number in range(SHARE):
        assert scene.call(f"well-{number}").state == "working"


def test_long_calls_have_workers_of_their_own(scene: Scene) -> None:
    for number in range(2 * WORKERS):
        scene.call(f"vm-{number}", "prepare", LONG)
    scene.settled(working=SHARE * 3 // 4)
    assert scene.call("", "create", LONG).state == "working"
    assert scene.call("", "key_rotate", LONG).state == "working"
    for number in range(SHARE):
        assert scene.call(f"well-{number}").state == "working"
    scene.now += LIMITS.queue_seconds + 0.1
    wait_until(lambda: scene.count("refused") > 0, "one is refused")
    refused = next(call.busy for call in scene.calls if call.busy)
    assert int(refused.description()[2]) >= 30


def test_calls_that_wait_on_purpose_take_no_place_from_others(scene: Scene) -> None:
    for number in range(2 * SHARE):
        scene.call(f"vm-{number % SHARE}", "get_logs", READING)
    scene.settled(working=SHARE)
    scene.now += 10 * LIMITS.hung_after
    scene.settled(working=SHARE, refused=SHARE)
    for number in range(SHARE // 2):
        assert scene.call(f"vm-{number}").state == "working", "a quick call for a VM whose log is read"
        assert scene.call(f"another-{number}", "restart", PATIENT).state == "working"


def test_calls_that_wait_for_a_place_to_read_do_not_fill_the_queue_of_others(scene: Scene) -> None:
    for number in range(SHARE + LIMITS.queue):
        scene.call(f"vm-{number}", "get_stats", READING)
    for _ in range(LIMITS.per_vm[QUICK]):
        scene.call("one")
    assert scene.call("one").state == "waiting", "the queue of quick calls has room"
    assert scene.count("refused") == 0


def test_a_long_wait_for_a_log_does_not_make_its_vm_count_as_hung(scene: Scene) -> None:
    call = scene.call("vm", "get_logs", READING)
    scene.now += 20
    call.end()
    assert not scene.entrance._health.is_slow("vm")


def test_one_vm_has_four_calls_that_read(scene: Scene) -> None:
    for _ in range(5):
        scene.call("vm", "get_logs", READING)
    scene.settled(working=4, waiting=1)
    scene.now += LIMITS.queue_seconds + 0.1
    scene.settled(working=4, refused=1)
    refused = next(call.busy for call in scene.calls if call.busy)
    assert refused.description()[2] == "5"


def test_hung_vms_leave_half_of_the_places_to_read_to_others(scene: Scene) -> None:
    scene.unreachable = {f"hung-{number}" for number in range(SHARE)}
    for vm in sorted(scene.unreachable):
        scene.call(vm, "get_logs", READING)
    assert scene.count("working") == SHARE // 2
    for number in range(SHARE // 2):
        assert scene.call(f"well-{number}", "get_logs", READING).state == "working"


def test_a_failed_call_frees_its_worker() -> None:
    entrance = Admission(2)
    for _ in range(20):
        with pytest.raises(KeyError), entrance.admitted("get_top", "vm", QUICK):
            raise KeyError("x")
    with entrance.admitted("get_top", "vm", QUICK):
        pass


@contextmanager
def _count(inside: List[int], most: List[int]) -> Iterator[None]:
    inside.append(1)
    most.append(len(inside))
    yield
    inside.pop()


def test_two_workers_are_enough_for_everything() -> None:
    entrance, inside, most = Admission(2), [], [0]  # type: Admission, List[int], List[int]

    def work(lane: str) -> Callable[[], None]:
        def run() -> None:
            for _ in range(50):
                try:
                    with entrance.admitted(lane, "vm", lane), _count(inside, most):
                        pass
                except Busy:
                    pass
        return run

    lanes = (QUICK, PATIENT, PROBING, READING, LONG)
    threads = [threading.Thread(target=work(lane)) for lane in lanes for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 0 < max(most) <= Admission.most(2)
    assert not entrance._working and not entrance._waiting
