"""enable-tls.ps1 for Windows guests. There is no PowerShell here: the script is parsed, not run."""

import json
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import pytest

from tests.clients import node_packages
from tests.need import need_program

SCRIPT = Path(__file__).resolve().parent.parent.parent / "guest-config" / "windows" / "enable-tls.ps1"

# Commands of PowerShell 5.1 in Windows Server.
CMDLETS = set(
    "Add-Member ConvertFrom-Json ConvertTo-Json ForEach-Object Get-ItemProperty Get-NetFirewallRule Get-Service "
    "Join-Path New-NetFirewallRule New-Object Out-Null Remove-Item Remove-NetFirewallRule Restart-Service Set-Acl "
    "Set-StrictMode Split-Path Test-Path Where-Object Write-Output Write-Warning".split())


def parsed(text: str) -> Dict[str, List[Any]]:
    """Return the errors, the names of commands and the names of functions in a script."""
    script = node_packages() / "parse_powershell.mjs"
    # The grammar is WebAssembly of 1 MB: optimising it takes longer than running it without optimisation.
    done = subprocess.run([need_program("node", "nodejs"), "--liftoff-only", str(script)], input=text.encode("utf-8"),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    found: Dict[str, List[Any]] = json.loads(done.stdout.decode())
    return found


def test_the_script_is_valid_powershell_and_calls_existing_commands() -> None:
    found = parsed(SCRIPT.read_text("utf-8"))
    assert found["errors"] == []
    functions = set(found["function_name"])
    assert set(found["command_name"]) - functions <= CMDLETS and functions <= set(found["command_name"])


@pytest.mark.parametrize("right, wrong", [
    ("} catch {\n    $why", "} catch \n    $why"), ("if ($Remove) {", "if $Remove {"), ("@('npipe://')", "@('npipe://'"),
    ("foreach ($name in $Names)", "foreach ($name of $Names)"),
], ids=range(4))
def test_the_parser_finds_an_error(right: str, wrong: str) -> None:
    text = SCRIPT.read_text("utf-8")
    assert right in text and parsed(text.replace(right, wrong, 1))["errors"]


def test_the_script_is_ascii_text() -> None:
    """Windows PowerShell reads a script without a byte order mark in the code page of the machine."""
    SCRIPT.read_text("ascii")
