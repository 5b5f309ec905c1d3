"""Weak algorithms are off and can be allowed for an old guest; missing algorithms are named."""

import socket
import threading
from typing import Any, Callable, List, Tuple

import paramiko
import pytest

from tests.engine.conftest import ENGINE, QUICK
from tests.engine.peers import Server, Sshd
from xscontainer.core.target import WEAK
from xscontainer.engine.ssh import algorithms
from xscontainer.engine.ssh import connection as ssh
from xscontainer.engine.ssh.algorithms import Algorithms
from xscontainer.engine.ssh.handshake import meet
from xscontainer.engine.ssh.hostkeys import HostKey
from xscontainer.engine.ssh.transport import GuestTransport
from xscontainer.errors import KeyNotAccepted, KeyTypeRefused, SSHIncompatible, SSHWeak

Connect = Callable[..., ssh.SSHConnection]
MakeSshd = Callable[..., Sshd]


def known() -> Algorithms:
    """Return all algorithms of the installed paramiko."""
    left, right = socket.socketpair()
    try:
        transport = GuestTransport(left)
        found = transport.known
        transport.close()
        return found
    finally:
        left.close()
        right.close()


def test_each_word_allows_weak_algorithms_and_none_are_on_without() -> None:
    assert set(WEAK) == set(algorithms.WEAK)
    everything = Algorithms(*(tuple(names) for names in known()))
    safe = algorithms.ours(everything)
    assert all(safe)
    for names in safe:
        assert not [name for name in names if "sha1" in name or "md5" in name or "cbc" in name or "dss" in name]
        assert "ssh-rsa" not in names and "diffie-hellman-group-exchange-sha256" not in names
    for word in WEAK:
        more = algorithms.ours(everything, [word])
        added = {name for before, after in zip(safe, more) for name in set(after) - set(before)}
        assert added == set(algorithms.WEAK[word]) & {name for names in everything for name in names}


_SHA1 = [("MACs", "hmac-sha1", "sha1", "macs"), ("KexAlgorithms", "diffie-hellman-group14-sha1", "sha1", "kex")]


@pytest.mark.real
@pytest.mark.parametrize("directive, value, word, field", [
    ("Ciphers", "3des-cbc", "3des", "ciphers"), ("Ciphers", "aes128-cbc,aes256-cbc", "cbc", "ciphers"),
    ("MACs", "hmac-md5", "md5", "macs"), *_SHA1, ("HostKeyAlgorithms", "ssh-rsa", "sha1", "host_keys")])
def test_a_weak_algorithm_is_refused_and_can_be_allowed(make_sshd: MakeSshd, connect: Connect, directive: str,
                                                        value: str, word: str, field: str) -> None:
    sshd = make_sshd(f"{directive} {value}" + ("\nCiphers aes128-ctr" if directive == "MACs" else ""), host_keys="rsa")
    here = set(getattr(known(), field)) & set(value.split(","))
    with pytest.raises(SSHIncompatible) as caught:
        connect(sshd)
    assert value.split(",")[0] in caught.value.message and len(str(caught.value)) < 500
    if not here:  # this release of paramiko has dropped it
        assert not isinstance(caught.value, SSHWeak) and "Update sshd" in caught.value.hint
        return
    assert isinstance(caught.value, SSHWeak) and f"xscontainer-ssh-weak in the VM's other_config to {word}." in str(
        caught.value)
    others = tuple(other for other in WEAK if other != word)
    with pytest.raises(SSHIncompatible):
        connect(sshd, weak=others)
    connection = connect(sshd, weak=(word,))
    assert f"with weak algorithms: {value.split(',')[0]}" in connection.describe()


@pytest.mark.real
def test_a_safe_connection_is_not_described_as_weak(make_sshd: MakeSshd, connect: Connect) -> None:
    assert "weak" not in connect(make_sshd(), weak=WEAK).describe()


