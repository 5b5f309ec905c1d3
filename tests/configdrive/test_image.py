"""The image of a config drive, read by the programs that guests use."""

import json
import os
import struct
import subprocess
import time
from pathlib import Path
from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.configdrive.guest_side import cloud_init_reads, extract, run
from tests.need import need, need_program
from xscontainer.configdrive import image, isoread
from xscontainer.configdrive.image import CONFIG_DRIVE, NO_CLOUD, Identity

WHO = Identity("0f1e2d3c-0000-4000-8000-000000000001", "web-1", "Wéb 1 \"x\"")
TEMPLATE = "#cloud-config\nhostname: %XSVMNAMETOHOSTNAME%\r\n# é\t日本 %BR%\n"
USER_DATA = "#cloud-config\nhostname: web-1\r\n# é\t日本 50%\n\n"


def drive(tmp_path: Path, layout: str = CONFIG_DRIVE) -> Path:
    path = tmp_path / "drive.iso"
    path.write_bytes(image.make(TEMPLATE, USER_DATA, WHO, layout))
    return path


def test_cloud_init_reads_the_user_data_byte_for_byte(tmp_path: Path) -> None:
    found = cloud_init_reads(extract(drive(tmp_path), tmp_path / "out"))
    assert found.user_data == USER_DATA.encode()
    assert found.metadata["instance-id"] == found.metadata["uuid"] == WHO.uuid
    assert found.metadata["local-hostname"] == found.metadata["hostname"] == "web-1"
    assert found.metadata["name"] == WHO.name


def test_cloud_init_reads_the_layout_for_nocloud(tmp_path: Path) -> None:
    found = cloud_init_reads(extract(drive(tmp_path, NO_CLOUD), tmp_path / "out"), NO_CLOUD)
    assert found.user_data == USER_DATA.encode()
    assert found.metadata == {"instance-id": WHO.uuid, "local-hostname": "web-1"}


DS_IDENTIFY = "/usr/lib/cloud-init/ds-identify"


