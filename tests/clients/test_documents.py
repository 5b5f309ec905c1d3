"""The room that a VM's documents take beside the other keys of its other_config."""

import xmlrpc.client
from typing import Any, Dict, List

import pytest

from tests.clients.engine_json import entry
from xscontainer import keys
from xscontainer.clients.documents import LEAST_BYTES, Documents
from xscontainer.core.container import containers_from_api
from xscontainer.core.vm_record import VMRecord
from xscontainer.sanitize import map_bytes
from xscontainer.settings import PublishSettings

REQUEST_BYTES = 307200  # that XAPI takes


def answer(count: int, **fields: Any) -> "List[Dict[str, Any]]":
    return [entry(number, Names=[f"/name-{number}"], Image="registry.lan/shop/web:2.14", **fields)
            for number in range(count)]


def whole_map_write(config: "Dict[str, str]") -> int:
    """Bytes of another client's request that writes all of other_config."""
    return len(xmlrpc.client.dumps(("OpaqueRef:session", "OpaqueRef:vm", config), "VM.set_other_config").encode())


@pytest.mark.parametrize("others", [{}, {"theirs": "x" * 60000}, {f"key{n}": "<&>" * 20 for n in range(500)}],
                         ids=["alone", "one", "many"])
@pytest.mark.parametrize("command", ["run <this> & that", "\\" * 200, "\u540d" * 200])
def test_another_client_can_write_the_whole_map(others: "Dict[str, str]", command: str) -> None:
    vm = VMRecord.from_snapshot("r", {"uuid": "u", "other_config": others})
    documents = Documents(PublishSettings())
    documents.facts({"Version": "1", "ApiVersion": "1.41"}, {"ID": "x", "Name": "y" * 200, "Labels": ["l" * 200]})
    documents.list(containers_from_api(answer(3000, Command=command)), vm.others_bytes)
    assert documents.shortened[0] > 0
    size = whole_map_write({**others, **documents.texts, keys.OWNER: "u" * 36})
    assert REQUEST_BYTES * 0.6 < size <= REQUEST_BYTES * 0.75 + 500


def test_foreign_keys_that_fill_the_map_leave_a_short_list() -> None:
    documents = Documents(PublishSettings())
    documents.list(containers_from_api(answer(3000)), 300000)
    assert LEAST_BYTES / 2 < map_bytes(documents.texts) <= LEAST_BYTES + 100


def test_the_size_of_foreign_keys_is_counted_in_steps() -> None:
    """A small change of a foreign key does not make a VM's record count as changed."""
    sizes = {VMRecord.from_snapshot("r", {"uuid": "u", "other_config": {"theirs": "x" * length}}).others_bytes
             for length in range(100, 4000, 100)}
    assert sizes == {4096}
    ours = {keys.PS: "x" * 100000}
    assert VMRecord.from_snapshot("r", {"uuid": "u", "other_config": ours}).others_bytes == 0
