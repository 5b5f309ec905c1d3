"""The simulator agrees with XAPI's published data model: classes, fields, messages, parameters, roles, errors."""

import glob
import gzip
import json
import os
import re
from typing import Any, Dict, Iterator, List, Set

import pytest

import xscontainer.simulator.xapi as package
from tests.simulator.xapi.replay import load_steps
from tests.simulator.xapi.wireclient import Client
from xscontainer.simulator.xapi import Pool
from xscontainer.simulator.xapi.database.datamodel import ROLES, load
from xscontainer.simulator.xapi.wire.decode import Request
from xscontainer.simulator.xapi.wire.failures import XapiError

PUBLISHED = os.path.join(os.path.dirname(__file__), "..", "..", "data", "xapi", "xenapi.json.gz")
# Classes that have no records of their own.
NOT_STORED = {"auth", "event", "message", "data_source", "LVHD", "sr_stat", "probe_result", "vdi_nbd_server_info"}
# Methods whose last parameters are optional.
OPTIONAL = {"session.login_with_password", "VM.snapshot"}
# Codes that XAPI documents outside its published model and that no recorded step has.
ELSEWHERE = {
    "NO_HOSTS_AVAILABLE",
    "HOST_OFFLINE",
    "NOT_IMPLEMENTED",
    "DEVICE_ALREADY_ATTACHED",
    "DISK_VBD_MUST_BE_READWRITE_FOR_HVM",
    "VBD_CDS_MUST_BE_READONLY",
    "VDI_LOCATION_MISSING",
    "VDI_IO_ERROR",
}


@pytest.fixture(scope="module")
def published() -> List[Dict[str, Any]]:
    """Return the published classes."""
    with gzip.open(PUBLISHED) as stream:
        classes: List[Dict[str, Any]] = json.loads(stream.read().decode())
    return classes


@pytest.fixture(scope="module")
def pool(tmp_path_factory: Any) -> Iterator[Pool]:
    """Make a coordinator with one object of every class."""
    with Pool(str(tmp_path_factory.mktemp("pool")), hosts=1) as made:
        for name, table in made.db.tables.items():
            if not table.rows and name not in NOT_STORED:
                made.db.create(name, {})
        yield made


def _fits(kind: str, value: Any) -> bool:
    """Return whether a decoded XML-RPC value can be of the published type."""
    if kind.endswith(" map"):
        return isinstance(value, dict)
    if kind.endswith(" set"):
        return isinstance(value, list)
    if kind == "int":
        return isinstance(value, str) and re.match(r"-?\d+$", value) is not None
    if kind == "datetime":
        return isinstance(value, str) and re.match(r"\d{8}T\d\d:\d\d:\d\dZ$", value) is not None
    if kind.endswith(" ref"):
        return isinstance(value, str) and value.startswith("OpaqueRef:")
    return isinstance(value, {"bool": bool, "float": float}.get(kind, str))


def test_every_record_has_the_published_fields(pool: Pool, published: List[Dict[str, Any]]) -> None:
    """Compare names and types over the wire, for every class. Further fields were recorded from a newer xapi."""
    client = Client(pool.coordinator)
    session = client.call("session.login_with_password", "root", "", "1.0", "model")
    compared = 0
    for cls in published:
        if cls["name"] in NOT_STORED:
            continue
        ref = session if cls["name"] == "session" else next(iter(pool.db.tables[cls["name"]].rows))
        method = load().methods.get(cls["name"] + ".get_record")
        if method is None or method.removed:
            continue
        record = client.call(cls["name"] + ".get_record", session, ref)
        for field, kind, _qualifier in cls["fields"]:
            assert field in record, (cls["name"], field)
            assert _fits(kind, record[field]), (cls["name"], field, kind, record[field])
            compared += 1
    client.close()
    assert compared > 700


def test_all_records_of_a_class_have_the_same_fields(pool: Pool) -> None:
    """This holds for records that were made in different ways, too."""
    pool.create_vm("one")
    for name, table in pool.db.tables.items():
        shapes = {tuple(row.values) for row in table.rows.values()}
        assert len(shapes) <= 1, name


def test_uuids_are_unique_over_all_classes(pool: Pool) -> None:
    """Clients keep objects of all classes in one table."""
    uuids = [r["uuid"] for t in pool.db.tables.values() for r in t.rows.values() if "uuid" in r.values]
    assert len(uuids) == len(set(uuids))


def test_every_method_takes_the_published_number_of_parameters(pool: Pool, published: List[Dict[str, Any]]) -> None:
    """One parameter too many, or none at all, is refused with the published number."""
    session = pool.serve(pool.coordinator, Request("session.login_with_password", ["root", ""]), True, 0)
    checked = 0
    for cls in published:
        for message in cls["messages"]:
            name = "{}.{}".format(cls["name"], message["name"])
            if name in OPTIONAL:
                continue
            params = message["params"]
            own = [session] if params and params[0][0] == "session_id" else []
            expected = len(params) - len(own)
            with pytest.raises(XapiError) as caught:
                pool.serve(pool.coordinator, Request(name, own + ["x"] * (expected + 1)), True, 0)
            wanted = ["MESSAGE_PARAMETER_COUNT_MISMATCH", name, str(expected), str(expected + 1)]
            assert caught.value.description == wanted
            checked += 1
    assert checked > 1800


def test_every_method_of_system_list_methods_is_known(pool: Pool) -> None:
    """system.listMethods needs no session and names all methods of the dispatcher."""
    client = Client(pool.coordinator)
    listed, _response = client.xml("system.listMethods", [])
    client.close()
    assert isinstance(listed, list)
    assert set(listed) - set(load().methods) == set()
    assert len(listed) == len(set(listed))


def test_no_role_lacks_a_published_permission(published: List[Dict[str, Any]]) -> None:
    """Further permissions were recorded from XAPI 26.1.4."""
    model = load()
    for cls in published:
        for message in cls["messages"]:
            name = "{}.{}".format(cls["name"], message["name"]).lower()
            if name in model.roles:
                missing = (set(message["roles"] or ()) & set(ROLES)) - model.roles[name]
                assert not missing, (name, missing)


def test_enumerations_have_the_published_values(published: List[Dict[str, Any]]) -> None:
    enums = {name: values for cls in published for name, values in cls["enums"].items()}
    assert load().enums == enums


def _recorded_codes() -> Set[str]:
    codes: Set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            description = value.get("ErrorDescription") or value.get("failure") or value.get("error_info")
            if isinstance(description, list) and description:
                codes.add(description[0])
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(load_steps())
    return codes


def test_every_error_code_in_the_sources_is_published_or_recorded(published: List[Dict[str, Any]]) -> None:
    real = {e for cls in published for m in cls["messages"] for e in m["errors"]} | _recorded_codes() | ELSEWHERE
    used = set()
    for path in glob.glob(os.path.join(os.path.dirname(package.__file__), "**", "*.py"), recursive=True):
        with open(path, encoding="utf-8") as stream:
            used |= set(re.findall(r'XapiError\(\s*"([A-Z_]+)"', stream.read()))
    assert len(used) > 15
    assert used - real == set()
