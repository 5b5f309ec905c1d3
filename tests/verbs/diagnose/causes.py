"""The ways in which a VM is broken, each set up for real; docs/troubleshooting.md names the cause of each."""

import contextlib
import functools
import os
import shutil
import socket
import tempfile
import time
from typing import Any, Callable, Dict, List, NamedTuple

from tests.engine import tls_peers
from tests.engine.peers import Script, Serve, Server, Sshd, http_answer
from tests.engine.tls_peers import Authority
from tests.need import need, need_program
from tests.verbs.diagnose.conftest import Scene
from xscontainer import errors, keys
from xscontainer.certificates import making
from xscontainer.xapi.session import Session

Arrange = Callable[..., Scene]  # (make_scene, stack) -> Scene


class Cause(NamedTuple):
    """:ivar what: for the documentation. :ivar step: which fails. :ivar words: in the message, among others."""

    code: str
    what: str
    step: str
    words: str
    arrange: Arrange


CAUSES: List[Cause] = []


def cause(code: str, step: str, what: str = "", words: str = "") -> "Callable[[Arrange], Arrange]":
    """:param what: "" for one more way into a cause that the documentation names already."""
    def register(arrange: Arrange) -> Arrange:
        CAUSES.append(Cause(code, what, step, words, arrange))
        return arrange
    return register


def classes(of: Any = errors.XSContainerError) -> "Dict[str, Any]":
    """Code -> class of error."""
    found = {of.code: of}
    for child in of.__subclasses__():
        found.update(classes(child))
    return found


def serving(scene: Scene, stack: contextlib.ExitStack, serve: Serve) -> Scene:
    """This answers where the VM's sshd should be."""
    server = stack.enter_context(Server(serve))
    scene.address("127.0.0.1", server.port)
    return scene


def on_socket(make: Any, stack: contextlib.ExitStack, serve: Any) -> Scene:
    """This listens where the engine should."""
    scene: Scene = make()
    scene.engine.stop()
    stack.enter_context(Server(serve, scene.guest.engine_socket))
    return scene


def impatient(scene: Scene) -> Scene:
    """Shorten the timeouts, for causes that hang."""
    scene.tune("guest", connect_timeout=1.0, handshake_timeout=1.0, login_timeout=1.0)
    scene.tune("engine", request_timeout=1.0)
    return scene


def asleep(peer: socket.socket) -> None:
    while peer.recv(65536):
        pass


def saying(what: bytes, wait: bool = True) -> Serve:
    """Says this, and hangs up. :param wait: for something to answer to."""
    def serve(peer: socket.socket) -> None:
        if wait:
            peer.recv(1000)
        peer.sendall(what)
    return serve


# --- the VM ------------------------------------------------------------------


