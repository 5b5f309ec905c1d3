"""The pure parts of the engine room, and its tables compared with the installed libraries."""

import base64
import http.client
import importlib
import inspect
import io
import logging
import pkgutil
import re
import socket
import ssl
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import cryptography
import docker.errors
import paramiko
import paramiko.ssh_exception
import pytest
import requests.exceptions
from cryptography.exceptions import UnsupportedAlgorithm
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.peers import Server, read_head
from tests.need import need_program
from xscontainer.engine import docker_client, failures
from xscontainer.engine.dial import dial
from xscontainer.engine.lines import MOST_LINE_BYTES, MOST_SKIPPED_BYTES, CutLine, LineFeeder
from xscontainer.engine.ssh import connection as ssh
from xscontainer.engine.ssh import hostkeys, packetizer, paramiko_quirks
from xscontainer.engine.ssh.keypair import KeyPair, load_private_key, new_key_pair, public_line
from xscontainer.errors import (
    EngineGarbage,
    EngineTimeout,
    EngineTooMuch,
    HostKeyChanged,
    HostKeyUnreadable,
    KeyPairError,
    TransportLost,
    XSContainerError,
)

ROOT = Path(__file__).resolve().parent.parent.parent


# --- exceptions of libraries


def _exceptions() -> Iterator[Tuple[str, type]]:
    for module, table in ((paramiko.ssh_exception, "PARAMIKO"), (paramiko, "PARAMIKO"), (docker.errors, "DOCKER"),
                          (requests.exceptions, "REQUESTS"), (http.client, "HTTP"), (socket, "SOCKET"),
                          (ssl, "TLS")):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            own = kind.__module__.split(".")[0] == module.__name__.split(".")[0]
            if own and not name.startswith("_") and issubclass(kind, Exception) and not issubclass(kind, Warning):
                yield table, kind


@pytest.mark.parametrize("table, kind", sorted(set(_exceptions()), key=str),
                         ids=lambda value: getattr(value, "__name__", value))
def test_each_exception_of_a_library_is_in_its_table_by_name(table: str, kind: type) -> None:
    name = f"{kind.__module__.split('.')[0]}.{kind.__name__}"
    assert issubclass(getattr(failures, table)[name], XSContainerError)


def _of_cryptography() -> Iterator[type]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings
        for module in pkgutil.walk_packages(cryptography.__path__, "cryptography."):
            try:
                found = importlib.import_module(module.name)
            except ImportError:
                continue  # an optional part of the library
            for _, kind in inspect.getmembers(found, inspect.isclass):
                if kind.__module__.startswith("cryptography.") and issubclass(kind, BaseException):
                    yield kind


def test_each_exception_of_cryptography_is_in_its_table_by_name() -> None:
    kinds = {kind for kind in list(_of_cryptography())
             if not issubclass(kind, Warning) and not kind.__name__.startswith("_")}
    assert {"UnsupportedAlgorithm", "InvalidVersion", "DuplicateExtension"} <= {kind.__name__ for kind in kinds}
    assert {f"cryptography.{kind.__name__}" for kind in kinds} <= set(failures.CRYPTOGRAPHY)


_PANIC = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})


@pytest.mark.parametrize("error", [UnsupportedAlgorithm("x"), KeyError("secret"), _PANIC("secret"), OverflowError(),
                                   RecursionError()], ids=repr)
def test_an_exception_of_cryptography_means_malformed_and_is_not_quoted(error: BaseException) -> None:
    with pytest.raises(ValueError, match="^the certificate is malformed$"), failures.decoding("the certificate"):
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("x"), MemoryError()], ids=repr)
def test_other_exceptions_pass_the_decoding_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)), failures.decoding("the certificate"):
        raise error


def test_the_search_finds_exceptions() -> None:
    found = [kind.__name__ for _, kind in _exceptions()]
    assert {"ChannelException", "APIError", "ReadTimeout", "IncompleteRead"} <= set(found)


@pytest.mark.parametrize("error, expected", [
    (paramiko.SSHException("x"), TransportLost), (socket.timeout("x"), EngineTimeout), (EOFError(), TransportLost),
    (ConnectionResetError(), TransportLost), (requests.exceptions.ReadTimeout("x"), EngineTimeout),
    (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), EngineGarbage), (KeyError("x"), EngineGarbage),
    (http.client.BadStatusLine("\x00\x1b[2J" * 500), EngineGarbage),
])
def test_the_nearest_base_class_decides(error: Exception, expected: Any) -> None:
    with pytest.raises(XSContainerError) as caught:
        with failures.translating("Asking", failures.API_SIDE):
            raise error
    assert type(caught.value) is expected
    assert caught.value.__cause__ is error
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


def test_other_exceptions_pass_the_translation_unchanged() -> None:
    for error in (ZeroDivisionError(), KeyboardInterrupt(), KeyPairError("x")):
        with pytest.raises(type(error)):
            with failures.translating("Asking", failures.API_SIDE):
                raise error