def _shown(key: paramiko.PKey) -> Callable[[socket.socket], Any]:
    def serve(peer: socket.socket) -> None:
        transport = paramiko.Transport(peer)
        transport.add_server_key(key)
        try:
            transport.start_server(server=paramiko.ServerInterface(), event=threading.Event())
            transport.join(30.0)
        finally:
            transport.close()
    return serve


@pytest.mark.parametrize("weak", [(), ("sha1", "dss", "md5")])
def test_a_short_rsa_host_key_is_refused_with_its_size_and_can_be_allowed(weak: Tuple[str, ...]) -> None:
    with Server(_shown(paramiko.RSAKey.generate(1024))) as server:
        with pytest.raises(SSHWeak, match="1024 bits") as caught:
            meet(["127.0.0.1"], server.port, None, QUICK, weak=weak)
        assert "xscontainer-ssh-weak in the VM's other_config to rsa1024." in caught.value.hint
        met = meet(["127.0.0.1"], server.port, None, QUICK, weak=("rsa1024",))
        assert met.host_key.kind == "ssh-rsa"
        assert algorithms.used_weak(met.transport) == ["RSA host key of 1024 bits"]
        met.transport.close()


@pytest.mark.parametrize("signed, negotiated, word", [
    ("ssh-rsa", "rsa-sha2-512", "sha1"), ("rsa-sha2-256", "rsa-sha2-512", ""), ("", "ssh-ed25519", ""),
    ("x" * 10000, "rsa-sha2-256", "")])
def test_a_signature_of_another_algorithm_than_negotiated_is_refused(signed: str, negotiated: str, word: str) -> None:
    signature = paramiko.Message()
    signature.add_string(signed)
    with pytest.raises(algorithms.WeakKey) as caught:
        algorithms.check_host_key(paramiko.RSAKey.generate(2048), negotiated, signature.asbytes(), frozenset(WEAK))
    assert caught.value.word == word


def test_a_pinned_dss_key_is_refused_with_the_word_that_allows_it() -> None:
    def serve(peer: socket.socket) -> None:
        peer.recv(10000)
        while peer.recv(10000):
            pass

    with Server(serve) as server, pytest.raises(SSHWeak, match="ssh-dss"):
        meet(["127.0.0.1"], server.port, HostKey("ssh-dss", b"x"), QUICK)


class _Server(paramiko.ServerInterface):
    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_FAILED


def _taking(signatures: str) -> Callable[[socket.socket], Any]:
    """Start a server that reports the signatures it accepts; "": it reports none."""
    def serve(peer: socket.socket) -> None:
        transport = paramiko.Transport(peer, server_sig_algs=bool(signatures))
        if signatures:
            transport._preferred_pubkeys = tuple(signatures.split(","))
        transport.add_server_key(paramiko.ECDSAKey.generate())
        try:
            transport.start_server(server=_Server(), event=threading.Event())
            transport.join(30.0)
        finally:
            transport.close()
    return serve


@pytest.mark.parametrize("signatures, kind, words", [
    ("ssh-ed25519", KeyTypeRefused, ["ssh-ed25519", "2048 bits", "PubkeyAcceptedAlgorithms"]),
    ("ssh-ed25519,ssh-rsa", KeyTypeRefused, ["xscontainer-ssh-weak in the VM's other_config to sha1."]),
    ("rsa-sha2-512", KeyNotAccepted, ["Prepare the VM"]), ("", KeyNotAccepted, ["before OpenSSH 7.2"])])
