"""The ways in which a VM is broken: each is set up for real, and has a cause of its own. The README has them all."""

import contextlib
import functools
import os
import shutil
import socket
import tempfile
import time
from typing import Any, Callable, Dict, List, NamedTuple

from tests.diagnose.conftest import Scene
from tests.engine import tls_peers
from tests.engine.peers import Script, Serve, Server, Sshd, http_answer
from tests.engine.tls_peers import Authority
from tests.need import need, need_program
from xscontainer import errors, keys
from xscontainer.certificates import making
from xscontainer.xapi.session import Session

Arrange = Callable[..., Scene]  # (make_scene, stack) -> Scene


class Cause(NamedTuple):
    """:ivar what: for the README. :ivar step: which fails. :ivar words: in the message, among others."""

    code: str
    what: str
    step: str
    words: str
    arrange: Arrange


CAUSES: List[Cause] = []


def cause(code: str, step: str, what: str = "", words: str = "") -> "Callable[[Arrange], Arrange]":
    """:param what: "" for one more way into a cause that the README names already."""
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
    """Where something hangs, it is not waited for as long as it may."""
    scene.tune("ssh", connect_timeout=1.0, banner_timeout=1.0, auth_timeout=1.0)
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


@cause("VM_NOT_RUNNING", "power", "it is halted, suspended or paused")
def _halted(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.pool.set_field("VM", scene.ref, "power_state", "Halted")
    scene.pool.set_field("VM", scene.ref, "resident_on", "OpaqueRef:NULL")
    return scene


@cause("ARGUMENT_INVALID", "vm", "it is a template or a snapshot, or one of its `xscontainer-` keys holds nonsense",
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


@cause("MODE_UNSUPPORTED", "settings", "`xscontainer-mode` is neither `ssh` nor `tls`", "telnet")
def _mode(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(MODE="telnet")
    return scene


@cause("ADDRESS_UNKNOWN", "address", "its guest tools report no address, and none is set")
def _nowhere(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.pool.set_networks(scene.ref, {})
    return scene


@cause("ADDRESS_REFUSED", "address", "it has only addresses that may not be used: a host's, loopback, multicast",
       "224.0.0.1")
def _forbidden_address(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.pool.set_networks(scene.ref, {"0/ip": scene.pool.coordinator.address, "1/ip": "224.0.0.1"})
    return scene


@cause("NAME_UNRESOLVED", "address", "the name in `xscontainer-address` has no address", "no-such-vm.invalid")
def _unknown_name(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(ADDRESS="no-such-vm.invalid")
    return scene


# --- the network -------------------------------------------------------------


@cause("GUEST_REFUSED", "tcp", "nothing listens on the port: sshd is stopped, or elsewhere", "Nothing listens")
def _no_sshd(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.guest.stop()
    return scene


@cause("GUEST_FILTERED", "tcp", "no answer at all: a firewall drops it, the address is wrong, the network is down")
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


@cause("GUEST_SILENT", "ssh", "something takes the connection and says nothing: the VM hangs")
def _silent(make: Any, stack: contextlib.ExitStack) -> Scene:
    return impatient(serving(make(), stack, asleep))


@cause("GUEST_SILENT", "ssh", words="closed the connection")
def _hangs_up(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.guest.misbehave("close")
    return scene


@cause("GUEST_NOT_SSH", "ssh", "another server has the port", "HTTP/1.1 400")
def _http(make: Any, stack: contextlib.ExitStack) -> Scene:
    return serving(make(), stack, saying(b"HTTP/1.1 400 Bad Request\r\n\r\n\x1b[2J", wait=False))


# --- SSH ---------------------------------------------------------------------


@cause("SSH_INCOMPATIBLE", "ssh", "its sshd has no algorithm in common with us")
def _strange_algorithms(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"KexAlgorithms": "sntrup761x25519-sha512@openssh.com"})
    return scene


@cause("SSH_INCOMPATIBLE", "ssh", words="1.5")
def _old_protocol(make: Any, stack: contextlib.ExitStack) -> Scene:
    return serving(make(), stack, saying(b"SSH-1.5-old\r\n", wait=False))


@cause("HOST_KEY_CHANGED", "hostkey", "it shows another host key than the pinned one: reinstalled, or not the VM")
def _another_host_key(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(HOST_KEY=scene.guest.host_key_base64, OWNER=scene.pool.vm(scene.ref)["uuid"])
    scene.guest.rotate_host_key()
    return scene


@cause("HOST_KEY_UNREADABLE", "hostkey", "`xscontainer-sshhostkey` holds no host key")
def _no_host_key(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(HOST_KEY="none of your business")
    return scene


@cause("KEY_PAIR_INVALID", "key", "the pool's own SSH key is gone or damaged, or there is none yet")
def _no_pool_key(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    (pool_ref,) = scene.pool.records("pool")
    scene.pool.set_key(pool_ref, keys.PRIVATE_SECRET, "a4b3c2d1-0000-4000-8000-000000000000", cls="pool")
    return scene


@cause("KEY_NOT_ACCEPTED", "login", "the user is unknown, or has not the pool's key in `authorized_keys`, "
                                    "or may not log in at all: sshd does not tell which")
def _not_prepared(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.guest.revoke_all()
    return scene


@cause("KEY_NOT_ACCEPTED", "login", words="may not log in at all")
def _not_anybody(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"DenyUsers": "*"})
    return scene


@cause("USER_WRONG", "login", "the key lets another user in: the one of the settings, `core` or `root`", "nobody-here")
def _wrong_user(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.tune("ssh", user=scene.guest.user)
    scene.put(USERNAME="nobody-here")
    return scene


@cause("PUBLIC_KEY_OFF", "login", "its sshd takes no keys at all", "password")
def _no_public_keys(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"PubkeyAuthentication": "no", "PasswordAuthentication": "yes"})
    return scene


@cause("LOGIN_NEEDS_MORE", "login", "it takes the key and wants a password, too")
def _two_factors(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"AuthenticationMethods": "publickey,password", "PasswordAuthentication": "yes"})
    return scene


@cause("LOGIN_ENDED", "login", "it ends the connection during the login: an account that has expired or is locked "
                               "(PAM), `MaxAuthTries 1`")
def _one_try(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"MaxAuthTries": "1"})
    scene.guest.revoke_all()
    return scene


@cause("LOGIN_ENDED", "login")
def _expired(make: Any, stack: contextlib.ExitStack) -> Scene:
    return visitor(make(), stack, "UsePAM yes", expired=True)


# --- from sshd to the engine -------------------------------------------------


@cause("FORWARDING_REFUSED", "socket", "its sshd forwards nothing to the socket, and no program there does instead")
def _no_forwarding(make: Any, _stack: Any) -> Scene:
    scene: Scene = make(options={"AllowStreamLocalForwarding": "no"}, tools=("env", "ls", "test", "grep", "sh"))
    return scene


@cause("ENGINE_SOCKET_ABSENT", "socket", "no engine is installed, or its socket is elsewhere", "docker.sock")
def _no_socket(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.engine.stop()
    return scene


@cause("ENGINE_STOPPED", "socket", "the socket is there, and nobody listens on it")
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


@cause("ENGINE_SOCKET_ABSENT", "socket", words="may not even look at /run/podman")
def _podman_of_root(make: Any, stack: contextlib.ExitStack) -> Scene:
    return engines(make(), stack, podman=True)


@cause("ENGINE_FORBIDDEN", "socket", words="/var/run/docker.sock")
def _forbidden_beside_podman(make: Any, stack: contextlib.ExitStack) -> Scene:
    return engines(make(), stack, 0o660, podman=True)


@cause("ENGINE_FORBIDDEN", "socket", "the user may not open the socket: not in the group `docker`")
def _not_in_group(make: Any, stack: contextlib.ExitStack) -> Scene:
    scene = visitor(make(), stack)
    os.chmod(scene.guest.engine_socket, 0o660)
    return scene


@cause("FORWARDING_REFUSED", "socket", words="not available")
def _no_shell(make: Any, stack: contextlib.ExitStack) -> Scene:
    return visitor(make(), stack, "AllowStreamLocalForwarding no", shell=need_program("nologin", "login"))


# --- the engine --------------------------------------------------------------


@cause("ENGINE_TIMEOUT", "engine", "the engine hangs, or takes too long")
def _hanging_engine(make: Any, stack: contextlib.ExitStack) -> Scene:
    return impatient(on_socket(make, stack, asleep))


@cause("ENGINE_TIMEOUT", "containers")
def _hanging_list(make: Any, stack: contextlib.ExitStack) -> Scene:
    return impatient(on_socket(make, stack, Script({"/containers/json": lambda peer, head: asleep(peer)})))


@cause("ENGINE_GARBAGE", "engine", "what listens on the socket is no container engine", "")
def _no_engine(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, saying(b"220 mail.example \x1b]0;x\x07 ESMTP\r\n"))


@cause("ENGINE_GARBAGE", "containers")
def _no_list(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, Script({"/containers/json": http_answer(b'{"a": 1}')}))


@cause("ENGINE_LOST", "engine", "the engine hangs up without an answer")
def _engine_that_hangs_up(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, lambda peer: peer.recv(1000))


@cause("ENGINE_TOO_OLD", "engine", "the engine is older than Docker 1.12", "1.18")
def _old_engine(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, Script({"/version": http_answer(b'{"ApiVersion": "1.18", "Version": "1.6"}')}))


@cause("ENGINE_REFUSED", "containers", "the engine answers with an error, such as one of an authorisation plugin",
       "not for you")
def _refusing_engine(make: Any, stack: contextlib.ExitStack) -> Scene:
    return on_socket(make, stack, Script({
        "/containers/json": http_answer(b'{"message": "authorization denied: not for you"}', "403 Forbidden")}))


@cause("ENGINE_TOO_MUCH", "containers", "the list is longer than `max_response_bytes`")
def _too_much(make: Any, stack: contextlib.ExitStack) -> Scene:
    scene = on_socket(make, stack, Script({"/containers/json": http_answer(b"[" + b" " * 400000 + b"]")}))
    scene.tune("engine", max_response_bytes=65536)
    return scene


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
    serve = serve or Script({"/containers/json": http_answer(b"[]")})
    return serving(scene, stack, serve if raw else tls_peers.over_tls(
        tls_peers.server_context(scene.directory, AUTHORITY(), **more), serve))


@functools.lru_cache(maxsize=None)
def AUTHORITY(label: str = "a CA") -> Authority:
    return Authority.new(label)


@cause("TLS_CREDENTIALS_MISSING", "certificates", "mode `tls`, and no certificate to connect with", keys.TLS_CA_CERT)
def _no_certificates(make: Any, stack: contextlib.ExitStack) -> Scene:
    scene = over_tls(make(), stack)
    scene.put(TLS_CA_CERT=None)
    return scene


@cause("TLS_CREDENTIALS_INVALID", "certificates", "what its secrets hold is no certificate or key")
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


@cause("TLS_PROTOCOL", "tls", "what answers at the engine's port speaks no TLS")
def _plain_http(make: Any, stack: contextlib.ExitStack) -> Scene:
    return over_tls(make(), stack, saying(b"HTTP/1.0 400 Bad Request\r\n\r\n"), raw=True)


@cause("TLS_CERTIFICATE_INVALID", "tls", "the engine's certificate has ended, is of another CA, or made out to another "
                                         "address or VM", "not the CA")
def _another_ca(make: Any, stack: contextlib.ExitStack) -> Scene:
    return over_tls(make(), stack, of=AUTHORITY("another CA"))


@cause("TLS_CERTIFICATE_INVALID", "tls", words="ended on")
def _ended(make: Any, stack: contextlib.ExitStack) -> Scene:
    pair = making.new_server(AUTHORITY().ca, "an engine", ["127.0.0.1"], time.time() - 5 * 365 * 86400.0)
    return over_tls(make(), stack, pair=pair)


@cause("TLS_CLIENT_REFUSED", "login", "the engine refuses our certificate")
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


@cause("VM_NOT_REGISTERED", "registered", "all works, but container management is off")
def _off(make: Any, _stack: Any) -> Scene:
    scene: Scene = make()
    scene.put(MONITOR="False")
    return scene


@cause("NOT_PUBLISHED", "published", "all works, but nobody publishes: no monitor runs on its host; a list "
                                     "that is there is of before")
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
