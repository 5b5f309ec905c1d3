"""Lines of authorized_keys. tests/verbs/prepare/test_install_key.py shows that sshd reads them in the same way."""

import time
from typing import Any

import paramiko
import pytest

from xscontainer.engine.ssh import authorized_keys
from xscontainer.engine.ssh.authorized_keys import Circumstances
from xscontainer.engine.ssh.keypair import public_line

SEEN = Circumstances("192.0.2.7", "20260701120000", "20260701100000")


@pytest.fixture(scope="module")
def entry(private_key: paramiko.PKey) -> bytes:
    return public_line(private_key).encode()


@pytest.fixture(scope="module")
def blob(private_key: paramiko.PKey) -> bytes:
    return bytes(private_key.asbytes())


@pytest.fixture(scope="module")
def private_key() -> Any:
    return paramiko.RSAKey.generate(2048)


@pytest.mark.parametrize("head", [
    b"", b"  ", b"\t", b"restrict ", b'command="echo \\"x y\\" # z",no-pty  ', b'from="a b" \t', b"no-such ",
    b'environment="A=ssh-rsa AAAA" '])
@pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n", b" me@home\n", b"\ta b c\r\n"])
def test_a_key_is_found_behind_any_options(entry: bytes, blob: bytes, head: bytes, tail: bytes) -> None:
    text = b"# a comment\n\n" + head + entry + tail
    (line,) = authorized_keys.of_key(text, blob)
    assert (line.number, line.head, line.tail) == (3, head, tail)
    assert authorized_keys.removed(text, blob) == b"# a comment\n\n"


@pytest.mark.parametrize("before, behind", [
    (b"# ", b"\n"), (b"  # restrict ", b"\n"), (b'command="', b"\n"), (b"a b ", b"\n"),
    (b"", b"AAAA\n"), (b"", b"!\n")])
def test_a_line_that_sshd_ignores_is_not_found(entry: bytes, blob: bytes, before: bytes, behind: bytes) -> None:
    assert authorized_keys.of_key(before + entry + behind, blob) == []


@pytest.mark.parametrize("options, words", [
    ("", ""), ("restrict,port-forwarding", ""), ('command="x"', ""), ('permitopen="localhost:1"', ""),
    ('from="192.0.2.0/24"', ""), ('from="10.0.0.0/8,192.0.2.*"', ""), ('from="192.0.2.?"', ""),
    ('FROM="192.0.2.7"', ""), ('from="*"', ""), ('from="*,!192.0.2.8"', ""),
    ('from="10.0.0.0/8"', "does not include 192.0.2.7"), ('from="*,!192.0.2.7"', "does not include"),
    ('from="!192.0.2.7"', "does not include"), ('from="[0-9]*"', "does not include"), ('from="host.example"', "from"),
    ('no-pty,From="::1"', "does not include"),
    ('expiry-time="20260701"', "has passed"), ('expiry-time="20260702"', ""),
    ('expiry-time="202607011159"', "has passed"), ('expiry-time="202607011201"', ""),
    ('expiry-time="20260701110000Z"', ""), ('expiry-time="20260701093000Z"', "has passed"),
    ('expiry-time="20261301"', "has passed"), ('expiry-time="soon"', ""),
    ("cert-authority", "cert-authority"), ("no-pty,cert-authority", "cert-authority"),
    ("no-such-option", "does not know"), ("no-pty,", "sshd cannot read"), ('command="a"b"', "sshd cannot read"),
    (",", "sshd cannot read"),
])
def test_each_option_that_forbids_a_login_is_named(entry: bytes, blob: bytes, options: str, words: str) -> None:
    line = authorized_keys.Line(1, (options + " ").encode(), blob, b"")
    found = authorized_keys.refusal(line, SEEN)
    assert words in found and bool(words) == bool(found)


def test_unknown_facts_forbid_no_login(blob: bytes) -> None:
    for options in (b'from="10.0.0.1" ', b'expiry-time="20000101" ', b'expiry-time="20000101Z" '):
        assert authorized_keys.refusal(authorized_keys.Line(1, options, blob, b""), Circumstances()) == ""


def test_a_new_key_is_added_behind_each_line_of_the_old_key(entry: bytes, blob: bytes) -> None:
    new = b"ssh-ed25519 AAAA"
    text = b"# x\n\xff\x00\nno-pty " + entry + b" a\r\ncert-authority " + entry + b"\nrestrict " + entry
    assert authorized_keys.added(text, new, b"unused ", blob) == (
        b"# x\n\xff\x00\nno-pty " + entry + b" a\r\nno-pty " + new + b" a\r\ncert-authority " + entry + b"\nrestrict "
        + entry + b"\nrestrict " + new)
    for without in (b"", b"# x\n", b"cert-authority " + entry + b"\n"):
        assert authorized_keys.added(without, new, b"used ", blob) == without + b"used " + new + b" xscontainer\n"


@pytest.mark.parametrize("text", [b"", b"\n", b"a", b"a\nb", b"a\r\n\r\nb c\r", b"\xff\x00\n", b"# a\n\n \n", b" "])
def test_a_file_is_the_same_after_a_key_was_added_and_removed(entry: bytes, blob: bytes, text: bytes) -> None:
    added = authorized_keys.added(text, entry, b"restrict ")
    assert [line.key for line in authorized_keys.lines(added)] == [blob]
    assert authorized_keys.removed(added, blob) == text


def test_several_keys_are_removed_at_once(entry: bytes, blob: bytes) -> None:
    other = paramiko.RSAKey.generate(2048)
    text = b"x " + entry + b" a\n" + public_line(other).encode() + b"\nend"
    assert authorized_keys.removed(text, blob, other.asbytes()) == b"end"


@pytest.mark.parametrize("text", [
    b'\\"' * 250000, b'"' * 500000, b'a="\\"' * 100000, b"a," * 250000, b" \t" * 250000, b"a" * 500000,
    b"from=\"" + b"!*," * 160000 + b"\" ssh-rsa AAAA", b"\n" * 500000],
    ids=lambda text: repr(text[:6]) if isinstance(text, bytes) else "")
def test_a_hostile_file_takes_linear_time(text: bytes, blob: bytes) -> None:
    began = time.process_time()
    for line in authorized_keys.lines(text):
        authorized_keys.refusal(line, SEEN)
    authorized_keys.added(text, b"x", b"", blob)
    authorized_keys.removed(text, blob)
    assert time.process_time() - began < 20.0
