"""``xscontainer ps`` lists for people and programs, whatever guests have published."""

import json
import os
import re
import subprocess
from typing import Dict, List, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.place import ROOT, VERSION, Place, container, docker_ps
from tests.cli.test_commands import control_free
from xscontainer import keys
from xscontainer.cli.listing.selection import Filter
from xscontainer.cli.listing.table import table
from xscontainer.cli.ui.terminal import Terminal
from xscontainer.clients import inventory, xmlform
from xscontainer.core.container import containers_from_api
from xscontainer.core.vm_record import VMRecord


def cells(text: str) -> List[List[str]]:
    """Return the cells of a table on a pipe."""
    return [line.split("\t") for line in text.splitlines()]


def test_the_table_shows_what_runs_and_notes_stand_on_standard_error(place: Place, classic: str) -> None:
    place.pool.create_vm("waiting", host=place.pool.hosts[0], other_config={
        keys.MONITOR: "True", keys.STATUS: json.dumps({"code": "GUEST_UNREACHABLE", "message": "Nothing answers."})})
    answer = place.run("ps")
    assert answer.code == 0
    assert cells(answer.out) == [
        ["NAME", "STATE", "UPTIME", "IMAGE", "PORTS", "PROJECT"],
        ["classic/hadoop", "running (healthy)", "", "hadoop:3", "", "big"],
        ["classic/tomcat", "paused", "", "tomcat:10", "", ""],
    ]
    assert answer.err.splitlines() == [
        "waiting: GUEST_UNREACHABLE: Nothing answers. Next: xscontainer diagnose waiting",
        "2 containers not shown: not running. --all shows them."]
    assert place.run("list") == answer


def test_all_containers_are_shown_with_all_facts(place: Place, classic: str) -> None:
    answer = place.run("ps", "--all", "--format", "wide")
    assert (answer.code, answer.err) == (0, "")
    found = cells(answer.out)
    assert found[0] == ["NAME", "STATE", "UPTIME", "EXIT/REASON", "IMAGE", "PORTS", "PROJECT", "HOST", "ID", "CREATED",
                        "COMMAND"]
    assert [row[0] for row in found[1:]] == ["classic/apache", "classic/hadoop", "classic/mysql", "classic/tomcat"]
    assert found[3][1:5] == ["exited (137)", "", "exit code 137: killed", "mysql:8"]
    assert found[3][7:9] == ["host2", b"mysql".hex() + "00"]


def test_a_table_without_titles_is_only_rows(place: Place, classic: str) -> None:
    assert place.run("ps", "--no-header").out.startswith("classic/hadoop\t")


def test_quiet_output_is_taken_by_other_commands(place: Place, classic: str) -> None:
    uuid = place.pool.vm(classic)["uuid"]
    answer = place.run("ps", "-q", "--all", "--name", "mysql")
    assert answer == (0, f"{uuid}/{b'mysql'.hex()}00\n", "")


@pytest.mark.parametrize("options, names", [
    ("--state exited", ["mysql"]), ("--state exited --state created", ["apache", "mysql"]),
    ("--health healthy", ["hadoop"]), ("--health none", ["tomcat"]), ("--name *o*", ["hadoop", "tomcat"]),
    ("--name classic/t*", ["tomcat"]), ("-a --name *a*", ["apache", "hadoop", "tomcat"]), ("--project none", []),
    ("--project big", ["hadoop"]), ("--vm clas", ["hadoop", "tomcat"]), ("--host host1", []),
    ("--host host2 --vm classic --state paused", ["tomcat"])])
def test_options_select_containers(place: Place, classic: str, options: str, names: List[str]) -> None:
    answer = place.run("ps", "--no-header", *options.split())
    assert answer.code == 0
    assert [row[0].partition("/")[2] for row in cells(answer.out)] == names


def test_json_holds_every_matching_container_whether_it_runs_or_not(place: Place, classic: str) -> None:
    def names(*options: str) -> List[str]:
        hosts = json.loads(place.run("ps", "--format", "json", *options).out)["pool"]["hosts"]
        return [one["name"] for host in hosts for vm in host["vms"] for one in vm["containers"]]

    assert names() == ["hadoop", "tomcat", "mysql", "apache"]
    assert names("--state", "exited") == ["mysql"]
    assert place.run("ps", "--json") == place.run("list", "--format", "json")


def test_each_line_of_ndjson_is_a_container_with_its_vm_and_host(place: Place, classic: str) -> None:
    answer = place.run("ps", "--format", "ndjson")
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert [line["name"] for line in lines] == ["hadoop", "tomcat", "mysql", "apache"]
    listed = place.listed()["hosts"][1]["vms"][0]["containers"]
    for line, same in zip(lines, listed):
        assert line.pop("vm") == {"uuid": place.pool.vm(classic)["uuid"], "name": "classic", "power_state": "Running"}
        assert line.pop("host") == {"uuid": place.pool.hosts[1].uuid, "name": "host2"}
        assert line == same
    assert answer.out.isascii() if hasattr(str, "isascii") else answer.out.encode("ascii")


@pytest.mark.parametrize("options", ["--state nonsense", "--health ill", "--format xml", "--watch --json", "--watch -q",
                                     "--watch --format json"])
def test_wrong_options_exit_with_2(place: Place, options: str) -> None:
    answer = place.run("ps", *options.split())
    assert (answer.code, answer.out) == (2, "")
    assert "Traceback" not in answer.err


def test_a_named_vm_takes_one_small_reading_of_xapi(place: Place, classic: str) -> None:
    for number in range(5):
        place.pool.create_vm(f"other{number}", host=place.pool.hosts[0], other_config={
            keys.MONITOR: "True", keys.PS: docker_ps(*(container(f"c{n}") for n in range(50)))})
    place.pool.stats.reset()
    assert place.run("ps", "--vm", "classic").code == 0
    calls = place.pool.stats.by_method("xscontainer")
    assert calls == {"pool.get_all_records": 1, "host.get_all_records": 1, "VM.get_all_records_where": 1,
                     "session.logout": 1}


