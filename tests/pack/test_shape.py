"""The content of a pack, read by the tools of a host, or by their rules."""

import gzip
import hashlib
import json
import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Dict, List, Set

import pytest

from rpm.pack import carried, medium, release
from rpm.pack.payload import GUEST_CONFIG, GUEST_CONFIG_SOURCE, PLACES, PRIVATE, ROOT, TEMPLATES
from rpm.pack.release import LABEL, TARGETS
from tests.need import need_program
from tests.pack.conftest import Packs, rpm_files, run
from xscontainer import __version__

pytestmark = [pytest.mark.real, pytest.mark.limit(300)]

PAYLOADS = [LABEL, release.TEMPLATES]
ALL = PAYLOADS + ["control-" + LABEL, "update-" + LABEL]
# Files outside our own directories, each because the program that reads it looks there.
ELSEWHERE = {
    "/etc/xapi.d/plugins/xscontainer",  # XAPI runs plugins from here
    "/usr/bin/xscontainer", "/usr/sbin/xscontainer-monitor", "/usr/sbin/xscontainer-prepare-vm",  # PATH
    "/usr/lib/systemd/system/xscontainer-monitor.service",
    "/usr/lib/systemd/system-preset/80-xscontainer.preset",
    "/etc/logrotate.d/xscontainer",
    "/etc/xensource/bugtool/xscontainer.xml", "/etc/xensource/bugtool/xscontainer",
    "/etc/xensource/bugtool/xscontainer/stuff.xml",
    "/usr/share/bash-completion/completions/xscontainer",
    "/usr/share/man/man1/xscontainer.1", "/usr/share/man/man5/xscontainer.conf.5",
    "/usr/share/man/man8/xscontainer-monitor.8", "/usr/share/man/man8/xscontainer-prepare-vm.8",
}
# The only ones that rpm 4.11 supports.
RPMLIB = {"rpmlib(CompressedFileNames)", "rpmlib(FileDigests)", "rpmlib(PayloadFilesHavePrefix)", "rpmlib(PayloadIsXz)"}


def query(path: Path, *options: str) -> str:
    need_program("rpm")
    return subprocess.run(["rpm", "-qp", "--nosignature", *options, str(path)], stdout=subprocess.PIPE, check=True,
                          timeout=60).stdout.decode()


