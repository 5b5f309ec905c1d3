"""The contract's rules for published documents and results, checked on a text and on what both clients make of it."""

import re
from typing import Any, Dict, List

from tests.clients import Reader

FLAT = ("id", "names", "status", "container", "created", "image", "command")
_STATUS = re.compile(
    r"(Up|Up \(Paused\)|Exited \(-?[0-9]+\)|Restarting \(-?[0-9]+\)|Created|Dead|Removal In Progress)\Z")
_PORT = {"IP", "PublicPort", "PrivatePort", "Type"}


def check_text(text: str) -> None:
    """Check the rules 2 and 3, which hold for every document."""
    assert text
    for character in set(text):
        code = ord(character)
        assert code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000, hex(code)
    # A reference to a forbidden character is as bad, and a reference to another is never needed.
    assert "&#" not in text and "<![CDATA[" not in text and "<!--" not in text
    # XenCenter alone reads get_inspect, and counts none.
    assert "<docker_inspect>" in text[:60] or len(re.findall("&(lt|gt|quot|apos);", text)) <= 1000
    assert text.rfind("<?") in (-1, 4 if text.startswith("True") else 0)


def check_ps(text: str, orchestra: Reader, center: Reader, own_words: bool = False) -> "Dict[str, Dict[str, str]]":
    """A docker_ps; returns its entries by id, as both clients read them.

    :param own_words: the engine has states of its own that no rule knows.
    """
    check_text(text)
    read = orchestra.read("docker_ps", text)
    assert "error" not in read, read
    root = read["value"]["docker_ps"]
    items = root.get("item", []) if isinstance(root, dict) else []
    found: List[Dict[str, Any]] = [item["entry"] for item in (items if isinstance(items, list) else [items])]
    net = center.read("docker_ps", text)
    assert "error" not in net, net
    assert len(net["entry"]) == len(found)  # one entry in an item, and nothing else is called so
    assert net["Process"] == net["docker_info"] == net["docker_version"] == []
    ids = set()
    for entry, other in zip(found, net["entry"]):
        for name in FLAT:
            assert isinstance(entry[name], str), (name, entry)
            assert entry[name].strip(" \t\n\r") == other[name].strip(" \t\n\r"), (name, entry, other)
        assert re.match("[0-9a-f]{64}\\Z", entry["id"]) and entry["id"] not in ids
        ids.add(entry["id"])
        assert entry["id"].startswith(entry["container"]) and len(entry["container"]) >= 10
        assert re.match("[0-9]+\\Z", entry["created"])
        assert own_words or _STATUS.match(entry["status"]), entry["status"]
        assert own_words or (entry["names"] and not entry["names"].startswith("/"))
        ports = entry["ports"]["item"] if isinstance(entry["ports"], dict) else []
        for port in ports if isinstance(ports, list) else [ports]:
            assert set(port) <= _PORT and port["PrivatePort"].isdigit()
    return {entry["id"]: entry for entry in found}


def check_flat(kind: str, text: str, orchestra: Reader, center: Reader) -> "Dict[str, str]":
    """A docker_info or docker_version; returns its fields."""
    check_text(text)
    fields = orchestra.read(kind, text)["value"][kind]
    net = center.read(kind, text)
    assert len(net[kind]) == 1 and net["root"][0] == kind and net["entry"] == net["Process"] == []
    assert all(isinstance(value, str) for value in fields.values())
    assert {name: value.strip() for name, value in net[kind][0].items()} == {
        name: value.strip() for name, value in fields.items()}
    return dict(fields)


def check_inspect(text: str, orchestra: Reader, center: Reader) -> "Dict[str, Any]":
    """Check a result of get_inspect, and return what fast-xml-parser reads.

    Only XenCenter shows these results, so ``orchestra`` may be a release that does not limit entities.
    """
    check_text(text)
    assert text.startswith('True<?xml version="1.0" ?><docker_inspect>')
    net = center.read("get_inspect", text)
    assert "error" not in net and net["root"][0] == "docker_inspect", net
    assert net["entry"] == net["Process"] == net["docker_info"] == net["docker_version"] == []
    _check_encoded(net["root"])
    read = orchestra.read("get_inspect", text)
    assert "error" not in read, read
    tree: Dict[str, Any] = read["value"]["docker_inspect"]
    return tree


def _check_encoded(tree: List[Any]) -> None:
    name, attributes, children, _ = tree
    assert set(attributes) == ({"name"} if name == "SPECIAL_XS_ENCODED_ELEMENT" else set()), tree
    for child in children:
        _check_encoded(child)


def check_top(text: str, orchestra: Reader, center: Reader) -> "List[Dict[str, str]]":
    """A result of get_top; returns its processes."""
    check_text(text)
    assert text.startswith('True<?xml version="1.0" ?><docker_top>')
    processes: List[Dict[str, str]] = center.read("get_top", text)["Process"]
    assert processes and all(process[name].strip() for process in processes for name in ("PID", "CMD", "TIME"))
    items = orchestra.read("get_top", text)["value"]["docker_top"]["item"]
    items = items if isinstance(items, list) else [items]
    assert [item["Process"] for item in items] == processes
    return processes


def labels_of(tree: "Dict[str, Any]") -> "Dict[str, str]":
    """Key -> value of Config.Labels as Xen Orchestra sees them."""
    labels = tree["Config"]["Labels"]
    found = {name: value for name, value in labels.items() if name != "SPECIAL_XS_ENCODED_ELEMENT"}
    encoded = labels.get("SPECIAL_XS_ENCODED_ELEMENT", [])
    for one in encoded if isinstance(encoded, list) else [encoded]:
        found[one["name"]] = one.get("#text", "")
    return found
