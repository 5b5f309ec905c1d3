"""A failure that repeats takes few lines of the log, and says how often it happened and when it was over."""

import logging
from typing import Any, Iterator, List

import pytest

from xscontainer.errors import GuestSilent, XapiUnavailable
from xscontainer.service.repeats import INTERVAL, MOST, QUIET, XAPI, RepeatFilter

WEB = "'web' (11111111-2222-3333-4444-555555555555)"
DB = "'db' (99999999-2222-3333-4444-555555555555)"


class Log:
    """A log with the filter, whose time a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lines: List[str] = []
        self.repeats = RepeatFilter(lambda: self.now)
        self.logger = logging.getLogger("xscontainer.of-this-test")
        self.handler = logging.Handler()
        self.handler.emit = lambda record: self.lines.append(record.getMessage())  # type: ignore[method-assign]
        self.handler.addFilter(self.repeats)

    def warn(self, text: str, *arguments: Any) -> None:
        self.logger.warning(text, *arguments)


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    root = logging.getLogger("xscontainer")
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(made.handler)
    yield made
    root.removeHandler(made.handler)
    root.setLevel(level)


def test_an_xapi_that_is_away_for_45_s_takes_two_lines(log: Log) -> None:
    """The event stream and the writes of each VM notice it."""
    for second in range(45):
        log.now += 1.0
        error = XapiUnavailable(f"XAPI at /socket did not answer VM.add_to_other_config: attempt {second}.")
        log.warn("the XAPI event stream broke and is opened again: %s", error)
        log.warn("VM %s: %s", WEB, error)
        log.warn("VM %s: %s", DB, error)
    log.repeats.over(XAPI)
    assert len(log.lines) == 2
    assert log.lines[0].startswith("the XAPI event stream broke")
    assert log.lines[1].startswith("over since 0 s, after 135 times in 44 s: the XAPI event stream broke")
    log.repeats.over(XAPI)
    log.repeats.look()
    assert len(log.lines) == 2


def test_a_lasting_failure_is_logged_once_a_minute_with_the_number_of_repetitions(log: Log) -> None:
    for _ in range(600):
        log.now += 1.0
        log.warn("VM %s: %s: %s", WEB, "GUEST_SILENT", GuestSilent(f"No answer at {log.now}."))
    assert len(log.lines) == 10
    assert log.lines[1].endswith("(60 times in the last 60 s)")
    log.now += QUIET
    log.repeats.look()
    assert "after 600 times in 599 s" in log.lines[-1]
    log.repeats.look()
    assert len(log.lines) == 11


def test_each_vm_and_each_code_has_lines_of_its_own(log: Log) -> None:
    for label in (WEB, DB):
        for code in ("GUEST_SILENT", "KEY_NOT_ACCEPTED"):
            log.warn("VM %s: %s: %s", label, code, "why")
    assert len(log.lines) == 4


def test_a_guest_cannot_fill_the_log_with_ever_new_words(log: Log) -> None:
    for number in range(1000):
        log.now += 0.01
        log.warn("VM %s: %s: %s", WEB, "ENGINE_GARBAGE", f"it says {number * 7919:x} words")
    assert len(log.lines) == 1


def test_a_single_failure_is_logged_once_without_its_end(log: Log) -> None:
    log.warn("VM %s: %s", WEB, "its list is gone")
    log.now += QUIET
    log.repeats.look()
    assert log.lines == [f"VM {WEB}: its list is gone"]
    log.warn("VM %s: %s", WEB, "its list is gone")
    assert len(log.lines) == 2, "later it is a new failure"


def test_numbers_do_not_make_another_failure(log: Log) -> None:
    for seconds in (0.1, 0.2, 0.4, 0.8):
        log.warn("plugin server: cannot take a call, trying again in %.1f s", seconds)
    assert len(log.lines) == 1


def test_records_below_warning_pass_unchanged(log: Log) -> None:
    for _ in range(5):
        log.logger.info("VM %s: its containers are shown", WEB)
    assert len(log.lines) == 5


def test_the_memory_of_failures_is_bounded(log: Log) -> None:
    for number in range(2 * MOST):
        log.warn("word %s", "x" * number)
    assert len(log.lines) == 2 * MOST
    assert len(log.repeats._failures) == MOST


def test_tracebacks_are_rate_limited_as_well(log: Log) -> None:
    for _ in range(int(2 * INTERVAL) + 1):
        log.now += 1.0
        try:
            raise ValueError("x")
        except ValueError:
            log.logger.exception("VM %s: its monitor failed and begins again", WEB)
    assert len(log.lines) == 3
