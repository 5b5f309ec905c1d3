"""The form in which a diagnosis is told, whatever a guest has said."""

import json
import unicodedata
import xmlrpc.client
from typing import Any, Callable, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verbs.diagnose.causes import classes
from xscontainer.cli.diagnose import as_text
from xscontainer.core.diagnosis import OVER_SSH, OVER_TLS, Diagnosis, Step, Trace
from xscontainer.engine import failures
from xscontainer.errors import GuestSilent

# Any text, and texts with which a guest may try to deceive the reader.
HOSTILE = st.one_of(st.text(max_size=2000), st.sampled_from([
    "\x1b[2J\x1b]0;owned\x07", "a\nb\r\nc", "\u202egnp.exe", "<x/>&]]>", '"}],"code":"OK"', "\x00", "\ud800",
    "x" * 5000]))
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
                    max_leaves=12)


def clock() -> "Callable[[], float]":
    times = iter(range(10000))
    return lambda: next(times) / 7


@given(details=st.lists(HOSTILE, max_size=len(OVER_SSH) - 1), last=HOSTILE,
       kind=st.sampled_from([cls for cls in classes().values()]), ladder=st.sampled_from([OVER_SSH, OVER_TLS]))
def test_a_diagnosis_survives_json_with_any_text(details: List[str], last: str, kind: Any, ladder: Any) -> None:
    trace = Trace(clock(), 13.0)
    trace.ladder = ladder
    trace.facts["name"] = last
    for name, detail in zip(ladder, details[:len(ladder) - 1]):
        trace.done(name, detail)
    found = trace.ended(kind(f"It says {failures.words(last)}."))
    text = found.to_json()
    assert text.encode("ascii") and len(text) < 65536
    assert all(" " <= character <= "~" for character in text)
    # As it goes through XAPI, and is read at the end.
    carried = str(xmlrpc.client.loads(xmlrpc.client.dumps((text,)))[0][0])
    assert Diagnosis.from_json(carried) == found
    document = json.loads(carried)
    assert document["code"] == kind.code and not document["steps"][-1]["ok"]
    shown = as_text(found)
    obeyed = ("Cc", "Cf", "Cs", "Zl", "Zp")
    assert not [one for one in shown if unicodedata.category(one) in obeyed and one not in "\n\u200c\u200d"]
    assert len(shown.splitlines()) <= len(details) + 6


@given(JSON)
def test_a_malformed_diagnosis_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        Diagnosis.from_json(json.dumps(value))


@pytest.mark.parametrize("text", ["", "True", "{", "[" * 100000, '{"code": "OK"}', "x" * 100000,
                                  '{"code": "OK", "message": "m", "next": "", "steps": [{"step": "vm"}]}'])
def test_a_hostile_text_is_not_read_as_a_diagnosis(text: str) -> None:
    with pytest.raises(ValueError):
        Diagnosis.from_json(text)


def test_unknown_facts_are_kept() -> None:
    """From a newer release on another host."""
    steps = [{"step": "moon", "ok": True, "detail": "full", "ms": 3, "more": 1}]
    found = Diagnosis.from_json(json.dumps(
        {"code": "NEW", "message": "M.", "next": "N.", "steps": steps, "registered": True, "what": {"ever": []}}))
    assert found.steps == (Step("moon", True, "full", 3),) and found.facts["what"] == {"ever": []}
    assert as_text(found).splitlines()[-2:] == ["NEW: M.", "Next: N."]


def test_the_steps_before_the_failed_one_succeed() -> None:
    """Over TLS several steps are taken in one go."""
    trace = Trace(clock(), 13.0)
    trace.ladder = OVER_TLS
    for name in ("vm", "power", "settings", "address"):
        trace.done(name)
    steps = trace.ended(GuestSilent("Nothing."), step="tls").steps
    assert [(step.step, step.ok) for step in steps][4:] == [("certificates", True), ("tcp", True), ("tls", False)]


def test_every_cause_has_a_next_step() -> None:
    """All that the way to an engine may end with, from a VM's settings to the list."""
    roots = ("CONNECT_ERROR", "ENGINE_ERROR", "VM_ERROR")
    of_a_container = ("CONTAINER_NOT_FOUND", "CONTAINER_CONFLICT")
    known = classes()
    on_the_way = [cls for code, cls in known.items() if code not in roots + of_a_container
                  and issubclass(cls, tuple(known[root] for root in roots))]
    assert len(on_the_way) > 30
    assert [cls.code for cls in on_the_way if not cls.default_hint.endswith(".")] == []


def test_the_key_to_add_is_on_a_line_of_its_own() -> None:
    trace = Trace(clock(), 13.0)
    trace.facts.update(public_key="ssh-rsa " + "A" * 700, registered=False)
    lines = as_text(trace.ended(GuestSilent("Nothing.")), 60).splitlines()
    assert lines[-1] == "ssh-rsa " + "A" * 700
    assert "Container management is off for this VM." in lines