@pytest.fixture(scope="module")
def unpacked(packs: Packs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory with the unpacked payload."""
    need_program("rpm2cpio", "rpm2cpio")
    directory = tmp_path_factory.mktemp("payload")
    command = f"rpm2cpio '{rpm_files(packs.current.tree, LABEL)}' | cpio -idm --quiet"
    need_program("cpio")
    subprocess.run(["sh", "-c", command], cwd=str(directory), check=True, timeout=60)
    return directory


def test_iso_is_iso9660_with_rock_ridge_and_joliet_named_after_label_and_uuid(packs: Packs) -> None:
    need_program("isoinfo", "genisoimage")
    told = run("isoinfo", "-d", "-i", packs.current.iso).stdout.decode()
    assert f"Volume id: {LABEL}\n" in told and len(LABEL) <= 32
    # ISO 9660 has no lower-case letters here.
    assert packs.current.release.uuid in told.lower()
    assert "Rock Ridge signatures version 1 found" in told
    assert "Joliet with UCS level 3 found" in told
    assert os.path.getsize(packs.current.iso) < 40e6


def test_iso_holds_only_the_files_that_xapi_reads(packs: Packs, tmp_path: Path) -> None:
    need_program("isoinfo", "genisoimage")
    names = run("isoinfo", "-f", "-R", "-i", packs.current.iso).stdout.decode().split("\n")
    names = [name for name in names if name]
    rest = {re.sub(r"/[0-9a-f]{64}-", "/", name) for name in names}
    version = packs.current.release.version
    assert rest == {
        "/update.xml", "/update.xml.asc", "/repodata", "/repodata/repomd.xml", "/repodata/repomd.xml.asc",
        "/repodata/primary.xml.gz", "/repodata/filelists.xml.gz", "/repodata/other.xml.gz", "/repodata/comps.xml",
        "/repodata/comps.xml.gz", "/Packages",
        f"/Packages/xscontainer-{version}-1.cp36.x86_64.rpm",
        f"/Packages/xscontainer-guest-templates-{version}-1.cp36.noarch.rpm",
        f"/Packages/control-xscontainer-{version}-1.cp36.noarch.rpm",
        f"/Packages/update-xscontainer-{version}-1.cp36.noarch.rpm",
    }
    run("xorriso", "-osirrox", "on", "-indev", packs.current.iso, "-extract", "/", str(tmp_path / "out"), check=True)
    for name in rest - {"/repodata", "/Packages"}:
        if (tmp_path / "out" / name[1:]).exists():
            assert (tmp_path / "out" / name[1:]).read_bytes() == Path(packs.current.tree, name[1:]).read_bytes()


def test_repository_is_sha256_and_gzip_with_the_group_update(packs: Packs) -> None:
    text = Path(packs.current.tree, "repodata", "repomd.xml").read_text()
    assert set(re.findall(r'checksum type="(\w+)"', text)) == {"sha256"}
    assert "zst" not in text and "primary.xml.gz" in text
    (comps,) = Path(packs.current.tree, "repodata").glob("*-comps.xml")
    groups = ElementTree.parse(str(comps)).findall("group")
    assert [group.findtext("id") for group in groups] == ["update"]
    required = [(item.get("type"), item.text) for item in groups[0].iter("packagereq")]
    assert required == [("mandatory", "update-" + LABEL)]
    (primary,) = Path(packs.current.tree, "repodata").glob("*-primary.xml.gz")
    assert gzip.decompress(primary.read_bytes()).count(b"<package ") == len(ALL)


def test_update_xml_follows_xapis_rules(packs: Packs) -> None:
    root = ElementTree.parse(os.path.join(packs.current.tree, "update.xml")).getroot()
    assert root.tag == "update" and [child.tag for child in root] == ["name-description"]
    assert root[0].text and not len(root[0])
    label, version = root.get("name-label", ""), root.get("version", "")
    assert re.match(r"[\w-]+\Z", label) and label.startswith("xscontainer")
    assert version and "-" not in version
    assert re.match(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", root.get("uuid", ""))
    assert root.get("control") == "control-" + label
    assert os.path.isfile(os.path.join(os.path.dirname(packs.current.tree), root.get("key", "")))
    sizes = [int(query(rpm_files(packs.current.tree, name), "--qf", "%{SIZE}")) for name in PAYLOADS]
    assert int(root.get("installation-size", "0")) == sum(sizes) > 10e6
    assert root.get("after-apply-guidance") is None


def test_helper_packages_provide_require_and_register(packs: Packs) -> None:
    control, update = (rpm_files(packs.current.tree, kind + LABEL) for kind in ("control-", "update-"))
    assert "platform-version = 3.4.0" in query(control, "--requires")
    for path in (control, rpm_files(packs.current.tree, LABEL)):
        assert "python(abi) = 3.6" in query(path, "--requires")
    assert query(control, "--list").strip() in ("", "(contains no files)")
    assert query(update, "--list").strip() in ("", "(contains no files)")
    assert packs.current.release.uuid in query(update, "--provides").split()
    assert f"xscontainer >= 1:{__version__}-1.cp36" in query(update, "--requires")
    text = Path(packs.current.tree, "update.xml").read_text().strip()
    assert text in query(update, "--scripts")


@pytest.mark.parametrize("name", ALL)
def test_packages_suit_rpm_4_11(packs: Packs, name: str) -> None:
    path = rpm_files(packs.current.tree, name)
    requires = query(path, "--requires")
    assert {word for word in requires.split() if word.startswith("rpmlib(")} <= RPMLIB
    assert query(path, "--qf", "%{PAYLOADCOMPRESSOR} %{PAYLOADFORMAT} %{FILEDIGESTALGO}").split()[:2] == ["xz", "cpio"]
    scripts = query(path, "--scripts") + query(path, "--triggers")
    assert "%" not in re.sub(r"%%", "", scripts), "a macro was left as text"
    for weak in ("--recommends", "--suggests", "--supplements", "--enhances"):
        assert query(path, weak).strip() == ""


def test_every_package_is_signed_with_rsa_and_sha256(packs: Packs, tmp_path: Path) -> None:
    run("rpmkeys", "--define", f"_dbpath {tmp_path}", "--import", packs.current.key, check=True)
    for name in ALL:
        path = str(rpm_files(packs.current.tree, name))
        done = run("rpmkeys", "--define", f"_dbpath {tmp_path}", "-Kv", path)
        assert done.returncode == 0 and re.search(rb"RSA/SHA256 Signature, key ID \w+: OK", done.stdout), done.stdout


def test_the_iso_of_one_tree_is_always_the_same(packs: Packs, tmp_path: Path) -> None:
    medium.make_iso(packs.current.tree, str(tmp_path / "again.iso"), packs.current.release)
    assert (tmp_path / "again.iso").read_bytes() == Path(packs.current.iso).read_bytes()


def test_files_outside_our_directories_are_few(packs: Packs) -> None:
    files = query(rpm_files(packs.current.tree, LABEL), "--list").split()
    ours = ("/usr/lib/xscontainer", "/usr/share/xscontainer", "/etc/xscontainer")
    assert {name for name in files if not name.startswith(ours)} == ELSEWHERE


def test_guest_config_and_templates_are_those_of_the_tree(packs: Packs, unpacked: Path) -> None:
    source, place = Path(GUEST_CONFIG_SOURCE), unpacked / GUEST_CONFIG
    wanted = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    templates = {path for path in wanted if path.parts[0] == "templates"}
    assert {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()} == {
        path: content for path, content in wanted.items() if path not in templates}
    listed = query(rpm_files(packs.current.tree, release.TEMPLATES), "--list").split()
    assert sorted(listed) == sorted(f"/{TEMPLATES}/{path.name}" for path in templates if path.suffix == ".json")


def test_files_have_the_expected_modes_and_kinds(packs: Packs) -> None:
    told = query(rpm_files(packs.current.tree, LABEL), "--qf", "[%{FILENAMES}|%{FILEMODES:octal}|%{FILEFLAGS}|"
                                                          "%{FILEUSERNAME}|%{FILEGROUPNAME}\n]")
    found: Dict[str, List[str]] = {line.split("|")[0]: line.split("|")[1:] for line in told.splitlines()}
    for _, place, mode in PLACES:
        assert int(found["/" + place][0], 8) & 0o7777 == mode, place
    assert all(entry[2:] == ["root", "root"] for entry in found.values())
    assert not [name for name, entry in found.items() if int(entry[0], 8) & 0o022 and not int(entry[0], 8) & 0o120000]
    config_noreplace = 1 | 16
    assert int(found["/etc/xscontainer/xscontainer.conf"][1]) & config_noreplace == config_noreplace
    assert not [name for name in found if name.endswith(".pyc") or "/simulator" in name]


def test_the_pack_carries_exactly_the_pinned_libraries_for_an_old_c_library(packs: Packs, unpacked: Path) -> None:
    private = unpacked / PRIVATE
    bill = json.loads((private / "carried.cdx.json").read_text())
    requirements = os.path.join(ROOT, "requirements", "pack-py36.txt")
    pins = carried.pinned(requirements)
    assert {item["name"]: item["version"] for item in bill["components"]} == pins
    for item in bill["components"]:
        assert item["hashes"][0]["content"] in Path(requirements).read_text()
        licences = [entry["value"] for entry in item["properties"] if entry["name"] == "xscontainer:licence-file"]
        assert licences and all((private / path).stat().st_size > 100 for path in licences)
        assert item["licenses"][0]["expression"]
    installed = {carried.canonical(re.split(r"-[0-9]", path.name)[0]) for path in private.glob("*.dist-info")}
    assert installed == set(pins)
    # There are no other files: each is listed by a wheel, or belongs to this package.
    listed = {line.split(",")[0] for record in private.glob("*.dist-info/RECORD")
              for line in record.read_text().splitlines()}
    others = {str(path.relative_to(private)) for path in private.rglob("*") if path.is_file()} - listed
    assert {name for name in others if not name.startswith("xscontainer/")} == {
        "LICENSE", "README.md", "SECURITY.md", "carried.cdx.json",
        *("docs/" + path.name for path in Path(ROOT, "docs").glob("*.md"))}
    newest = max(tuple(int(part) for part in found.split(b"."))
                 for library in private.rglob("*.so*")
                 for found in re.findall(rb"GLIBC_([0-9.]+)\0", library.read_bytes()))
    assert newest <= (2, 17)


def test_the_tests_run_with_the_carried_versions() -> None:
    def runtime(name: str) -> Set[str]:
        text = Path(ROOT, "requirements", name).read_text()
        lines = text.split("# tests")[0].splitlines()
        return {line.partition(";")[0].lower() for line in lines if "==" in line}

    for pack, tested in (("pack-py36.txt", "py36.txt"), ("pack-current.txt", "current.txt")):
        pins = carried.pinned(os.path.join(ROOT, "requirements", pack))
        assert {f"{name}=={version}" for name, version in pins.items()} == {
            carried.canonical(line.split("==")[0]) + "==" + line.split("==")[1] for line in runtime(tested)}


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path) -> None:
    requirements = tmp_path / "wrong.txt"
    requirements.write_text("idna==3.10 \\\n    --hash=sha256:" + hashlib.sha256(b"").hexdigest() + "\n")
    with pytest.raises(Exception, match="(?i)hash"):
        carried.fetch(str(requirements), TARGETS["3.6"], str(tmp_path / "wheels"))


def test_bugtool_files_are_xml_and_collect_no_secrets(unpacked: Path) -> None:
    need_program("xmllint", "libxml2-utils")
    bugtool = unpacked / "etc/xensource/bugtool"
    for path in ("xscontainer.xml", "xscontainer/stuff.xml"):
        assert run("xmllint", "--noout", str(bugtool / path)).returncode == 0
    capability = ElementTree.parse(str(bugtool / "xscontainer.xml")).getroot()
    assert capability.tag == "capability" and {"pii", "max_size", "mime", "checked"} <= set(capability.keys())
    collect = ElementTree.parse(str(bugtool / "xscontainer" / "stuff.xml")).getroot()
    assert collect.tag == "collect"
    assert (collect.findtext("files") or "").split() == [
        "/var/log/xscontainer.log", "/var/log/xscontainer.log.1.gz", "/etc/xscontainer/xscontainer.conf",
        "/usr/lib/xscontainer/carried.cdx.json"]
    assert not re.search("secret|private", (bugtool / "xscontainer" / "stuff.xml").read_text())


def test_logrotate_accepts_the_stanza(unpacked: Path, tmp_path: Path) -> None:
    program = need_program("logrotate")
    stanza = tmp_path / "stanza"
    stanza.write_text((unpacked / "etc/logrotate.d/xscontainer").read_text())
    stanza.chmod(0o644)
    done = run(program, "-d", "-s", str(tmp_path / "state"), str(stanza))
    assert done.returncode == 0 and b"error" not in done.stdout.lower(), done.stdout
    log = re.search(r"(?m)^log_file = (.*)$", (unpacked / "etc/xscontainer/xscontainer.conf").read_text())
    assert log and log.group(1) in stanza.read_text()


# Rules of distributions that do not apply to this pack: code of rpmlint -> reason.
LINT_MEANT = {
    "unknown-key": "the key is thrown away",
    "no-packager-tag": "it would name the builder",
    "no-changelogname-tag": "CHANGELOG.md is the one",
    "logrotate-log-dir-not-packaged": "/var/log is dom0's",
    "missing-dependency-to-logrotate": "every dom0 has it, and without it nothing breaks",
    "non-executable-script": "carried libraries are left as their wheels have them",
    "bad-manual-page-folder": "it takes .conf of xscontainer.conf.5 for the section",
    "explicit-lib-dependency": "nothing is looked for in carried libraries, so what they are linked with is named",
}


def test_rpmlint_finds_only_the_accepted_errors(packs: Packs) -> None:
    need_program("rpmlint")
    done = run("rpmlint", *[str(rpm_files(packs.current.tree, name)) for name in ALL])
    errors = [line for line in done.stdout.decode().splitlines()
              if ": E: " in line and line.split(": E: ")[1].split()[0] not in LINT_MEANT]
    assert b"4 packages" in done.stdout and not errors, "\n".join(errors) or done.stdout
