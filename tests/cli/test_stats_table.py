"""The table of stats."""

import json
import sys
from typing import Any, Dict

import pytest

from xscontainer.cli import stats_table
from xscontainer.cli.sources import Source
from xscontainer.cli.stats_table import Reading
from xscontainer.cli.ui.terminal import Terminal
from xscontainer.errors import XapiError


def document(**more: Any) -> str:
    container: Dict[str, Any] = {
        "id": "1" * 64, "name": "web", "cpu_percent": 12.5, "cores": 0.12, "memory": 1288490188.8,
        "memory_limit": 4 << 30, "network_received": 1536, "network_sent": None, "block_read": 0,
        "block_written": 999999999, "pids": 7}
    total: Dict[str, Any] = {"containers": 1, "cores": 1.85, "memory": 1288490188.8, "vcpus": 2, "vm_memory": 4 << 30,
                             "cpu_share": 0.925, "memory_share": 0.3}
    total.update(more)
    return json.dumps({"time": 1.0, "containers": [container], "total": total, "left_out": 0})


def drawn(answer: str, coloured: bool = False) -> str:
    terminal = Terminal(sys.stdout, is_terminal=True, coloured=coloured, width=100)
    return terminal.text(stats_table.lines([Reading(Source("u", "vm"), stats_table.read(answer))], terminal))


def test_numbers_are_written_as_docker_writes_them() -> None:
    row = drawn(document()).splitlines()[1].split("  ")
    assert [cell.strip() for cell in row if cell] == [
        "vm/web", "12.50%", "1.2GiB / 4GiB", "30.00%", "1.54kB / --", "0B / 1GB", "7"]


def test_a_vm_that_is_nearly_used_up_is_a_warning() -> None:
    line = drawn(document(), coloured=True).splitlines()[2]
    assert line == "\x1b[33mvm: 1 container uses 1.85 of 2 vCPUs (92%) and 1.2GiB of 4GiB memory (30%).\x1b[0m"
    assert drawn(document(cpu_share=0.1), coloured=True).splitlines()[2].startswith("\x1b[2mvm: ")
    unknown = drawn(document(vcpus=None, vm_memory=None, cpu_share=None, memory_share=None, cores=None))
    assert "vm: 1 container uses -- CPUs and 1.2GiB memory." in unknown


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"containers": [], "total": {}, "left_out": 0}'])
def test_an_unreadable_answer_is_an_error(answer: str) -> None:
    with pytest.raises(XapiError):
        stats_table.read(answer)


@pytest.mark.parametrize("size, binary, decimal", [
    (0, "0B", "0B"), (1023, "1023B", "1.02kB"), (1024, "1KiB", "1.02kB"), (1 << 20, "1MiB", "1.05MB"),
    ((1 << 20) - 1, "1MiB", "1.05MB"), (999999, "976.6KiB", "1MB"),
    (5 << 40, "5TiB", "5.5TB"), (None, "--", "--"), (1.5 * (1 << 60), "1536PiB", "1.73e+03PB")])
def test_sizes_have_the_units_of_docker(size: Any, binary: str, decimal: str) -> None:
    assert (stats_table.binary(size), stats_table.decimal(size)) == (binary, decimal)
