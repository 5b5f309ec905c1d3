"""The commands for config drives and new VMs, as an administrator types them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, NamedTuple

import pytest

from tests.configdrive.cloud import IMAGE, Cloud
from tests.configdrive.test_create import GIB, ROOT, emptied, left, templates  # noqa: F401 - emptied is a fixture
from tests.need import need_program
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves several tests
from xscontainer import keys

DEADLINE = 90
pytestmark = pytest.mark.real


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    need_program("cloud-init")
    with Cloud(str(tmp_path_factory.mktemp("c"))) as world:
        world.pool.step_delay = 0.0
        templates(world, tmp_path_factory.mktemp("t"))
        yield world


def run(cloud: Cloud, *arguments: str, host: int = 0, stdin: str = "") -> Answer:
    config = cloud.daemons[host].config_path
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config", config, *arguments],
        input=stdin.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=str(ROOT), timeout=DEADLINE)
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_create_starts_a_vm_and_prints_that_it_is_listed(cloud: Cloud) -> None:
    answer = run(cloud, "create", "Web 1", "--template", "CoreOS", "--network", "guests", "--image", IMAGE, "--memory",
                 "3G", "--vcpus", "2", host=1)
    assert answer.code == 0, answer
    assert "'Web 1'" in answer.out or "Web 1" in answer.out
    assert "listed" in answer.out
    # The command polls five times a second, so it may miss steps.
    assert [line for line in answer.err.splitlines() if line.startswith("... ")]
    vm, = (record for record in cloud.pool.records("VM").values() if record["name_label"] == "Web 1")
    assert vm["memory_static_max"] == 3 * GIB and vm["VCPUs_max"] == 2 and keys.PS in vm["other_config"]


def test_create_uploads_an_image_from_a_file(cloud: Cloud, tmp_path: Path) -> None:
    image = tmp_path / "debian.raw"
    with open(str(image), "wb") as stream:
        stream.write(b"a system")
        os.truncate(stream.fileno(), 8 << 20)
    answer = run(cloud, "create", "web", "--template", "Docker on Debian", "--network", "guests", "--image", str(image),
                 "--sr", "Local storage on host1")
    assert answer.code == 0, answer
    system, drive = sorted(cloud.pool.records("VBD").values(), key=lambda record: str(record["userdevice"]))
    with open(cloud.pool.disk_path(system["VDI"]), "rb") as stream:
        assert stream.read(8) == b"a system"
    # The uploaded disk is destroyed; the VM has a copy.
    assert sorted(cloud.pool.records("VDI")) == sorted((system["VDI"], drive["VDI"], cloud.image))


@pytest.mark.parametrize("content, said", [
    (b"QFI\xfb" + bytes(508), "qcow2"), (b"x" * 100, "multiple"), (b"", "multiple"), (b"\x1f\x8b" + bytes(510), "gzip"),
], ids=["qcow2", "size", "empty", "gzip"])
def test_a_file_that_is_not_a_raw_image_is_refused(cloud: Cloud, tmp_path: Path, content: bytes, said: str) -> None:
    before = left(cloud)
    (tmp_path / "image").write_bytes(content)
    answer = run(cloud, "create", "web", "--template", "CoreOS", "--network", "guests",
                 "--image", str(tmp_path / "image"))
    assert answer.code == 2 and said in answer.err
    assert left(cloud) == before


def test_an_image_for_the_storage_of_another_host_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    before = left(cloud)
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    made = cloud.pool.stats.calls("VDI.create")
    answer = run(cloud, "create", "web", "--template", "CoreOS", "--network", "guests",
                 "--image", str(tmp_path / "image"), "--sr", "Local storage on host2")
    assert answer.code == 1 and "Run this on a host" in answer.err
    assert left(cloud) == before and cloud.pool.stats.calls("VDI.create") == made


@pytest.mark.parametrize("wrong, said", [
    (["web", "--vcpus", "many"], "vcpus"), (["web", "--wait", "5s"], "wait"), ([""], "name"),
    (["web", "-u", "a b"], "-u"), (["web", "--configuration", "-"], "empty"),
    (["web", "--template", "Ours"], "disk of its own"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_arguments_are_reported_before_an_image_is_uploaded(cloud: Cloud, tmp_path: Path, wrong: List[str],
                                                           said: str) -> None:
    template = cloud.pool.create_vm("Ours", template=True, power_state="Halted")
    cloud.pool.add_drive(template, cloud.add_image())
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    before, made = left(cloud), cloud.pool.stats.calls("VDI.create")
    given = [] if "--template" in wrong else ["--template", "CoreOS"]
    try:
        answer = run(cloud, "create", *wrong, *given, "--network", "guests", "--image", str(tmp_path / "image"))
        assert answer.code == 2 and said in answer.err and "uploading" not in answer.err
        assert left(cloud) == before and cloud.pool.stats.calls("VDI.create") == made
    finally:
        with cloud.session() as session:
            session.xenapi.VM.destroy(template)


@pytest.mark.parametrize("wrong, code, said", [
    (["--template", "nothing", "--network", "guests"], 4, "no template 'nothing'"),
    (["--template", "CoreOS", "--network", "nothing"], 4, "no network 'nothing'"),
    (["--template", "CoreOS", "--network", "guests", "--sr", "nothing"], 4, "no storage repository"),
    (["--template", "CoreOS", "--network", "guests", "--memory", "much"], 2, "not a size"),
    (["--template", "CoreOS", "--network", "guests", "--image", "nothing"], 4, "no disk 'nothing'"),
    (["--template", "CoreOS", "--network", "guests", "--image", "/root/typo.raw"], 2,
     "There is no file /root/typo.raw."),
    (["--template", "CoreOS", "--network", "guests"], 2, "no disk with a system to boot"),
    (["--template", "CoreOS", "--network", "guests", "--configuration", "/nonexistent"], 2, "cannot be read"),
])
def test_wrong_arguments_exit_with_2_or_4_and_a_reason(cloud: Cloud, wrong: List[str], code: int, said: str) -> None:
    answer = run(cloud, "create", "web", *wrong)
    assert answer.code == code and said in answer.err


def test_a_guest_that_is_not_listed_in_time_exits_with_3(cloud: Cloud) -> None:
    cloud.boot_fails = True
    answer = run(cloud, "create", "web", "--template", "CoreOS", "--network", "guests", "--image", IMAGE,
                 "--wait", "1")
    assert answer.code == 3 and "diagnose" in answer.err


def test_a_config_drive_is_written_and_read_back(cloud: Cloud, tmp_path: Path) -> None:
    vm = cloud.pool.create_vm("web", power_state="Halted")
    default = run(cloud, "drive", "default", "Docker on Ubuntu")
    assert default.code == 0
    assert default.out.encode() == (ROOT / "guest-config" / "cloud-config" / "ubuntu.yaml").read_bytes()
    text = "#cloud-config\nhostname: %XSVMNAMETOHOSTNAME%\n# \u00e9 %BR %\n"
    written = run(cloud, "drive", "write", "web", "-", "--sr", "Local storage on host2", stdin=text)
    assert written.code == 0 and "after its next start" in written.out, written
    shown = run(cloud, "drive", "show", cloud.uuid("VM", vm), host=1)
    assert (shown.code, shown.out) == (0, text)
    (tmp_path / "file").write_text("#!/bin/sh\n")
    assert run(cloud, "drive", "write", "web", str(tmp_path / "file")).code == 0
    assert run(cloud, "drive", "show", "web").out == "#!/bin/sh\n"


def test_showing_the_drive_of_a_vm_without_one_is_an_error(cloud: Cloud) -> None:
    cloud.pool.create_vm("bare", power_state="Halted")
    answer = run(cloud, "drive", "show", "bare")
    assert answer.code == 2 and "no config drive" in answer.err
    assert run(cloud, "drive", "write", "bare", "-", stdin="x" * 130000).code == 2