@pytest.mark.parametrize("module, library", [
    (docker_client, "docker"), (paramiko_quirks, "paramiko"), (packetizer, "paramiko")])
@pytest.mark.parametrize("pins", ["py36.txt", "current.txt"])
def test_the_quirks_of_a_library_are_checked_for_the_pinned_version(module: Any, library: str, pins: str) -> None:
    text = (ROOT / "requirements" / pins).read_text(encoding="utf-8")
    (pinned,) = re.findall(rf"^{library}==([0-9.]+)", text, re.MULTILINE)
    assert re.search(rf"\b{re.escape(pinned)}\b", str(module.__doc__)), "check each item, then name the pin"


# --- host keys


@pytest.fixture(scope="module")
def keys() -> List[paramiko.PKey]:
    return [paramiko.RSAKey.generate(1024), paramiko.ECDSAKey.generate(), paramiko.RSAKey.generate(1024)]


def test_a_pin_read_from_other_config_equals_the_key(keys: List[paramiko.PKey]) -> None:
    for key in keys:
        found = hostkeys.parse_pin(key.get_base64())
        assert (found.kind, found.blob) == (key.get_name(), key.asbytes())
        assert hostkeys.parse_pin(found.base64) == found
        assert found.fingerprint == key.fingerprint


def test_the_pinned_kind_of_host_key_is_offered_first(keys: List[paramiko.PKey]) -> None:
    supported = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")
    rsa, ecdsa = hostkeys.parse_pin(keys[0].get_base64()), hostkeys.parse_pin(keys[1].get_base64())
    assert hostkeys.preference(supported, None) == list(supported)
    assert hostkeys.preference(supported, ecdsa)[0] == "ecdsa-sha2-nistp256"
    assert hostkeys.preference(supported, rsa)[:3] == ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"]
    assert sorted(hostkeys.preference(supported, rsa)) == sorted(supported)
    with pytest.raises(HostKeyUnreadable):
        hostkeys.preference(("ssh-ed25519",), rsa)


def test_only_the_pinned_host_key_is_accepted(keys: List[paramiko.PKey]) -> None:
    one, _, other = [hostkeys.parse_pin(key.get_base64()) for key in keys]
    hostkeys.check(one, one, "here")
    hostkeys.check(one, None, "here")
    with pytest.raises(HostKeyChanged) as caught:
        hostkeys.check(one, other, "here")
    assert one.fingerprint in str(caught.value) and other.fingerprint in str(caught.value)


@given(st.text())
def test_any_text_is_either_a_pin_or_refused(text: str) -> None:
    try:
        hostkeys.parse_pin(text)
    except HostKeyUnreadable:
        pass


# --- the pool's key pair


def test_a_new_key_pair_can_be_read_again() -> None:
    pair = new_key_pair()
    key = load_private_key(pair.private)
    assert key.get_bits() >= 3072 and key.can_sign()
    assert public_line(key) == pair.public
    assert pair.public.startswith("ssh-rsa AAAA")
    assert load_private_key("\r\n" + pair.private.replace("\n", "\r\n")) == key


@pytest.mark.parametrize("options", [["-m", "PEM"], ["-m", "PKCS8"], ["-m", "RFC4716"]])
@pytest.mark.parametrize("kind", ["rsa", "ed25519", "ecdsa"])
def test_keys_made_by_ssh_keygen_can_be_read(tmp_path: Any, kind: str, options: List[str]) -> None:
    path = str(tmp_path / "key")
    keygen = need_program("ssh-keygen", "openssh-client")
    subprocess.check_call([keygen, "-q", "-t", kind, "-N", "", "-f", path] + options)
    with open(path) as source:
        text = source.read()
    if "BEGIN PRIVATE KEY" in text and kind != "rsa":
        with pytest.raises(KeyPairError):
            load_private_key(text)
        return
    with open(path + ".pub") as source:
        assert public_line(load_private_key(text)) == " ".join(source.read().split()[:2])


@pytest.mark.parametrize("text", ["", "ssh-rsa AAAA",
                                  "-----BEGIN RSA PRIVATE KEY-----\nSECRET\n-----END RSA PRIVATE KEY-----",
                                  "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----",
                                  "-----BEGIN OPENSSH PRIVATE KEY-----\nSECRET\n-----END OPENSSH PRIVATE KEY-----",
                                  "-----BEGIN RSA PRIVATE KEY-----" + "A" * 100000, "\udc80 PRIVATE KEY-----"])
def test_a_text_without_a_key_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(KeyPairError) as caught:
        load_private_key(text)
    error: Any = caught.value
    while error is not None:
        assert "SECRET" not in str(error)
        error = error.__cause__


def test_a_damaged_key_that_cannot_sign_is_refused(key_pair: KeyPair) -> None:
    head, *lines, foot = key_pair.private.splitlines()
    damaged = base64.b64decode("".join(lines))
    refused = 0
    for place in range(5, len(damaged), 60):
        changed = damaged[:place] + bytes([damaged[place] ^ 5]) + damaged[place + 1:]
        try:
            load_private_key("\n".join([head, base64.b64encode(changed).decode(), foot]))
        except KeyPairError:
            refused += 1
    assert refused >= 3  # a wrong modulus always fails; most other numbers can be derived