def test_the_error_for_a_refused_key_names_the_accepted_signatures(private_key: paramiko.PKey, signatures: str,
                                                                   kind: type, words: List[str]) -> None:
    with Server(_taking(signatures)) as server, pytest.raises(KeyNotAccepted) as caught:
        ssh.connect(ssh.Target(("127.0.0.1",), server.port, "core", ""), private_key, QUICK, ENGINE)
    assert type(caught.value) is kind
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("weak", [(), ("sha1",)])
@pytest.mark.parametrize("said", [b"", b"ssh-ed25519,rsa-sha2-256,rsa-sha2-512,ssh-rsa"])
def test_an_old_server_gets_a_sha1_signature_if_that_is_allowed(weak: Tuple[str, ...], said: bytes) -> None:
    """A server before OpenSSH 7.2 does not report its signatures, and knows RSA with SHA-1 only."""
    left, right = socket.socketpair()
    transport = GuestTransport(left, weak=weak)
    try:
        transport.server_extensions = {"server-sig-algs": said} if said else {}
        offered = [name for name in transport.preferred_pubkeys if "rsa" in name]
    finally:
        transport.close()
        right.close()
    if weak and not said and "ssh-rsa" in known().host_keys:
        assert offered == ["ssh-rsa"]
    else:
        assert offered[0] == "rsa-sha2-512"
        assert ("ssh-rsa" in offered) is (bool(weak) and "ssh-rsa" in known().host_keys)


@pytest.mark.real
@pytest.mark.parametrize("options", ["PubkeyAcceptedAlgorithms ssh-ed25519", "RequiredRSASize 4096"])
def test_the_error_for_a_refused_rsa_key_names_its_size_and_the_directives(make_sshd: MakeSshd, connect: Connect,
                                                                           options: str) -> None:
    with pytest.raises(KeyNotAccepted) as caught:
        connect(make_sshd(options))
    assert "RSA keys of 2048 bits" in caught.value.limits or "2048 bits" in caught.value.message


@pytest.mark.real
def test_the_error_for_a_refused_short_key_recommends_a_rotation(make_sshd: MakeSshd) -> None:
    sshd = make_sshd()
    with pytest.raises(KeyNotAccepted, match="key-rotate"):
        ssh.connect(ssh.Target(("127.0.0.1",), sshd.port, sshd.user, ""), paramiko.RSAKey.generate(1024), QUICK, ENGINE)


OURS = Algorithms(("curve25519-sha256",), ("ssh-ed25519", "rsa-sha2-512"), ("aes128-ctr",), ("hmac-sha2-256",))
ALL = OURS._replace(ciphers=("aes128-ctr", "3des-cbc"), macs=("hmac-sha2-256", "hmac-md5"), host_keys=("ssh-rsa",))


@pytest.mark.parametrize("they, kind, words", [
    (OURS._replace(ciphers=("chacha20-poly1305@openssh.com",)), SSHIncompatible,
     ["no cipher in common", "chacha20-poly1305@openssh.com", "aes128-ctr", "to Ciphers in the VM's sshd_config"]),
    (OURS._replace(ciphers=("arcfour", "blowfish-cbc")), SSHIncompatible, ["arcfour", "Update sshd in the VM."]),
    (OURS._replace(ciphers=("3des-cbc",), macs=("hmac-md5",)), SSHWeak,
     ["cipher: 3des-cbc; MAC: hmac-md5", "to 3des,md5."]),
    (OURS._replace(ciphers=("3des-cbc",), kex=("x",)), SSHIncompatible, ["no key exchange", "KexAlgorithms"]),
    (Algorithms((), (), (), ()), SSHIncompatible, ["offers nothing"]),
    (OURS, SSHIncompatible, ["no algorithm in common"]),
])
def test_missing_algorithms_are_named_and_only_an_old_sshd_is_to_be_updated(they: Algorithms, kind: type,
                                                                            words: List[str]) -> None:
    error = algorithms.incompatible(OURS, they, ALL, "10.0.0.5 port 22")
    assert type(error) is kind
    for word in words:
        assert word in str(error)
    if "chacha20" in str(error):
        assert "Update" not in str(error)


def test_a_hostile_offer_is_cut_to_a_limit() -> None:
    message = paramiko.Message()
    message.add_bytes(b"x" * 16)
    for _ in range(10):
        message.add_string(b"\x1b[31m\xff," * 50000)
    message.rewind()
    offer = algorithms.offered(message)
    text = str(algorithms.incompatible(OURS, offer, ALL, "10.0.0.5 port 22"))
    assert text.isprintable() and len(text) < 5000
