"""The command xscontainer: what it lists, for people and for programs, whatever guests have written."""

import argparse
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer import __version__, cli, keys, xmlform
from xscontainer.cli import columns, inventory, listing
from xscontainer.cli.columns import Note, Row
from xscontainer.errors import ArgumentError, GuestSilent
from xscontainer.model import EngineVersion, containers_from_api
from xscontainer.simulator.xapi import Pool
from xscontainer.vmrecord import VMRecord

ROOT = Path(__file__).resolve().parent.parent
VERSION = xmlform.docker_version(EngineVersion.from_api({"Version": "20.10.24", "ApiVersion": "1.41"}))


def docker_ps(*entries: Dict[str, Any]) -> str:
    return xmlform.docker_ps(containers_from_api(list(entries)).containers).text


def container(name: str, **fields: Any) -> Dict[str, Any]:
    given = {"Id": name.encode().hex().ljust(64, "0")[:64], "Names": ["/" + name], "Image": "busybox", "Created": 1,
             "Command": "sleep", "State": "running", "Status": "Up 1 second", "Ports": []}
    return dict(given, **fields)


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Place:
    """A pool, and the command on one of its hosts."""

    def __init__(self, pool: Pool, directory: Path) -> None:
        self.pool = pool
        self.directory = directory

    def config(self, host: int = 0, more: str = "") -> str:
        path = self.directory / f"host{host}.conf"
        path.write_text(f"[xapi]\nsocket = {self.pool.hosts[host].socket_path}\nlogin_timeout = 1\n{more}")
        return str(path)

    def command(self, *arguments: str, host: int = 0) -> List[str]:
        return [sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config", self.config(host), *arguments]

    def run(self, *arguments: str, host: int = 0, **environment: str) -> Answer:
        done = subprocess.run(
            self.command(*arguments, host=host), cwd=str(ROOT), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=60, env=dict(os.environ, PYTHONIOENCODING="utf-8", **environment))
        return Answer(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))

    def listed(self, *arguments: str) -> Dict[str, Any]:
        answer = self.run("list", "--json", *arguments)
        assert (answer.code, answer.err) == (0, "")
        found: Dict[str, Any] = json.loads(answer.out)["pool"]
        return found


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("c")
    with Pool(str(directory / "p"), hosts=2, tcp=False) as pool:
        yield Place(pool, directory)


@pytest.fixture
def classic(place: Place) -> str:
    """The reference of a VM with a list, on the second host."""
    listed = docker_ps(
        container("hadoop", Image="hadoop:3", State="running", Status="Up 3 hours (healthy)", Created=400),
        container("tomcat", Image="tomcat:10", State="paused", Status="Up 3 hours (Paused)", Created=300),
        container("mysql", Image="mysql:8", State="exited", Status="Exited (137) 1 hour ago", Created=200),
        container("apache", Image="httpd:2", State="created", Status="Created", Created=100))
    return place.pool.create_vm("classic", host=place.pool.hosts[1], other_config={
        keys.MONITOR: "True", keys.PS: listed, keys.VERSION: VERSION})


def test_the_table_shows_pool_host_vm_and_container(place: Place, classic: str) -> None:
    place.pool.create_vm("waiting", host=place.pool.hosts[0], other_config={
        keys.MONITOR: "True", keys.STATUS: json.dumps({"code": "GUEST_UNREACHABLE", "message": "Nothing answers."})})
    answer = place.run("list")
    assert (answer.code, answer.err) == (0, "")
    lines = [re.split(r" {2,}", line.strip()) for line in answer.out.splitlines()]
    (pool,) = place.pool.records("pool").values()
    assert lines == [
        ["POOL / HOST / VM / CONTAINER", "STATUS", "IMAGE", "ACTIONS", "REMARK"],
        [pool["name_label"] or pool["uuid"]],
        ["host1", "coordinator"],
        ["waiting", "Running"],
        ["GUEST_UNREACHABLE: Nothing answers."],
        ["host2"],
        ["classic", "Running", "Engine 20.10.24"],
        ["hadoop", "Up", "hadoop:3", "stop restart pause", "healthy"],
        ["tomcat", "Up (Paused)", "tomcat:10", "unpause stop restart"],
        ["mysql", "Exited (137)", "mysql:8", "start restart", "exit code 137: killed"],
        ["apache", "Created", "httpd:2", "start"],
    ]
    indents = [len(line) - len(line.lstrip()) for line in answer.out.splitlines()]
    assert indents == [0, 0, 2, 4, 6, 2, 4, 6, 6, 6, 6]