@cause("VM_NOT_RUNNING", "power", "The VM is halted, suspended or paused.")
def _halted(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.pool.set_field("VM", scene.ref, "power_state", "Halted")
    scene.pool.set_field("VM", scene.ref, "resident_on", "OpaqueRef:NULL")
    return scene


@cause("ARGUMENT_INVALID", "vm", "The VM is a template or a snapshot, or one of its `xscontainer-` keys has an "
                                 "invalid value.",
       "template")
def _template(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.ref = scene.pool.create_vm("a template", template=True, power_state="Halted")
    return scene


@cause("ARGUMENT_INVALID", "settings", words="xscontainer-ssh-port")
def _nonsense(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(SSH_PORT="22; reboot")
    return scene


@cause("MODE_UNSUPPORTED", "settings", "`xscontainer-mode` is neither `ssh` nor `tls`.", "telnet")
def _mode(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(MODE="telnet")
    return scene


@cause("ADDRESS_UNKNOWN", "address", "The guest tools report no address, and `xscontainer-address` is not set.")
def _nowhere(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.pool.set_networks(scene.ref, {})
    return scene


@cause("ADDRESS_REFUSED", "address", "All addresses of the VM are forbidden: a host's own, loopback or multicast.",
       "224.0.0.1")
def _forbidden_address(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.pool.set_networks(scene.ref, {"0/ip": scene.pool.coordinator.address, "1/ip": "224.0.0.1"})
    return scene


@cause("NAME_UNRESOLVED", "address", "The host name in `xscontainer-address` has no address.", "no-such-vm.invalid")
def _unknown_name(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(ADDRESS="no-such-vm.invalid")
    return scene


# --- the network -------------------------------------------------------------


@cause("GUEST_REFUSED", "tcp", "Nothing listens on the port: sshd is stopped, or has another port.", "Nothing listens")
def _no_sshd(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.guest.stop()
    return scene


@cause("GUEST_FILTERED", "tcp", "No answer: a firewall drops the connection, the address is wrong, or the network is "
                                "down.")
def _filtered(make: Any, stack: contextlib.ExitStack) -> Scene:
    """A full backlog: the kernel answers no further call, as a firewall does not."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    for _ in range(4):
        caller = stack.enter_context(socket.socket())
        caller.setblocking(False)
        caller.connect_ex(listener.getsockname())
    scene: Scene = make()
    scene.address(*listener.getsockname())
    return impatient(scene)


@cause("GUEST_SILENT", "ssh", "The connection is accepted, but nothing is sent: the VM hangs.")
def _silent(make: Any, stack: contextlib.ExitStack) -> Scene:
    return impatient(serving(make(), stack, asleep))


@cause("SSH_CLOSED", "ssh", "The connection is closed at once: tcpwrappers, fail2ban, a limit, or a forwarded port "
                            "without a server.",
       "closed the connection without a word")
def _hangs_up(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.guest.misbehave("close")
    return scene


@cause("GUEST_NOT_SSH", "ssh", "Another server than sshd uses the port.", "HTTP/1.1 400")
def _http(make: Any, stack: contextlib.ExitStack) -> Scene:
    return serving(make(), stack, saying(b"HTTP/1.1 400 Bad Request\r\n\r\n\x1b[2J", wait=False))


@cause("SSH_CLOSED", "ssh", words="sends 'refused: 10.0.0.1 is banned")
def _turned_away(make: Any, stack: contextlib.ExitStack) -> Scene:
    return serving(make(), stack, saying(b"refused: 10.0.0.1 is banned\r\n\x1b[2J", wait=False))


@cause("SSH_BUSY", "ssh", "sshd has as many connections without a login as `MaxStartups` allows.",
       "'Exceeded MaxStartups'")
def _busy(make: Any, stack: contextlib.ExitStack) -> Scene:
    return serving(make(), stack, saying(b"Exceeded MaxStartups\r\n", wait=False))


@cause("SSH_PENALTY", "ssh", "sshd refuses this host for a time, because logins failed (OpenSSH 9.8 and later).",
       "'Not allowed at this time'")
def _penalty(make: Any, stack: contextlib.ExitStack) -> Scene:
    return serving(make(), stack, saying(b"Not allowed at this time\r\n", wait=False))


# --- SSH ---------------------------------------------------------------------


@cause("SSH_INCOMPATIBLE", "ssh", "sshd and this host have no algorithm in common. The message lists those of both "
                                  "sides.",
       "no key exchange in common (the SSH server offers sntrup761x25519-sha512@openssh.com")
def _strange_algorithms(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"KexAlgorithms": "sntrup761x25519-sha512@openssh.com"})
    return scene


@cause("SSH_WEAK", "ssh", "sshd offers only weak algorithms: SHA-1, CBC, 3DES, MD5, DSS, or RSA keys below 2048 bits.",
       "weak algorithms only (MAC: hmac-sha1)")
def _weak_algorithms(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"MACs": "hmac-sha1", "Ciphers": "aes128-ctr"})
    return scene


@cause("SSH_INCOMPATIBLE", "ssh", words="1.5")
def _old_protocol(make: Any, stack: contextlib.ExitStack) -> Scene:
    return serving(make(), stack, saying(b"SSH-1.5-old\r\n", wait=False))


@cause("HOST_KEY_CHANGED", "hostkey", "The host key differs from the pinned one: the VM was reinstalled, or another "
                                      "machine has its address.")
def _another_host_key(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(HOST_KEY=scene.guest.host_key_base64, OWNER=scene.pool.vm(scene.ref)["uuid"])
    scene.guest.rotate_host_key()
    return scene


@cause("HOST_KEY_UNREADABLE", "hostkey", "`xscontainer-sshhostkey` holds no valid host key.")
def _no_host_key(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(HOST_KEY="none of your business")
    return scene


@cause("ANOTHER_VM", "identity", "Another VM answers at the address: this VM reports an address of that VM, or is a "
                                 "clone with its host key.",
       "the guest says that it is the VM 'other'")
def _another_vm(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    other = scene.pool.create_vm("other", scene.pool.coordinator, networks={"0/ip": scene.guest.address})
    scene.guest.hypervisor.says(scene.pool.vm(other)["uuid"])
    return scene


@cause("ANOTHER_VM", "identity", words="which is not in this pool")
def _another_pools_vm(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.guest.hypervisor.says("12345678-1234-4234-8234-123456789012")
    return scene


@cause("ANOTHER_VM", "identity", words="belongs to the VM 'other'")
def _anothers_host_key(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.pool.create_vm("other", scene.pool.coordinator, other_config={keys.HOST_KEY: scene.guest.host_key_base64})
    return scene


@cause("ADDRESS_CONFLICT", "identity", "Another running VM reports the same address, and neither a pinned host key "
                                       "nor the guest tells which VM answers.",
       "'other'")
def _two_at_one_address(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(PS=None)
    scene.pool.create_vm("other", scene.pool.coordinator, networks={"0/ip": scene.guest.address})
    return scene


@cause("KEY_PAIR_INVALID", "key", "The pool's SSH key pair is missing or damaged.")
def _no_pool_key(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    (pool_ref,) = scene.pool.records("pool")
    scene.pool.set_key(pool_ref, keys.PRIVATE_SECRET, "a4b3c2d1-0000-4000-8000-000000000000", cls="pool")
    return scene


@cause("KEY_NOT_ACCEPTED", "login", "The user does not exist, has not the pool's key in `authorized_keys`, or may not "
                                    "log in. sshd does not say which.")
def _not_prepared(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.guest.revoke_all()
    return scene


@cause("KEY_NOT_ACCEPTED", "login", words="may not log in at all")
def _not_anybody(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"DenyUsers": "*"})
    return scene


@cause("USER_WRONG", "login", "The pool's key is accepted for another user: the one of the settings, `core` or `root`.",
       "nobody-here")
def _wrong_user(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.tune("ssh", user=scene.guest.user)
    scene.put(USERNAME="nobody-here")
    return scene


def _restricted(scene: Scene, command: str) -> Scene:
    """Every key of the guest's user may only run this command."""
    with open(scene.guest.authorized_keys_path, encoding="ascii") as source:
        lines = source.readlines()
    with open(scene.guest.authorized_keys_path, "w", encoding="ascii") as out:
        out.writelines(f'no-port-forwarding,command="{command}" {line}' for line in lines)
    return scene


_CLOUD_INIT = "echo 'Please login as the user \\\"admin\\\" rather than the user \\\"root\\\".';echo;sleep 10;exit 142"


@cause("KEY_NOT_ACCEPTED", "login", words="does not reach the engine: ")
def _other_user_has_a_forced_command(make: Any, _stack: Any) -> Scene:
    scene = _restricted(make(), _CLOUD_INIT)
    scene.tune("ssh", user=scene.guest.user)
    scene.put(USERNAME="nobody-here")
    return scene


@cause("SCRIPT_NOT_RUN", "socket", words="runs instead and says 'Please login as the user \"admin\"")
def _forced_command(make: Any, _stack: Any) -> Scene:
    return _restricted(make(), _CLOUD_INIT)


@cause("PUBLIC_KEY_OFF", "login", "sshd accepts no login with a key.", "password")
def _no_public_keys(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"PubkeyAuthentication": "no", "PasswordAuthentication": "yes"})
    return scene


@cause("LOGIN_NEEDS_MORE", "login", "sshd accepts the key, and asks for a password as well.")
def _two_factors(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"AuthenticationMethods": "publickey,password", "PasswordAuthentication": "yes"})
    return scene


@cause("LOGIN_ENDED", "login", "sshd ends the connection during the login: an expired or locked account (PAM), or "
                               "`MaxAuthTries 1`.")
def _one_try(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"MaxAuthTries": "1"})
    scene.guest.revoke_all()
    return scene


@cause("LOGIN_ENDED", "login")
def _expired(make: Any, stack: contextlib.ExitStack) -> Scene:
    return visitor(make(), stack, "UsePAM yes", expired=True)


# --- from sshd to the engine -------------------------------------------------


@cause("SCRIPT_NOT_RUN", "socket", "sshd forwards no connection to the socket, and the user cannot run commands: sftp "
                                   "only, nologin, a forced command, or start-up files that end the shell.",
       "For backups only")
def _forced(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"AllowStreamLocalForwarding": "no", "ForceCommand": "echo For backups only."})
    return scene


@cause("SCRIPT_SILENT", "socket", "sshd forwards no connection to the socket, and a command does not start in time: "
                                  "the shell's start-up files wait.",
       "Waiting")
def _waiting(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"AllowStreamLocalForwarding": "no", "ForceCommand": "echo Waiting; sleep 600"})
    return scene


@cause("FORWARDING_REFUSED", "socket", "sshd forwards no connection to the socket, and the VM has no program that "
                                       "connects to it.")
def _no_forwarding(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"AllowStreamLocalForwarding": "no"}, tools=("env", "ls", "test", "grep", "sh"))
    return scene


@cause("ENGINE_SOCKET_ABSENT", "socket", "No engine is installed, or its socket has another path.", "docker.sock")
def _no_socket(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.engine.stop()
    return scene


@cause("ENGINE_STOPPED", "socket", "The socket exists, but no engine listens on it.")
def _stopped(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.engine.kill()
    return scene


def engines(scene: Scene, stack: contextlib.ExitStack, docker: int = 0, podman: bool = False) -> Scene:
    """Nobody says where the engine's socket is, and a user who is not root looks for it.

    :param docker: mode of docker's socket, on which nobody listens; 0: there is none.
    :param podman: it is installed as Debian does: in /run/podman only root sees what is there.
    """
    need(os.path.realpath("/var/run") == "/run", "a /var/run that is /run")
    run = f"{scene.directory}/run"
    os.makedirs(f"{run}/sshd")
    if docker:
        left = stack.enter_context(socket.socket(socket.AF_UNIX))
        left.bind(f"{run}/docker.sock")
        os.chmod(f"{run}/docker.sock", docker)
    if podman:
        os.mkdir(f"{run}/podman", 0o700)
    scene.put(ENGINE_SOCKET=None)
    return visitor(scene, stack, run=run)


@cause("ENGINE_STOPPED", "socket", words="/var/run/docker.sock")
def _stopped_beside_podman(make: Any, stack: contextlib.ExitStack) -> Scene:
    return engines(make(), stack, 0o666, podman=True)


@cause("ENGINE_SOCKET_ABSENT", "socket", words="may not look into the directory of /run/podman")
def _podman_of_root(make: Any, stack: contextlib.ExitStack) -> Scene:
    return engines(make(), stack, podman=True)


@cause("ENGINE_FORBIDDEN", "socket", words="/var/run/docker.sock")
def _forbidden_beside_podman(make: Any, stack: contextlib.ExitStack) -> Scene:
    return engines(make(), stack, 0o660, podman=True)


@cause("ENGINE_FORBIDDEN", "socket", "The user may not open the socket, for example because the user is not in the "
                                     "group `docker`.")
def _not_in_group(make: Any, stack: contextlib.ExitStack) -> Scene:
    scene = visitor(make(), stack)
    os.chmod(scene.guest.engine_socket, 0o660)
    return scene


@cause("SCRIPT_NOT_RUN", "socket", words="not available")
def _no_shell(make: Any, stack: contextlib.ExitStack) -> Scene:
    return visitor(make(), stack, "AllowStreamLocalForwarding no", shell=need_program("nologin", "login"))


# --- the engine --------------------------------------------------------------


@cause("ENGINE_TIMEOUT", "engine", "The engine hangs or answers too late.")
def _hanging_engine(make: Any, stack: contextlib.ExitStack) -> Scene:
    return impatient(on_socket(make, stack, asleep))


@cause("ENGINE_TIMEOUT", "containers")
def _hanging_list(make: Any, stack: contextlib.ExitStack) -> Scene:
    return impatient(on_socket(make, stack, Script({"/containers/json": lambda peer, head: asleep(peer)})))


@cause("ENGINE_GARBAGE", "engine", "The program on the socket is not a container engine.", "")
def _no_engine(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, saying(b"220 mail.example \x1b]0;x\x07 ESMTP\r\n"))


@cause("ENGINE_GARBAGE", "containers")
def _no_list(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, Script({"/containers/json": http_answer(b'{"a": 1}')}))


@cause("ENGINE_LOST", "engine", "The engine closes the connection without an answer.")
def _engine_that_hangs_up(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, lambda peer: peer.recv(1000))


@cause("ENGINE_TOO_OLD", "engine", "The engine is older than Docker 1.12.", "1.18")
def _old_engine(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, Script({"/version": http_answer(b'{"ApiVersion": "1.18", "Version": "1.6"}')}))


@cause("ENGINE_REFUSED", "containers", "The engine answers with an error, for example of an authorization plugin.",
       "not for you")
def _refusing_engine(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, Script({
        "/containers/json": http_answer(b'{"message": "authorization denied: not for you"}', "403 Forbidden")}))


@cause("ENGINE_TOO_MUCH", "containers", "The list is longer than `max_response_bytes`.")
def _too_much(make: Any, stack: contextlib.ExitStack) -> Scene:
    scene = on_socket(make, stack, Script({"/containers/json": http_answer(b"[" + b" " * 400000 + b"]")}))
    scene.tune("engine", max_response_bytes=65536)
    return scene


LISTS = {"/containers/json": http_answer(b"[]"), "/info": http_answer(b'{"Name": "guest"}')}
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
DENIED = http_answer(b"Request forbidden by administrative rules.", "403 Forbidden")


def keeping(*paths: str, answer: Any = DENIED) -> Script:
    """An engine behind a proxy, which answers like that at these paths."""
    def follow(peer: socket.socket, _head: str) -> None:
        peer.sendall(EVENTS)
        asleep(peer)

    return Script(dict({**LISTS, "/events": follow}, **{path: answer for path in paths}))


@cause("EVENTS_UNAVAILABLE", "optional", "A proxy or plugin in front of the engine refuses or delays its events, or "
                                         "Podman has `events_logger` none. The list is polled.",
       "administrative rules")
def _no_events(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, keeping("/events"))


@cause("EVENTS_UNAVAILABLE", "optional")
def _late_events(make: Any, stack: contextlib.ExitStack) -> Scene:
    return impatient(on_socket(make, stack, keeping("/events", answer=lambda peer, head: asleep(peer))))


@cause("EVENTS_UNAVAILABLE", "optional", words="ended")
def _events_that_end(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, keeping("/events", answer=EVENTS + b"0\r\n\r\n"))


@cause("FACTS_UNAVAILABLE", "optional", "A proxy or plugin in front of the engine refuses its facts. Only the list is "
                                        "shown.",
       "administrative rules")
def _no_facts(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, keeping("/info"))


@cause("FACTS_UNAVAILABLE", "optional", words="administrative rules")
def _no_version(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, keeping("/version"))


# --- TLS ---------------------------------------------------------------------


def over_tls(scene: Scene, stack: contextlib.ExitStack, serve: Any = None, raw: bool = False, **more: Any) -> Scene:
    """The VM is in mode tls, and this answers at its port.

    :param raw: without TLS. :param more: of the server's context; ``of``: whose CA the VM trusts.
    """
    ours = more.pop("of", AUTHORITY())
    kept = {}
    session = Session.login(scene.pool.coordinator.socket_path, "test", 10.0, 10.0)
    try:
        for name, text in zip(("TLS_CA_CERT", "TLS_CLIENT_CERT", "TLS_CLIENT_KEY"), ours.credentials):
            ref = session.xenapi.secret.create({"value": text, "other_config": {}})
            kept[name] = session.xenapi.secret.get_uuid(ref)
    finally:
        session.logout()
    scene.put(MODE="tls", **kept)
    serve = serve or keeping()
    return serving(scene, stack, serve if raw else tls_peers.over_tls(
        tls_peers.server_context(scene.directory, AUTHORITY(), **more), serve))


@functools.lru_cache(maxsize=None)
def AUTHORITY(label: str = "a CA") -> Authority:
    return Authority.new(label)


@cause("TLS_CREDENTIALS_MISSING", "certificates", "The mode is `tls`, but a certificate to connect with is missing.",
       keys.TLS_CA_CERT)
def _no_certificates(make: Any, stack: contextlib.ExitStack) -> Scene:
    scene = over_tls(make(), stack)
    scene.put(TLS_CA_CERT=None)
    return scene


@cause("TLS_CREDENTIALS_INVALID", "certificates", "The secrets hold no valid certificate or key.")
def _no_good_certificates(make: Any, stack: contextlib.ExitStack) -> Scene:
    scene = over_tls(make(), stack)
    config = scene.pool.other_config(scene.ref)
    scene.put(TLS_CLIENT_CERT=config[keys.TLS_CLIENT_KEY], TLS_CLIENT_KEY=config[keys.TLS_CLIENT_CERT])
    return scene


@cause("GUEST_REFUSED", "tcp", words="Nothing listens")
def _no_tls_port(make: Any, stack: contextlib.ExitStack) -> Scene:
    scene = over_tls(make(), stack)
    stack.close()
    return scene


@cause("GUEST_SILENT", "tls")
def _silent_port(make: Any, stack: contextlib.ExitStack) -> Scene:
    return impatient(over_tls(make(), stack, asleep, raw=True))


@cause("TLS_PROTOCOL", "tls", "The server at the engine's port does not speak TLS.")
def _plain_http(make: Any, stack: contextlib.ExitStack) -> Scene:
    return over_tls(make(), stack, saying(b"HTTP/1.0 400 Bad Request\r\n\r\n"), raw=True)


@cause("ADDRESS_CONFLICT", "identity", words="'other'")
def _two_at_one_address_over_tls(make: Any, stack: contextlib.ExitStack) -> Scene:
    """A certificate that names no VM does not tell either."""
    scene = over_tls(make(), stack)
    scene.put(PS=None)
    scene.pool.create_vm("other", scene.pool.coordinator, networks={"0/ip": "127.0.0.1"})
    return scene


@cause("TLS_CERTIFICATE_INVALID", "tls", "The engine's certificate has expired, is of another CA, or names another "
                                         "address or VM.",
       "not the CA")
def _another_ca(make: Any, stack: contextlib.ExitStack) -> Scene:
    return over_tls(make(), stack, of=AUTHORITY("another CA"))


@cause("TLS_CERTIFICATE_INVALID", "tls", words="expired on")
def _ended(make: Any, stack: contextlib.ExitStack) -> Scene:
    pair = making.new_server(AUTHORITY().ca, "an engine", ["127.0.0.1"], time.time() - 5 * 365 * 86400.0)
    return over_tls(make(), stack, pair=pair)


@cause("TLS_CLIENT_REFUSED", "login", "The engine refuses the client certificate of this host.")
def _stranger(make: Any, stack: contextlib.ExitStack) -> Scene:
    us, them = AUTHORITY(), AUTHORITY("another CA")
    return over_tls(make(), stack, of=Authority(us.ca, us.server, them.client))


@cause("ENGINE_GARBAGE", "engine")
def _no_engine_over_tls(make: Any, stack: contextlib.ExitStack) -> Scene:
    return over_tls(make(), stack, saying(b"220 mail.example ESMTP\r\n"))


@cause("ENGINE_TIMEOUT", "containers")
def _hanging_list_over_tls(make: Any, stack: contextlib.ExitStack) -> Scene:
    return impatient(over_tls(make(), stack, Script({"/containers/json": lambda peer, head: asleep(peer)})))


# --- all works ---------------------------------------------------------------


@cause("VM_NOT_REGISTERED", "registered", "Everything works, but container management is off.")
def _off(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(MONITOR="False")
    return scene


@cause("NOT_PUBLISHED", "published", "Everything works, but no monitor runs on the VM's host. A list that exists may "
                                     "be old.")
def _no_monitor(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.daemon.close()  # the list that it has published stays
    return scene


@cause("NOT_PUBLISHED", "published", words="is not published")
def _monitor_without_a_list(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(PS=None)
    return scene


# --- another user than ours --------------------------------------------------


def visitor(scene: Scene, stack: contextlib.ExitStack, options: str = "", expired: bool = False,
            shell: str = "/bin/sh", run: str = "") -> Scene:
    """The VM's sshd lets in a user who is not root, and whom only it knows of.

    :param run: a directory that is /run for it.
    """
    need(os.geteuid() == 0 and shutil.which("unshare"), "root, to log in as somebody else")
    place = f"{scene.directory}/v"
    os.mkdir(place)
    for name, line in (("passwd", f"visitor:x:54321:54321::/:{shell}\n"),
                       ("shadow", f"visitor:*:19000:0:99999:7::{'19001' if expired else ''}:\n")):
        with open(f"/etc/{name}") as source, open(f"{place}/{name}", "w") as copy:
            copy.write(source.read() + line)
    # The way down to the socket is open to everybody, as in a guest.
    path = scene.guest.engine_socket
    while path != tempfile.gettempdir():
        path = os.path.dirname(path)
        os.chmod(path, 0o755)
    mounts = " && ".join([f"mount --bind {place}/{name} /etc/{name}" for name in ("passwd", "shadow")]
                         + ([f"mount --bind {run} /run"] if run else []))
    sshd = Sshd(place, scene.pair.public, options, before=("unshare", "--mount", "sh", "-c", mounts + ' && exec "$@"',
                                                           "sh"))
    stack.enter_context(sshd)
    scene.address("127.0.0.1", sshd.port)
    scene.put(USERNAME="visitor")
    return scene
