"""The monitor's unit has only directives of systemd 219, which ignores unknown ones with a line in the journal."""

import configparser
import re
from pathlib import Path
from typing import Dict

import pytest

from rpm.pack.payload import FILES
from tests.need import need_program
from tests.pack.conftest import run
from tests.pack.dom0 import UNIT
from xscontainer.service.daemon import ENVIRONMENT

TEXT = Path(FILES, UNIT).read_text()
# Directives of systemd.unit(5), .service(5), .exec(5), .kill(5) and .resource-control(5) of systemd 219 that a service
# may need.
KNOWN = {
    "Unit": "Description Documentation Requires Requisite Wants BindsTo PartOf Conflicts Before After OnFailure "
            "PropagatesReloadTo ReloadPropagatedFrom RefuseManualStart RefuseManualStop DefaultDependencies "
            "JobTimeoutSec JobTimeoutAction ConditionPathExists ConditionFileNotEmpty AssertPathExists",
    "Service": "Type NotifyAccess PIDFile ExecStart ExecStartPre ExecStartPost ExecReload ExecStop ExecStopPost "
               "Restart RestartSec SuccessExitStatus RestartPreventExitStatus RestartForceExitStatus "
               "StartLimitInterval StartLimitBurst StartLimitAction TimeoutStartSec TimeoutStopSec TimeoutSec "
               "WatchdogSec KillMode KillSignal SendSIGKILL User Group WorkingDirectory UMask Environment "
               "EnvironmentFile StandardInput StandardOutput StandardError SyslogIdentifier RuntimeDirectory "
               "RuntimeDirectoryMode Nice OOMScoreAdjust IOSchedulingClass IOSchedulingPriority "
               "CPUSchedulingPolicy LimitNOFILE LimitNPROC LimitCORE LimitAS PrivateTmp PrivateDevices "
               "PrivateNetwork ProtectSystem ProtectHome NoNewPrivileges CapabilityBoundingSet SystemCallFilter "
               "RestrictAddressFamilies CPUAccounting CPUShares CPUQuota MemoryAccounting MemoryLimit "
               "BlockIOAccounting BlockIOWeight Slice Delegate",
    "Install": "WantedBy RequiredBy Alias Also DefaultInstance",
}
# Limits that the service must have. The daemon's source explains Environment.
WANTED = {
    "Unit": {"PartOf": "toolstack.target", "After": "network.target xapi.service xapi-init-complete.target"},
    "Service": {
        "Type": "notify", "NotifyAccess": "main", "ExecStart": "/usr/sbin/xscontainer-monitor",
        "Restart": "always", "RestartSec": "10", "RestartPreventExitStatus": "2",
        "StartLimitInterval": "600", "StartLimitBurst": "20",
        "TimeoutStartSec": "60", "TimeoutStopSec": "60", "WatchdogSec": "60",
        "RuntimeDirectory": "xscontainer", "RuntimeDirectoryMode": "0700", "UMask": "0077",
        "Nice": "5", "CPUShares": "256", "CPUQuota": "100%", "MemoryLimit": "384M", "OOMScoreAdjust": "300",
        "LimitNOFILE": "4096", "PrivateTmp": "yes", "NoNewPrivileges": "yes", "ProtectHome": "yes",
        "Environment": " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items()),
    },
    "Install": {"WantedBy": "multi-user.target"},
}


def parsed(text: str) -> "Dict[str, Dict[str, str]]":
    """Return the last value of each directive; reads only as much of systemd's syntax as this unit needs."""
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#", ";"), strict=True)
    parser.optionxform = str  # type: ignore
    parser.read_string(text)
    return {section: dict(parser.items(section)) for section in parser.sections()}


def faults(text: str) -> "Dict[str, str]":
    """Return the problems of a unit, by directive."""
    unit = parsed(text)
    found = {name: "is not known to systemd 219" for section, given in unit.items() for name in given
             if name not in KNOWN.get(section, "").split()}
    found.update((name, f"is {unit.get(section, {}).get(name)}") for section, given in WANTED.items()
                 for name, value in given.items() if unit.get(section, {}).get(name) != value)
    return found


def test_the_unit_has_every_limit_and_only_directives_of_systemd_219() -> None:
    assert faults(TEXT) == {}


@pytest.mark.parametrize("line", [line for line in TEXT.splitlines() if re.match(r"\w+=", line)
                                  and not re.match("Description=|Documentation=", line)])
def test_a_missing_limit_is_found(line: str) -> None:
    assert faults(TEXT.replace(line + "\n", "")) == {line.partition("=")[0]: "is None"}


def test_a_newer_directive_is_found() -> None:
    assert list(faults(TEXT.replace("[Install]", "MemoryMax=1G\n[Install]"))) == ["MemoryMax"]
    # A directive that systemd 219 has in another section.
    moved = TEXT.replace("StartLimitBurst=20\n", "").replace("[Service]", "StartLimitBurst=20\n\n[Service]")
    assert list(faults(moved)) == ["StartLimitBurst"]


@pytest.mark.real
def test_the_installed_systemd_accepts_the_unit(tmp_path: Path) -> None:
    need_program("systemd-analyze", "systemd")
    unit = tmp_path / UNIT
    # Only the program is missing on this machine.
    unit.write_text(TEXT.replace("/usr/sbin/xscontainer-monitor", "/bin/true"))
    done = run("systemd-analyze", "verify", "--man=no", str(unit))
    # Old names that newer versions still read.
    wrong = [line for line in done.stdout.decode().splitlines()
             if unit.name in line and not re.search("Unit uses (CPUShares|MemoryLimit)=", line)]
    assert done.returncode == 0 and not wrong, done.stdout