def test_a_key_with_a_passphrase_is_reported() -> None:
    text = io.StringIO()
    paramiko.RSAKey.generate(1024).write_private_key(text, password="secret")
    with pytest.raises(KeyPairError) as caught:
        load_private_key(text.getvalue())
    assert "passphrase" in str(caught.value)


# --- lines


def _chunks(data: bytes, cuts: List[int]) -> bytes:
    out = b""
    while data:
        size = (cuts.pop() if cuts else len(data)) or 1
        out += b"%x;ext=1\r\n%s\r\n" % (len(data[:size]), data[:size])
        data = data[size:]
    return out


@given(st.lists(st.binary(max_size=30)), st.lists(st.integers(1, 20)), st.lists(st.integers(1, 9)), st.booleans())
def test_lines_are_the_same_for_any_pieces_and_chunks(lines: List[bytes], chunk_sizes: List[int],
                                                      piece_sizes: List[int], chunked: bool) -> None:
    lines = [line.replace(b"\n", b"").strip() for line in lines]
    data = b"".join(line + b"\n" for line in lines)
    if chunked:
        data = _chunks(data, chunk_sizes)
    feeder = LineFeeder(chunked)
    found: List[bytes] = []
    while data:
        size = piece_sizes.pop() if piece_sizes else len(data)
        found += feeder.feed(data[:size])
        data = data[size:]
    assert found == [line for line in lines if line]
    if chunked:
        assert feeder.feed(b"0\r\n\r\n") == [] and feeder.ended


@given(st.binary(max_size=300))
def test_any_bytes_are_either_lines_or_refused(data: bytes) -> None:
    try:
        LineFeeder(True).feed(data)
    except (EngineGarbage, EngineTooMuch):
        pass


@pytest.mark.parametrize("piece", [1, 1000, 1000000])
def test_the_beginning_of_a_long_line_is_kept(piece: int) -> None:
    feeder = LineFeeder(False)
    text = b"y" * MOST_LINE_BYTES + b"x" * 5000 + b"\nnext\n"
    found: List[bytes] = []
    for start in range(0, len(text), piece):
        found += feeder.feed(text[start:start + piece])
    assert found == [b"y" * MOST_LINE_BYTES, b"next"]
    assert [isinstance(line, CutLine) for line in found] == [True, False]


def test_a_line_in_many_pieces_is_limited() -> None:
    feeder = LineFeeder(False)
    with pytest.raises(EngineTooMuch):
        for _ in range(MOST_SKIPPED_BYTES // 65536 + 1):
            feeder.feed(b"x" * 65536)
    assert len(feeder._line) <= MOST_LINE_BYTES


# --- TCP


def test_all_sockets_but_the_winners_are_closed() -> None:
    with Server(read_head) as server:
        for _ in range(5):
            answered = dial(["127.0.0.2", "127.0.0.1", "127.0.0.3"], server.port, 5.0, 30.0)
            assert answered.address == "127.0.0.1"
            assert answered.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            answered.sock.close()


def test_the_order_of_addresses_is_observed() -> None:
    with Server(lambda peer: None) as server:
        answered = dial(["127.0.0.1", "::1"], server.port, 5.0, 30.0)
        answered.sock.close()
        assert answered.address == "127.0.0.1"


# --- side effects


def test_importing_prints_nothing_and_configures_no_logging() -> None:
    code = ("import logging, threading\n"
            "import xscontainer.engine.ssh.connection, xscontainer.engine.api\n"
            "assert not logging.getLogger().handlers and threading.active_count() == 1\n")
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"Python 3.6" not in done.stderr


@pytest.mark.parametrize("peer", [lambda peer: peer.sendall(b"rubbish\r\n"), lambda peer: None])
def test_paramiko_logs_nothing_above_debug(peer: Any, caplog: pytest.LogCaptureFixture,
                                           private_key: paramiko.PKey) -> None:
    from tests.engine.conftest import ENGINE, QUICK
    with Server(peer) as server, caplog.at_level(logging.INFO):
        with pytest.raises(XSContainerError):
            ssh.connect(ssh.Target(("127.0.0.1",), server.port, "core", "/run/docker.sock"), private_key, QUICK, ENGINE)
    assert not caplog.records


@given(st.lists(st.sampled_from([b"a", b" b ", b"", b" ", b"\t", b"\r"]), max_size=40), st.integers(1, 7))
def test_blank_lines_are_skipped_at_any_position(lines: List[bytes], step: int) -> None:
    data = b"\n".join(lines) + b"\n"
    feeder = LineFeeder(False)
    found = [line for start in range(0, len(data), step) for line in feeder.feed(data[start:start + step])]
    assert found == [line.strip() for line in lines if line.strip()]