@pytest.mark.parametrize("layout, source", [(CONFIG_DRIVE, "ConfigDrive"), (NO_CLOUD, "NoCloud")])
def test_cloud_inits_generator_chooses_the_datasource_by_the_label(tmp_path: Path, layout: str, source: str) -> None:
    """The generator decides at boot if cloud-init runs, and for which source; it finds the drive with blkid."""
    need(os.path.exists(DS_IDENTIFY), "ds-identify (Debian: cloud-init)")
    root, programs = tmp_path / "root", tmp_path / "bin"
    for directory in (root / "proc", root / "run", programs):
        directory.mkdir(parents=True)
    (root / "proc" / "cmdline").write_text("root=/dev/xvda1")
    blkid = need_program("blkid", "util-linux")
    tell = f"{blkid} -p -o export {drive(tmp_path, layout)} | sed 's,^DEVNAME=.*,DEVNAME=/dev/xvdb,'"
    for name, command in (("blkid", tell), ("systemd-detect-virt", "echo xen")):
        (programs / name).write_text(f"#!/bin/sh\n{command}\n")
        (programs / name).chmod(0o755)
    done = subprocess.run(["sh", DS_IDENTIFY, "--force"], env={
        "PATH": f"{programs}:{os.environ['PATH']}", "PATH_ROOT": str(root), "DI_LOG": "stderr"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == 0, done.stdout.decode()
    assert f"[ {source}, None ]" in (root / "run" / "cloud-init" / "cloud.cfg").read_text()


@pytest.mark.parametrize("layout, label", [(CONFIG_DRIVE, "config-2"), (NO_CLOUD, "cidata")])
def test_blkid_finds_the_drive_by_its_label(tmp_path: Path, layout: str, label: str) -> None:
    path = str(drive(tmp_path, layout))
    assert f'LABEL="{label}"' in run(need_program("blkid", "util-linux"), "-p", path)
    described = run(need_program("isoinfo", "genisoimage"), "-d", "-i", path)
    assert f"Volume id: {label}\n" in described and "Joliet" in described and "Rock Ridge" in described


@pytest.mark.parametrize("names", ["-R", "-J"])
def test_names_are_kept_by_rock_ridge_and_joliet(tmp_path: Path, names: str) -> None:
    isoinfo = need_program("isoinfo", "genisoimage")
    path = str(drive(tmp_path))
    listed = run(isoinfo, names, "-f", "-i", path).split()
    assert {"/openstack/latest/user_data", "/openstack/latest/meta_data.json"} <= set(listed)


def test_only_root_of_the_guest_may_read_the_files(tmp_path: Path) -> None:
    listed = run(need_program("isoinfo", "genisoimage"), "-R", "-l", "-i", str(drive(tmp_path)))
    assert [line.split()[0] for line in listed.splitlines() if "user_data" in line] == ["-r--------"] * 2


@pytest.mark.parametrize("layout", image.LAYOUTS)
def test_the_template_is_read_back_byte_for_byte(tmp_path: Path, layout: str) -> None:
    content = drive(tmp_path, layout).read_bytes()
    assert image.template_in(content) == TEMPLATE
    # A disk is larger than the image on it.
    assert image.template_in(content + bytes(3000000)) == TEMPLATE


@given(st.text(max_size=5000))
def test_any_template_is_read_back_unchanged(template: str) -> None:
    if not template.isprintable():
        template = template.encode("utf-8", "replace").decode()
    assert image.template_in(image.make(template, "x", WHO)) == template


@pytest.mark.parametrize("extensions", [[], ["-R"], ["-J"], ["-R", "-J"]], ids="".join)
def test_a_foreign_drive_gives_the_configuration_of_the_guest(tmp_path: Path, extensions: "List[str]") -> None:
    root = tmp_path / "root"
    (root / "openstack" / "latest").mkdir(parents=True)
    (root / "openstack" / "latest" / "user_data").write_text("old")
    for number in range(60):  # more than one sector of names
        (root / "openstack" / "latest" / f"another_{number}").write_text("no")
    path = tmp_path / "old.iso"
    run(need_program("genisoimage"), "-quiet", *extensions, "-V", "config-2", "-o", str(path), str(root))
    if extensions:
        assert image.template_in(path.read_bytes()) == "old"
    else:  # ISO 9660 allows names of eight letters
        assert isoread.file_in(path.read_bytes(), "openstac/latest/user_dat") == b"old"


@pytest.mark.parametrize("content", [b"", b"x" * 100000, bytes(1000000), b"\xff" * 70000])
def test_content_that_is_no_image_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):
        image.template_in(content)


def test_an_image_with_other_files_is_no_config_drive() -> None:
    with pytest.raises(ValueError, match="no configuration"):
        image.template_in(image.write({"readme.txt": b"x"}, "other"))


@given(st.lists(st.tuples(st.integers(16 * 2048, 80000), st.binary(min_size=1, max_size=8)), max_size=20),
       st.integers(0, 80000))
def test_a_damaged_drive_raises_only_value_error(damage: "List[Tuple[int, bytes]]", length: int) -> None:
    content = bytearray(_WHOLE)
    for at, data in damage:
        content[at:at + len(data)] = data
    try:
        image.template_in(bytes(content[:max(length, 40000)]))
    except ValueError:
        pass


_WHOLE = image.make(TEMPLATE, USER_DATA, WHO)


def test_a_directory_that_contains_itself_does_not_loop() -> None:
    content = bytearray(image.write({"a/x": b"1"}, "loop"))
    record = content.find(b"\x02\0a", 20 * 2048) - 32  # record of the directory "a" in Joliet's tree
    root, = struct.unpack_from("<I", content, 17 * 2048 + 156 + 2)
    struct.pack_into("<I", content, record + 2, root)
    started = time.monotonic()
    assert isoread.file_in(bytes(content), "/".join("a" * 3000)) is None
    assert isoread.file_in(bytes(content), "a/a/a/x") is None
    assert time.monotonic() - started < 10


def test_a_file_that_claims_to_be_huge_is_damaged() -> None:
    content = bytearray(image.write({"openstack/latest/user_data": b"here"}, "config-2"))
    at = content.find("user_data".encode("utf-16-be"))
    assert at > 0
    struct.pack_into("<I", content, at - 33 + 10, 0x7FFFFFFF)
    with pytest.raises(ValueError, match="damaged"):
        image.template_in(bytes(content))


def test_metadata_is_json_without_public_keys(tmp_path: Path) -> None:
    out = extract(drive(tmp_path), tmp_path / "out")
    text = (out / "openstack" / "latest" / "meta_data.json").read_text()
    assert json.loads(text)["public_keys"] == {}
    assert sorted(os.listdir(str(out))) == ["openstack"]