def test_json_says_the_same_to_programs(place: Place, classic: str) -> None:
    found = place.listed()
    coordinator, member = found["hosts"]
    assert (coordinator["coordinator"], member["coordinator"]) == (True, False)
    assert coordinator["vms"] == [] and found["vms_on_no_host"] == []
    (vm,) = member["vms"]
    assert vm["uuid"] == place.pool.vm(classic)["uuid"]
    assert (vm["power_state"], vm["monitored"], vm["problem"], vm["left_out"]) == ("Running", True, None, 0)
    assert vm["engine"] == {"version": "20.10.24", "api_version": "1.41"}
    published = xmlform.read_docker_ps(place.pool.other_config(classic)[keys.PS]).containers
    assert vm["containers"] == json.loads(json.dumps(xmlform.as_json(published)))
    assert [one["actions"] for one in vm["containers"]][:2] == [["stop", "restart", "pause"],
                                                               ["unpause", "stop", "restart"]]


def test_a_member_shows_the_same_as_the_coordinator(place: Place, classic: str) -> None:
    assert place.run("list", host=1) == place.run("list", host=0)


def test_only_vms_with_container_management_are_listed(place: Place, classic: str) -> None:
    pool = place.pool
    pool.create_vm("plain", host=pool.hosts[0])
    pool.create_vm("template", template=True, power_state="Halted", other_config={keys.MONITOR: "True"})
    pool.create_vm("off", power_state="Halted", other_config={keys.MONITOR: "False"})
    pool.create_vm("halted", power_state="Halted", other_config={keys.MONITOR: "True"})
    found = place.listed()
    assert [vm["name"] for host in found["hosts"] for vm in host["vms"]] == ["classic"]
    halted, off = found["vms_on_no_host"]
    assert (halted["name"], halted["power_state"], halted["problem"]) == ("halted", "Halted", None)
    assert (off["name"], off["monitored"], off["problem"]["code"]) == ("off", False, "NOT_REGISTERED")
    assert "(on no host)" in place.run("list").out


def test_an_empty_pool_says_so(place: Place) -> None:
    assert "No VM here is registered" in place.run("list").out


def test_one_host_or_one_vm_is_chosen_by_name_or_uuid(place: Place, classic: str) -> None:
    pool = place.pool
    plain = pool.create_vm("plain", host=pool.hosts[0])
    other = pool.create_vm("classic", host=pool.hosts[0], other_config={keys.MONITOR: "True"})

    def uuids(*arguments: str) -> List[str]:
        found = place.listed(*arguments)
        return [vm["uuid"] for host in found["hosts"] for vm in host["vms"]] + [
            vm["uuid"] for vm in found["vms_on_no_host"]]

    first, second, third = (pool.vm(ref)["uuid"] for ref in (classic, other, plain))
    assert uuids("--host", "host2") == uuids("--host", pool.hosts[1].uuid.upper()) == [first]
    assert sorted(uuids("--vm", "classic")) == sorted([first, second])
    assert uuids("--vm", first) == uuids("--vm", "classic", "--host", "host2") == [first]
    assert uuids("--vm", "plain") == [third]


@pytest.mark.parametrize("arguments", [
    ("--host", "nobody"), ("--vm", "nobody"), ("--vm", "classic", "--host", "host1")])
