"""``xscontainer --server``: the command on an admin's own machine."""

import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from tests.cli.server_scene import ROOT, SECRET, Scene, scene
from tests.plugin.verbs import made as verb_of
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one pool serves the whole module
from tests.waiting import until
from xscontainer import keys
from xscontainer.cli import image, plugin_call, program
from xscontainer.core.arguments import any_text, uuid
from xscontainer.core.verb import ENGINE_HOST, READING, Argument
from xscontainer.settings import Settings
from xscontainer.simulator.xapi import ROOT_PASSWORD
from xscontainer.xapi import remote
from xscontainer.xapi.address import parse
from xscontainer.xapi.https import HttpsServer
from xscontainer.xapi.remote import ORIGINATOR
from xscontainer.xapi.trust import ByAuthority


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("s")) as made:
        made.add_vm("here", "nginx", host=0)
        made.add_vm("there", "redis", host=1)
        made.pool.add_storage()
        yield made


# --- where -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
def test_the_pool_is_listed_from_another_machine(made: Scene, before: bool) -> None:
    options = made.as_root()
    answer = made.run(*options, "list") if before else made.run("list", *options)
    assert (answer.code, answer.err) == (0, "") and "nginx" in answer.out and "redis" in answer.out
    assert made.pool.sessions.count(ORIGINATOR) == 0


def test_a_member_leads_to_the_coordinator_and_the_command_says_so(made: Scene) -> None:
    answer = made.run(*made.as_root(host=1), "list")
    assert answer.code == 0 and "redis" in answer.out
    assert made.server(1) in answer.err and f"Going on at {made.server(0)}" in answer.err


def test_the_environment_names_server_user_and_ca_file(made: Scene) -> None:
    answer = made.run("--password-file", made.password, "list", XSCONTAINER_SERVER=made.server(),
                      XSCONTAINER_USER="root", XSCONTAINER_CA_FILE=str(made.ca_file))
    assert (answer.code, answer.err) == (0, "") and "nginx" in answer.out
    answer = made.run("--password-file", made.password, "list", XSCONTAINER_SERVER=made.server(),
                      XSCONTAINER_USER="nobody", XSCONTAINER_CA_FILE=str(made.ca_file))
    assert answer.code == 6 and "'nobody'" in answer.err


def test_an_empty_server_means_this_host(made: Scene) -> None:
    answer = made.run("--server", "", "list", XSCONTAINER_SERVER=made.server())
    assert answer.code == 5 and "/var/lib/xcp/xapi does not exist" in answer.err and "--server HOST" in answer.err


@pytest.mark.parametrize("server, code, said", [
    ("no such address", 2, "is not the address of a server"), ("127.0.0.1:1", 5, "refused"),
    ("host.invalid", 5, "host.invalid:443")])
def test_a_server_that_cannot_be_reached_is_reported(made: Scene, server: str, code: int, said: str) -> None:
    answer = made.run("--server", server, "--ca-file", str(made.ca_file), "--password-file", made.password, "list")
    assert answer.code == code and said in answer.err


# --- its certificate -------------------------------------------------------------------------------


def test_a_fingerprint_replaces_the_question(made: Scene) -> None:
    options = ("--server", made.server(), "--password-file", made.password, "--fingerprint")
    assert made.run(*options, made.fingerprint().lower().replace(":", ""), "list").code == 0
    answer = made.run(*options, made.fingerprint(1), "list")
    assert answer.code == 5 and made.fingerprint() in answer.err
    assert made.run(*options, "nonsense", "list").code == 2


def test_nothing_is_trusted_without_ca_file_or_confirmation(made: Scene) -> None:
    answer = made.run("--server", made.server(), "--password-file", made.password, "list")
    assert answer.code == 2 and made.fingerprint() in answer.err and "--fingerprint" in answer.err
    assert not known_servers(made).exists()


def known_servers(made: Scene) -> Path:
    return made.home / "config" / "xscontainer" / "known_servers"