def test_json_has_the_same_content_as_the_table(place: Place, classic: str) -> None:
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


def test_a_member_prints_the_same_list_as_the_coordinator(place: Place, classic: str) -> None:
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


def test_a_pool_without_managed_vms_is_reported(place: Place) -> None:
    assert place.run("ps") == (0, "", "No VM here is container-managed. Prepare one: xscontainer prepare VM\n")


def test_a_host_or_vm_is_selected_by_name_or_uuid(place: Place, classic: str) -> None:
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
def test_an_unknown_host_or_vm_exits_with_4(place: Place, classic: str, arguments: Sequence[str]) -> None:
    answer = place.run("list", *arguments)
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("xscontainer: ") and "Traceback" not in answer.err


def test_letters_that_the_encoding_lacks_become_question_marks(place: Place) -> None:
    place.pool.create_vm("Größe", host=place.pool.hosts[0], other_config={
        keys.MONITOR: "True", keys.PS: docker_ps(container("one"))})
    done = subprocess.run(place.command("list"), cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60, env=dict(os.environ, PYTHONIOENCODING="ascii"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Gr??e/one" in done.stdout


def test_the_table_fits_the_width_of_the_terminal(place: Place, classic: str) -> None:
    place.pool.create_vm("waiting", host=place.pool.hosts[0], other_config={
        keys.MONITOR: "True", keys.STATUS: json.dumps({"code": "GUEST_UNREACHABLE", "message": "No answer. " * 20})})
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(place.command("list"), cwd=str(ROOT), stdout=theirs, stderr=theirs,
                                   env=dict(os.environ, COLUMNS="60", NO_COLOR="1", PYTHONIOENCODING="utf-8"))
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # Linux: the last writer has closed it
                break
            if not data:
                break
            shown += data
        assert process.wait(60) == 0
    finally:
        os.close(ours)
    lines = shown.decode("utf-8").splitlines()
    assert max(map(len, lines)) <= 60
    assert any("hadoop" in line and "running" in line for line in lines)
    assert re.sub(r"\s+", " ", " ".join(lines)).count("No answer.") == 20


# --- data published by others ------------------------------------------------

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
def test_an_unreadable_list_affects_only_its_own_vm(place: Place, classic: str, text: str) -> None:
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
def test_deeply_nested_and_wide_documents_are_reported_as_unreadable(text: str) -> None:
    found = view(**{keys.MONITOR: "True", keys.PS: text, keys.VERSION: text, keys.STATUS: text})
    assert found.containers == () and found.engine == ""
    unreadable = "LIST_UNREADABLE" if text.startswith(("<a>", "<docker_ps>")) else "STATUS_UNREADABLE"
    assert found.problem is not None and found.problem.code == unreadable


@pytest.mark.parametrize("status", ["", "[]", "null", "1e999", "[" * 5000, '{"code": 1}', '{"code": "A"}', "{" * 9000],
                         ids=lambda status: status[:12])
def test_every_status_is_shown_or_reported_as_unreadable(status: str) -> None:
    problem = view(**{keys.MONITOR: "True", keys.STATUS: status}).problem
    assert problem is not None
    assert problem.code in ("STATUS_UNREADABLE", "A", "")


@given(st.dictionaries(st.sampled_from([keys.MONITOR, keys.PS, keys.VERSION, keys.STATUS, keys.OWNER]), st.one_of(
    st.text(max_size=80), st.sampled_from([*UNREADABLE.values(), VERSION, "<docker_ps/>", "True", "False"]))))
def test_any_other_config_is_shown_without_control_characters(other_config: Dict[str, str]) -> None:
    found = view(**other_config)
    pool = inventory.Pool("1", "", (inventory.Host("2", "h", "", True, (found,)),))
    json.dumps(inventory.as_json(pool))
    made, terminal = table(pool, Filter(every=True), 0.0, wide=True), Terminal.standard()
    assert control_free(terminal.text(made.lines(terminal) + made.note_lines(terminal)).replace("\t", ""))


def test_a_list_published_by_the_old_pack_is_read() -> None:
    text = ('<?xml version="1.0" ?><docker_ps><item><entry><id>' + "a" * 64 + "</id><names>web</names>"
            "<status>Exited (3) 2 days ago</status><container>aaaaaaaaaa</container><created>1700000000</created>"
            "<image>nginx</image><command>nginx -g</command><ports/></entry></item></docker_ps>")
    (found,) = view(**{keys.MONITOR: "True", keys.PS: text}).containers
    assert (found.name, found.state, found.status, found.actions) == ("web", "exited", "Exited (3)",
                                                                      ("start", "restart"))


def test_a_clone_is_not_shown_with_the_list_of_its_original(place: Place, classic: str) -> None:
    place.pool.set_key(classic, keys.OWNER, "11111111-2222-3333-4444-555555555555")
    (vm,) = place.listed("--vm", "classic")["hosts"][0]["vms"]
    assert (vm["containers"], vm["engine"], vm["problem"]["code"]) == ([], None, "CARRIED_IN")


def test_containers_left_out_of_the_list_are_counted() -> None:
    published = xmlform.docker_ps(containers_from_api([container("one")]).containers, left_out=7).text
    found = view(**{keys.MONITOR: "True", keys.PS: published})
    assert found.left_out == 7
    pool = inventory.Pool("1", "pool", (inventory.Host("2", "host", "", True, (found,)),))
    assert "7 containers did not fit" in table(pool, Filter(), 0.0).notes[0].text
