"""Untrusted documents are decoded within bounds of depth and memory, on each interpreter and on the daemon's stack."""

import glob
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core import bounded
from xscontainer.service import daemon

ROOT = Path(__file__).resolve().parent.parent.parent

# Uses the package's sources only: an interpreter without an environment of the tests has no libraries.
DECODE = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from xscontainer.clients import xmlform
from xscontainer.core import bounded, diagnosis
from xscontainer.core.engine_event import EngineEvent
threading.stack_size(int(sys.argv[2]))
HOSTILE = [
    b"[" * 4500 + b"]" * 4500, b"[" * 9000, b'{"a":' * 1500 + b"1" + b"}" * 1500, b'[{"a":' * 100000,
    b'{"Type":"container","Action":"start","Actor":' + b'{"x":[' * 1500 + b']}' * 1500 + b"}",
    b'["]",' * 3000 + b"1" + b"]" * 3000, b'["\\\\",' * 3000, b'["\\\\\\\\]",' * 3000, b'{"]":' * 3000,
]
DEEP = "<a>" * 100000 + "</a>" * 100000
outcomes = []
def work():
    for body in HOSTILE:
        try:
            EngineEvent.from_api(bounded.json_from(body))
            outcomes.append("decoded")
        except ValueError:
            outcomes.append("refused")
    for read in (bounded.xml_from, xmlform.read_docker_ps, lambda text: diagnosis.Diagnosis.from_json("[" * 65000)):
        try:
            read(DEEP)
            outcomes.append("decoded")
        except ValueError:
            outcomes.append("refused")
    deep = b"[" * bounded.MOST_DEPTH + b"]" * bounded.MOST_DEPTH
    outcomes.append(repr(bounded.json_from(deep)) == deep.decode())
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(set(outcomes) == {"refused", True} or outcomes)
"""


def interpreters() -> List[str]:
    """Return the path of each CPython from 3.6 on this machine, one of each version."""
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    found = {"here": sys.executable}
    for path in sorted(glob.glob(os.path.join(root, "versions", "3.*", "bin", "python"))):
        found[Path(path).parent.parent.name] = path
    return list(found.values())


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).parent.parent.name)
def test_nested_documents_are_refused_on_the_stack_of_a_daemon_thread(python: str) -> None:
    done = subprocess.run([python, "-W", "ignore", "-c", DECODE, str(ROOT), str(daemon.THREAD_STACK)], timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, b"True"), done.stderr.decode()[-2000:]


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


def values(leaves: int) -> Any:
    texts = st.text(st.sampled_from('[]{}",:\\ab\n\u044f\U0001f600')) | st.text()
    scalars = st.none() | st.booleans() | st.integers(-10**12, 10**12) | texts
    return st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=leaves)


@given(values(60), st.booleans(), st.integers(0, bounded.MOST_DEPTH + 20))
def test_a_document_is_decoded_exactly_when_it_is_not_too_deep(value: Any, escaped: bool, more: int) -> None:
    for _ in range(more):
        value = [value, "["] if more % 2 else {"]": value}
    # Many shallow lists follow: their brackets outnumber the bound, although they are not deep.
    body = json.dumps([value, "\\", [[]] * bounded.MOST_DEPTH], ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    if depth_of(value) + 1 > bounded.MOST_DEPTH:
        with pytest.raises(bounded.TooDeep):
            bounded.json_from(body)
    else:
        assert bounded.json_from(body) == json.loads(body.decode("utf-8", "replace"))


@given(st.lists(st.sampled_from([b"[", b"{", b"]", b"}", b'"', b"\\", b",", b"a"]), max_size=400).map(b"".join))
def test_malformed_json_deeper_than_the_bound_is_refused(body: bytes) -> None:
    body = b'["' * 90 + body
    deepest = depth = 0
    inside = skip = False
    for byte in body.decode():  # reads as a decoder does, but never stops early
        if skip:
            skip = False
        elif inside:
            skip, inside = byte == "\\", byte != '"'
        elif byte == "\\":
            break
        elif byte == '"':
            inside = True
        else:
            depth = max(0, depth + (byte in "[{") - (byte in "]}"))
            deepest = max(deepest, depth)
    if deepest > bounded.MOST_DEPTH:
        with pytest.raises(bounded.TooDeep):
            bounded.check_depth(body)


WORST = [
    b"[" + b",".join([b"{}"] * 20000) + b"]", b"[" + b",".join([b"[1]"] * 20000) + b"]",
    b"[" + b",".join(b'{"a%06d":1}' % number for number in range(10000)) + b"]",
    b"{" + b",".join(b'"a%06d":1' % number for number in range(10000)) + b"}",
    '["{}"]'.format("\U0001f600" * 20000).encode(), ("[" + ",".join(['"\u044f"'] * 20000) + "]").encode(),
    b'["' + b"aa\\n" * 20000 + b'"]', b'["' + b"ab\\u4e2d" * 20000 + b'"]',
    b'["' + b"a" * 100000 + b'\\ud83d\\ude00"]', b'["' + b"a" * 100000 + b'"]',
    b"[" + b",".join([b"1.5"] * 20000) + b"]", b"[" + b",".join([b'"ab"'] * 20000) + b"]",
]


@pytest.mark.parametrize("body", WORST, ids=lambda body: body[:12].decode(errors="replace"))
def test_the_estimate_covers_the_memory_that_decoding_takes(body: bytes) -> None:
    tracemalloc.start()
    try:
        bounded.json_from(body, most_cost=1 << 40)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken <= bounded.cost(body) + 20000  # the constant part of any call


def test_a_document_that_would_take_too_much_memory_is_not_decoded() -> None:
    with pytest.raises(bounded.TooCostly) as refused:
        bounded.json_from(b"[" + b"{}," * 200000 + b"{}]")
    assert refused.value.estimate > bounded.MOST_COST


@pytest.mark.parametrize("text", ["", "<a>", "<a><b></a></b>", "<a/>\ud800",
                                  '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'])
def test_xml_that_cannot_be_read_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        bounded.xml_from(text)


def test_xml_within_the_bound_is_read() -> None:
    root = bounded.xml_from("<a>" * bounded.MOST_DEPTH + "x" + "</a>" * bounded.MOST_DEPTH)
    assert "".join(root.itertext()) == "x"