def test_a_person_confirms_a_certificate_once_and_types_the_password(made: Scene) -> None:
    replies = [("[y/N]", "y"), (f"Password of root at {made.server()}", ROOT_PASSWORD)]
    path = known_servers(made)
    try:
        code, shown = made.at_a_terminal("--server", made.server(), "list", "--json", replies=replies)
        assert code == 0 and "nginx" in shown and made.fingerprint() in shown and ROOT_PASSWORD not in shown
        assert path.read_text() == f"{made.server()} {made.fingerprint()}\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        answer = made.run("--server", made.server(), "--password-file", made.password, "list")
        assert (answer.code, answer.err) == (0, "")
        path.write_text(f"{made.server()} {made.fingerprint(1)}\n")
        answer = made.run("--server", made.server(), "--password-file", made.password, "list")
        assert answer.code == 5 and made.fingerprint() in answer.err and made.fingerprint(1) in answer.err
    finally:
        path.unlink()


def test_a_person_who_does_not_confirm_is_not_asked_for_the_password(made: Scene) -> None:
    code, shown = made.at_a_terminal("--server", made.server(), "list", replies=[("[y/N]", "")])
    assert code == 5 and "was not confirmed" in shown and "Password" not in shown
    assert not known_servers(made).exists()


@pytest.mark.parametrize("more", [("--fingerprint", "ab" * 32), ("--password-fd", "0")])
def test_options_that_contradict_each_other_are_refused(made: Scene, more: Any) -> None:
    answer = made.run(*made.as_root(), *more, "list")
    assert answer.code == 2 and "exclude each other" in answer.err