def test_what_does_not_exist_is_a_usage_error(place: Place, classic: str, arguments: Sequence[str]) -> None:
    answer = place.run("list", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("xscontainer: ") and "Traceback" not in answer.err


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("list", "--nonsense"), ("list", "--vm")])
def test_a_wrong_call_ends_with_2(place: Place, arguments: Sequence[str]) -> None:
    answer = place.run(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert "usage: xscontainer" in answer.err


def test_unusable_settings_end_with_2(place: Place, capsys: "pytest.CaptureFixture[str]") -> None:
    for arguments in (["--config", str(place.directory / "absent")],
                      ["--config", place.config(more="timeout = never\n")]):
        assert cli.main(arguments + ["list"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("xscontainer: ") and err.count("\n") == 1


@pytest.mark.parametrize("kind, code", [(GuestSilent, 1), (ArgumentError, 2)])
def test_an_error_is_nothing_that_a_terminal_obeys(capsys: "pytest.CaptureFixture[str]", tmp_path: Path, kind: Any,
                                                   code: int) -> None:
    """A guest's own words may be in it."""
    config = tmp_path / "conf"
    config.write_text("")

    def run(*_: object) -> int:
        raise kind("It says:\na\x9b2J\x1b[2J\u202eb" + "x" * 3000 + "end.")

    assert cli.guarded("program", argparse.Namespace(config=str(config), run=run)) == code
    said = capsys.readouterr().err
    assert said.startswith("program: It says: a\ufffd2J\ufffd[2J\ufffdbxxx") and "end." in said
    assert said.count("\n") == 1


def test_the_version_is_told(capsys: "pytest.CaptureFixture[str]") -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, __version__ + "\n")


def test_xapi_away_is_a_sentence_and_1(place: Place) -> None:
    place.pool.coordinator.crash()
    answer = place.run("list")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("xscontainer: XAPI at ") and answer.err.count("\n") == 1


def test_a_member_does_not_wait_for_ever_for_its_coordinator(place: Place) -> None:
    place.pool.set_coordinator_down(True)
    answer = place.run("list", host=1)
    assert (answer.code, answer.out) == (1, "")
    assert "did not answer session.login_with_password" in answer.err


def test_it_logs_out(place: Place, classic: str) -> None:
    before = len(place.pool.records("session"))
    place.run("list")
    place.run("list", "--vm", "nobody")
    assert len(place.pool.records("session")) == before


def test_a_terminal_without_the_letters_gets_question_marks(place: Place) -> None:
    place.pool.create_vm("Größe", host=place.pool.hosts[0], other_config={keys.MONITOR: "True"})
    done = subprocess.run(place.command("list"), cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60, env=dict(os.environ, PYTHONIOENCODING="ascii"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Gr??e" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error(place: Place) -> None:
    for number in range(20):
        place.pool.create_vm(f"vm{number}", host=place.pool.hosts[0], other_config={
            keys.MONITOR: "True", keys.PS: docker_ps(*(container(f"c{n}", Image="i" * 200) for n in range(50)))})
    reader, writer = os.pipe()
    process = subprocess.Popen(place.command("list"), cwd=str(ROOT), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")


def test_a_terminal_s_width_is_kept(place: Place, classic: str) -> None:
    place.pool.create_vm("waiting", host=place.pool.hosts[0], other_config={
        keys.MONITOR: "True", keys.STATUS: json.dumps({"code": "GUEST_UNREACHABLE", "message": "No answer. " * 20})})
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(place.command("list"), cwd=str(ROOT), stdout=theirs, stderr=theirs,
                                   env=dict(os.environ, COLUMNS="60", PYTHONIOENCODING="utf-8"))
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # Linux: the last writer is gone
                break
            if not data:
                break
            shown += data
        assert process.wait(60) == 0
    finally:
        os.close(ours)
    lines = shown.decode("utf-8").splitlines()
    assert max(map(len, lines)) <= 60
    assert any("hadoop" in line and "Up" in line for line in lines)
    assert re.sub(r"\s+", " ", " ".join(lines)).count("No answer.") == 20


def test_starting_it_costs_no_ssh_and_no_docker() -> None:
    code = "import sys, xscontainer.cli; print(sorted({'paramiko', 'docker', 'requests'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=str(ROOT), stdout=subprocess.PIPE,
                          timeout=60, check=True)
    assert done.stdout == b"[]\n"


# --- what others have written ------------------------------------------------

BOMB = ("<!DOCTYPE docker_ps [" + '<!ENTITY a "aaaaaaaaaa">'
        + "".join(f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(8))
        + "]><docker_ps><item><entry><id>&i;</id></entry></item></docker_ps>")
UNREADABLE = {
    "entities": BOMB,
    "outside": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><docker_ps>&x;</docker_ps>',
    "cut": "<docker_ps><item>",
    "no XML": "hello",
    "empty": "",
    "huge": "<docker_ps>" + " " * inventory.MOST_DOCUMENT + "</docker_ps>",
}


def view(**other_config: str) -> inventory.VM:
    return inventory.view(VMRecord.from_snapshot("OpaqueRef:1", {
        "uuid": "5f1e", "name_label": "vm", "power_state": "Running", "other_config": other_config}))


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_list_is_that_vms_problem_alone(place: Place, classic: str, text: str) -> None:
    place.pool.create_vm("bad", host=place.pool.hosts[0], other_config={keys.MONITOR: "True", keys.PS: text})
    coordinator, member = place.listed()["hosts"]
    (bad,) = coordinator["vms"]
    assert bad["problem"]["code"] == "LIST_UNREADABLE" and bad["containers"] == []
    assert len(bad["problem"]["message"]) <= 500 and "root:" not in json.dumps(bad)
    assert len(member["vms"][0]["containers"]) == 4
    assert place.run("list").code == 0


DEEP_AND_WIDE = {
    "deep": "<a>" * 20000 + "</a>" * 20000,
    "deep items": "<docker_ps>" + "<item>" * 20000 + "</item>" * 20000 + "</docker_ps>",
    "wide": "<docker_version>" + "<Version/>" * 20000 + "</docker_version>",
}


@pytest.mark.parametrize("text", DEEP_AND_WIDE.values(), ids=DEEP_AND_WIDE.keys())
def test_deep_and_wide_documents_do_no_harm(text: str) -> None:
    found = view(**{keys.MONITOR: "True", keys.PS: text, keys.VERSION: text, keys.STATUS: text})
    assert found.containers == () and found.engine == ""
    assert found.problem == inventory.Problem(
        "STATUS_UNREADABLE", "xscontainer-status in its other_config cannot be read.")


@pytest.mark.parametrize("status", ["", "[]", "null", "1e999", "[" * 5000, '{"code": 1}', '{"code": "A"}', "{" * 9000],
                         ids=lambda status: status[:12])
def test_any_status_is_shown_or_called_unreadable(status: str) -> None:
    problem = view(**{keys.MONITOR: "True", keys.STATUS: status}).problem
    assert problem is not None
    assert problem.code in ("STATUS_UNREADABLE", "A", "")


@given(st.dictionaries(st.sampled_from([keys.MONITOR, keys.PS, keys.VERSION, keys.STATUS, keys.OWNER]), st.one_of(
    st.text(max_size=80), st.sampled_from([*UNREADABLE.values(), VERSION, "<docker_ps/>", "True", "False"]))))
def test_whatever_other_config_holds_can_be_viewed_and_drawn(other_config: Dict[str, str]) -> None:
    found = view(**other_config)
    pool = inventory.Pool("1", "", (inventory.Host("2", "h", "", True, (found,)),))
    json.dumps(listing.as_json(pool))
    assert control_free(listing.as_table(pool, 100))


def test_a_list_of_the_original_product_is_read() -> None:
    text = ('<?xml version="1.0" ?><docker_ps><item><entry><id>' + "a" * 64 + "</id><names>web</names>"
            "<status>Exited (3) 2 days ago</status><container>aaaaaaaaaa</container><created>1700000000</created>"
            "<image>nginx</image><command>nginx -g</command><ports/></entry></item></docker_ps>")
    (found,) = view(**{keys.MONITOR: "True", keys.PS: text}).containers
    assert (found.name, found.state, found.status, found.actions) == ("web", "exited", "Exited (3)",
                                                                      ("start", "restart"))


def test_a_list_that_a_clone_carried_in_is_not_shown(place: Place, classic: str) -> None:
    place.pool.set_key(classic, keys.OWNER, "11111111-2222-3333-4444-555555555555")
    (vm,) = place.listed("--vm", "classic")["hosts"][0]["vms"]
    assert (vm["containers"], vm["engine"], vm["problem"]["code"]) == ([], None, "CARRIED_IN")


def test_what_was_left_out_is_told() -> None:
    published = xmlform.docker_ps(containers_from_api([container("one")]).containers, left_out=7).text
    found = view(**{keys.MONITOR: "True", keys.PS: published})
    assert found.left_out == 7
    pool = inventory.Pool("1", "pool", (inventory.Host("2", "host", "", True, (found,)),))
    assert "and 7 more" in listing.as_table(pool)


# --- the table ---------------------------------------------------------------

cells = st.text(max_size=30)
lines_of_a_table = st.lists(st.one_of(
    st.builds(Row, st.integers(0, 6), st.lists(cells, min_size=1, max_size=5).map(tuple)),
    st.builds(Note, st.integers(0, 6), st.text(max_size=200))), max_size=8)


def control_free(text: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
                   for character in text if character not in "\n\u200c\u200d")


@given(lines_of_a_table)
def test_nothing_reaches_the_terminal_that_it_obeys(lines: List[columns.Line]) -> None:
    drawn = columns.lay_out(lines)
    assert control_free(drawn)
    assert drawn.count("\n") == len(lines)


@given(lines_of_a_table, st.integers(60, 200))
def test_no_row_is_wider_than_the_terminal(lines: List[columns.Line], most: int) -> None:
    for line in columns.lay_out([line for line in lines if isinstance(line, Row)], most).splitlines():
        assert columns.width(line) <= most


@given(st.lists(st.tuples(cells, cells, cells), min_size=2, max_size=6))
def test_columns_line_up(rows: List[Any]) -> None:
    """With a mark in the last cell, it stands in the same terminal column on every line."""
    marked = [Row(0, (*row[:2], "#" + row[2])) for row in rows]
    wide = columns.lay_out([row._replace(cells=tuple(cell.replace("#", "") for cell in row.cells[:2]) + ("#",))
                            for row in marked])
    assert len({columns.width(line[:line.index("#")]) for line in wide.splitlines()}) == 1


@given(st.text(max_size=40), st.integers(1, 40))
def test_cutting_keeps_to_the_room_and_shows_that_it_cut(text: str, room: int) -> None:
    shown = columns.cut(text, room)
    assert columns.width(shown) <= room
    assert shown == text or (shown.endswith("…") and text.startswith(shown[:-1]))


@pytest.mark.parametrize("text, wide", [("abc", 3), ("世界", 4), ("e\u0301", 1), ("", 0), ("\u200d", 0)])
def test_the_width_of_a_text_is_that_on_a_terminal(text: str, wide: int) -> None:
    assert columns.width(text) == wide


@pytest.mark.parametrize("text, shown", [
    ("a\x1b[31mb", "a\ufffd[31mb"), ("a\nb\r\tc", "a\ufffdb\ufffd\ufffdc"), ("\u202eabc", "\ufffdabc"),
    ("a\x9bb", "a\ufffdb"), ("نام", "نام"), ("a\ud800", "a\ufffd")])
def test_what_a_terminal_obeys_is_replaced(text: str, shown: str) -> None:
    assert columns.neutral(text) == shown


def test_a_note_is_wrapped_with_its_indent() -> None:
    drawn = columns.lay_out([Note(6, "word " * 30)], 40).splitlines()
    assert len(drawn) > 3 and all(line.startswith(" " * 6 + "word") and len(line) <= 40 for line in drawn)
    assert sum(line.count("word") for line in drawn) == 30


