"""cloud-init and Ignition apply every configuration to a copy-on-write view of this machine."""

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Tuple

import pytest

from tests.guest_config.filling import CLOUD_CONFIGS, HOSTNAME, IGNITIONS, MAC, POOL_KEY, Case, HostKey, fill, read
from tests.need import need, need_program

pytestmark = pytest.mark.real
SCRIPTS = Path(__file__).parent
# Debian installs it for initial RAM disks.
IGNITION = "/usr/lib/dracut/modules.d/30ignition/ignition"
NAMESPACES = ["--mount", "--uts", "--pid", "--net", "--fork", "--kill-child", "--propagation", "private"]


class Changed(NamedTuple):
    """A file that the first boot has written; ``mode`` has its permission bits."""

    text: str
    mode: int
    uid: int


Boot = Callable[[str, Case], Dict[str, Changed]]


@pytest.fixture
def boot(tmp_path: Path, host_key: HostKey) -> Boot:
    """Return ``boot(file, case)``, which returns the files that the first boot adds, by path without leading slash."""
    need(os.geteuid() == 0, "root, for an overlay mount")
    unshare = need_program("unshare", "util-linux")

    def booted(name: str, case: Case) -> Dict[str, Changed]:
        seed = tmp_path / "seed"
        seed.mkdir()
        text = fill(read(name), case, host_key)
        if name.endswith(".ign"):
            need(os.path.exists(IGNITION), "Ignition (Debian: ignition)")
            (seed / "config.ign").write_text(text)
            script = [str(SCRIPTS / "ignition.sh"), str(seed), IGNITION]
        else:
            need_program("cloud-init")
            (seed / "user-data").write_text(text)
            (seed / "meta-data").write_text("instance-id: first\nlocal-hostname: other\n")
            script = [str(SCRIPTS / "cloud_init.sh"), str(seed)]
        done = subprocess.run([unshare] + NAMESPACES + ["sh"] + script,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=100)
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        return dict(files(done.stdout))

    return booted


def files(archive: bytes) -> "List[Tuple[str, Changed]]":
    found: List[Tuple[str, Changed]] = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar.getmembers():
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                text = content.read().decode("utf-8", "replace")
                found.append((member.name[len("./"):], Changed(text, member.mode & 0o777, member.uid)))
    return found


def entry(table: Changed, name: str) -> "List[str]":
    """Return the line of ``name`` in /etc/passwd or a similar file."""
    (line,) = [line for line in table.text.splitlines() if line.startswith(name + ":")]
    return line.split(":")


@pytest.mark.parametrize("name", CLOUD_CONFIGS)
def test_the_first_boot_with_cloud_init_sets_the_guest_up(name: str, boot: Boot, host_key: HostKey) -> None:
    guest = boot(f"cloud-config/{name}", Case(True, True))
    log = guest["var/log/cloud-init.log"].text
    assert "Traceback" not in log and "- schema" not in log, log[-4000:]

    assert guest["etc/hostname"].text.strip() == HOSTNAME
    account = entry(guest["etc/passwd"], "core")
    assert account[6] == "/bin/bash" and entry(guest["etc/shadow"], "core")[1].startswith("!")
    group = entry(guest["etc/group"], "docker")
    assert int(group[2]) < 1000 and group[3] == "core", "a group of the system, as the engine's package would make it"
    keys = guest["home/core/.ssh/authorized_keys"]
    assert keys.text.strip() == f"restrict,port-forwarding ssh-rsa {POOL_KEY}"
    assert keys.mode == 0o600 and keys.uid == int(account[2])

    private = guest["etc/ssh/ssh_host_ed25519_key"]
    assert private.text == host_key.private and private.mode == 0o600 and private.uid == 0
    assert guest["etc/ssh/ssh_host_ed25519_key.pub"].text.strip() == host_key.public
    assert [path for path in guest if path.startswith("etc/ssh/ssh_host_") and "ed25519" not in path] == []

    assert guest["usr/local/sbin/install-guest-agent"].mode == 0o755
    network = [file for path, file in guest.items() if "host-internal" in path]
    assert network and all(MAC in file.text for file in network)
    commands = guest["var/lib/cloud/instances/first/scripts/runcmd"]
    assert "install-guest-agent" in commands.text
    subprocess.run(["sh", "-n"], input=commands.text.encode(), check=True, timeout=30)


def test_without_a_pinned_host_key_the_guest_makes_its_own(boot: Boot, host_key: HostKey) -> None:
    guest = boot("cloud-config/debian.yaml", Case(False, False))
    assert guest["etc/ssh/ssh_host_ed25519_key"].text not in ("", host_key.private)
    assert not any("host-internal" in path for path in guest)


@pytest.mark.parametrize("name", IGNITIONS)
def test_the_first_boot_with_ignition_sets_the_guest_up(name: str, boot: Boot, host_key: HostKey) -> None:
    guest = boot(f"ignition/{name}", Case(True, True))
    assert guest["etc/hostname"].text == HOSTNAME
    account = entry(guest["etc/passwd"], "core")
    assert "core" in entry(guest["etc/group"], "docker")[3].split(",")
    (keys,) = [file for path, file in guest.items() if path.startswith("home/core/.ssh/authorized_keys")]
    assert f"restrict,port-forwarding ssh-rsa {POOL_KEY}" in keys.text.splitlines()
    assert keys.mode == 0o600 and keys.uid == int(account[2])
    private = guest["etc/ssh/ssh_host_ed25519_key"]
    assert private.text == host_key.private and private.mode == 0o600 and private.uid == 0
    assert len([path for path, file in guest.items() if "host-internal" in path and MAC in file.text]) == 1
    assert "ExecStart=" in guest["etc/systemd/system/xen-guest-agent.service"].text
    presets = "".join(file.text for path, file in guest.items() if path.endswith(".preset"))
    assert {"enable docker.service", "enable xen-guest-agent.service"} <= set(presets.splitlines())