# --- the password ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o602, 0o644])
def test_a_password_file_that_others_may_use_is_refused(made: Scene, mode: int) -> None:
    path = made.secret("open-password", ROOT_PASSWORD, mode)
    answer = made.run("--server", made.server(), "--ca-file", str(made.ca_file), "--password-file", path, "list")
    assert answer.code == 2 and f"{mode:o}" in answer.err and f"chmod 600 {path}" in answer.err


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_a_password_file_that_is_none_is_refused(made: Scene, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p"
    if kind == "directory":
        path.mkdir(0o700)
    if kind == "fifo":
        os.mkfifo(str(path), 0o600)
    answer = made.run("--server", made.server(), "--ca-file", str(made.ca_file), "--password-file", str(path), "list")
    assert answer.code == 2 and str(path) in answer.err


def test_a_password_is_read_from_a_file_descriptor(made: Scene) -> None:
    options = ("--server", made.server(), "--ca-file", str(made.ca_file))
    with open(made.password) as file:
        answer = made.run(*options, "--password-fd", str(file.fileno()), "list", pass_fds=(file.fileno(),))
    assert (answer.code, answer.err) == (0, "")
    with open(made.password) as file:
        assert made.run(*options, "--password-fd", "0", "list", stdin=file).code == 0
    assert made.run(*options, "--password-fd", "77", "list").code == 2


def test_a_password_is_not_asked_for_without_a_terminal(made: Scene) -> None:
    answer = made.run("--server", made.server(), "--ca-file", str(made.ca_file), "list",
                      XSCONTAINER_PASSWORD=ROOT_PASSWORD)
    assert answer.code == 2 and "--password-file" in answer.err


def test_a_wrong_password_is_not_permitted_and_not_shown(made: Scene) -> None:
    path = made.secret("wrong-password", SECRET)
    answer = made.run("--server", made.server(), "--ca-file", str(made.ca_file), "--password-file", path, "list")
    assert answer.code == 6 and "refused the login of the user 'root'" in answer.err
    assert SECRET not in answer.out + answer.err


def test_a_command_that_logs_in_again_asks_nothing(made: Scene) -> None:
    with open(made.password) as file:
        options = program.parser().parse_args([
            "--server", made.server(1), "--ca-file", str(made.ca_file), "--password-fd", str(file.fileno()), "ps"])
        for _ in range(2):
            plugin_call.login(options, Settings()).logout()


def test_no_option_takes_a_password_itself() -> None:
    options = [action for action in program.parser()._actions if "password" in " ".join(action.option_strings)]
    assert {str(action.metavar) for action in options} == {"N", "FILE"}


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_logs_out(made: Scene, number: int, code: int) -> None:
    made.pool.faults("host.get_all_records", "delay", seconds=2.0, times=1)
    process = subprocess.Popen(made.command(*made.as_root(), "list"), cwd=str(ROOT), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=made.environment())
    try:
        until(lambda: made.pool.faults.left == 0)  # the client waits for the answer to its second call
        for name in ("cmdline", "environ"):
            assert ROOT_PASSWORD.encode() not in Path(f"/proc/{process.pid}/{name}").read_bytes()
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
        made.pool.faults.clear()
    assert (process.returncode, err) == (code, b"")
    assert made.pool.sessions.count(ORIGINATOR) == 0


def test_containers_are_watched_through_a_restart_with_a_password_that_is_read_once(made: Scene) -> None:
    with open(made.password) as file:
        process = subprocess.Popen(
            made.command("--server", made.server(), "--ca-file", str(made.ca_file), "--password-fd",
                         str(file.fileno()), "ps", "--watch", "--format", "ndjson", "--name", "redis", "--name",
                         "watched"),
            cwd=str(ROOT), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=made.environment(), pass_fds=(file.fileno(),))
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["name"] == "redis"
        made.pool.hosts[0].restart()
        made.add_vm("new-watched", "watched")
        assert json.loads(process.stdout.readline())["vm"]["name"] == "new-watched"
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143


# --- functions and roles ---------------------------------------------------------------------------


@pytest.mark.parametrize("vm", ["here", "there"])
def test_functions_are_called_at_any_host(made: Scene, vm: str) -> None:
    uuid = made.add_vm(f"new-{vm}", host=0 if vm == "here" else 1)
    assert made.run(*made.as_root(), "deregister", uuid).code == 0
    assert made.other_config(uuid)[keys.MONITOR] == "False"
    assert made.run(*made.as_root(), "register", uuid).code == 0
    assert made.other_config(uuid)[keys.MONITOR] == "True"


def test_one_login_serves_several_vms(made: Scene) -> None:
    uuids = [made.add_vm(f"many{number}", host=number % 2) for number in range(5)]
    made.pool.stats.reset()
    assert made.run(*made.as_root(), "deregister", *uuids).code == 0
    assert made.pool.stats.calls("session.login_with_password", ORIGINATOR) <= 1
    assert made.pool.sessions.count(ORIGINATOR) == 0


def refusals() -> "Iterator[List[Any]]":
    for vm in ("here/nginx", "there/redis"):
        # The function is called, and finds no address in the VM.
        yield ["pool-admin", ("start", vm), 5, "ADDRESS_UNKNOWN"]
        yield ["vm-operator", ("start", vm), 5, "ADDRESS_UNKNOWN"]
        yield ["read-only", ("start", vm), 6, "requires the role vm-operator"]
    yield ["read-only", ("list",), 0, ""]
    yield ["vm-operator", ("register", "there"), 0, ""]
    yield ["vm-operator", ("unprepare", "here"), 6, "requires the role vm-admin"]
    # The plugin on a member cannot tell who calls.
    yield ["vm-admin", ("unprepare", "here"), 1, "KEY_PAIR_INVALID"]
    yield ["vm-admin", ("unprepare", "there"), 6, "pool-admin"]
    yield ["pool-admin", ("unprepare", "there"), 1, "KEY_PAIR_INVALID"]
    yield ["pool-operator", ("key-rotate", "--status"), 6, "pool-admin"]
    # These commands call their functions as tasks.
    yield ["pool-admin", ("key-rotate", "--status"), 0, ""]
    yield ["vm-admin", ("drive", "write", "here", os.devnull), 2, "The configuration is empty"]
    yield ["vm-operator", ("drive", "write", "here", __file__), 6, "requires the role vm-admin"]


@pytest.mark.parametrize("role, words, code, said", list(refusals()))
def test_roles_decide_what_a_user_may_do(made: Scene, role: str, words: Any, code: int, said: str) -> None:
    answer = made.run(*made.as_user(role), *words)
    assert answer.code == code and said in answer.err, answer


def test_users_take_turns_with_calls_through_one_vm(made: Scene) -> None:
    options = made.as_user("vm-operator")
    processes = [subprocess.Popen(made.command(*options, "start", "there/redis"), cwd=str(ROOT), stderr=subprocess.PIPE,
                                  stdin=subprocess.DEVNULL, env=made.environment()) for _ in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 5 and b"ADDRESS_UNKNOWN" in err, err


def test_a_call_that_waits_leaves_turns_to_others(made: Scene) -> None:
    """Through a VM only one call at a time is possible, so its wait is short. A pool-admin's call is not shortened."""
    rows = (Argument("vmuuid", uuid), Argument("wait", any_text))
    verb = verb_of("echo_wait", lambda context, vmuuid, wait: f"True{wait}", rows=rows, lane=READING, place=ENGINE_HOST)
    for host in made.plugins.hosts:
        host.verbs[verb.name] = verb
    for role, waited in (("vm-operator", plugin_call.SHORT_WAIT), ("pool-admin", "15")):
        made.as_user(role)
        server = HttpsServer(parse(made.server()), ByAuthority(str(made.ca_file)))
        session = remote.login(server, role, SECRET, Settings().xapi, lambda *addresses: None)
        try:
            made.pool.stats.reset()
            for _ in range(2):
                assert plugin_call.call(session, Settings(), verb, vmuuid=made.vm("there"), wait="15") == waited
            assert made.pool.stats.calls(plugin_call.BY_HOST, ORIGINATOR) == (1 if role == "vm-operator" else 2)
        finally:
            session.logout()


def test_a_user_who_may_only_read_follows_the_lists(made: Scene) -> None:
    process = subprocess.Popen(
        made.command(*made.as_user("read-only"), "ps", "--watch", "--format", "ndjson"), cwd=str(ROOT),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=made.environment())
    assert process.stdout is not None
    try:
        assert any(b'"nginx"' in line for line in process.stdout)
        made.add_vm("later", "mariadb")
        assert any(b'"mariadb"' in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.communicate()
    assert made.pool.sessions.count(ORIGINATOR) == 0


# --- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sr", ["Shared storage", "Local storage on host1", "Local storage on host2"])
def test_an_image_is_uploaded_to_a_host_with_the_storage(made: Scene, tmp_path: Path, sr: str) -> None:
    content = os.urandom(1024 * 1024)
    (tmp_path / "image").write_bytes(content)
    (sr_uuid,) = [record["uuid"] for record in made.pool.records("SR").values() if record["name_label"] == sr]
    server = HttpsServer(parse(made.server()), ByAuthority(str(made.ca_file)))
    session = remote.login(server, "root", ROOT_PASSWORD, Settings().xapi, lambda *addresses: None)
    try:
        with image.given(session, Settings(), str(tmp_path / "image"), sr_uuid) as uuid:
            vdi = session.xenapi.VDI.get_by_uuid(uuid)
            assert session.xenapi.SR.get_uuid(session.xenapi.VDI.get_SR(vdi)) == sr_uuid
            with open(made.pool.disk_path(vdi), "rb") as disk:
                assert disk.read(len(content)) == content
        assert vdi not in made.pool.records("VDI")
    finally:
        session.logout()


# --- what needs a host -----------------------------------------------------------------------------


def test_the_ssh_agent_is_used_only_on_a_host(made: Scene) -> None:
    answer = made.run(*made.as_root(), "prepare", "here", "--agent")
    assert answer.code == 2 and "--agent works only on a host of the pool" in answer.err


def test_a_wipe_names_its_host(made: Scene) -> None:
    uuid = made.add_vm("wiped", "one", host=1)
    answer = made.run(*made.as_root(), "wipe")
    assert answer.code == 2 and "--host" in answer.err
    assert made.run(*made.as_root(), "wipe", "--host", "host1").code == 0 and keys.PS in made.other_config(uuid)
    assert made.run(*made.as_root(), "wipe", "--host", "host2").code == 0 and keys.PS not in made.other_config(uuid)
