"""Make the parts of a pack that XAPI reads: update.xml, the repository, and the ISO with both."""

import os
from typing import List
from xml.sax.saxutils import escape, quoteattr

from rpm.pack.release import DESCRIPTION, LABEL, Release
from rpm.pack.tools import environment, run

COMPS = f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE comps PUBLIC "-//CentOS//DTD Comps info//EN" "comps.dtd">
<comps>
  <group>
    <id>update</id>
    <name>update</name>
    <description>{DESCRIPTION}</description>
    <default>false</default>
    <uservisible>true</uservisible>
    <packagelist>
      <packagereq type="mandatory">update-{LABEL}</packagereq>
    </packagelist>
  </group>
</comps>
"""


def update_xml(release: Release, installation_size: int) -> str:
    """Return the content of update.xml.

    :param installation_size: bytes; the precheck of XAPI compares it with the free space of /.
    """
    attributes = [
        ("name-label", LABEL), ("version", release.version), ("uuid", release.uuid),
        ("installation-size", str(installation_size)), ("key", release.key_file), ("control", f"control-{LABEL}"),
    ]
    head = " ".join(f"{name}={quoteattr(value)}" for name, value in attributes)
    return f"<update {head}><name-description>{escape(DESCRIPTION)}</name-description></update>"


def make_repository(tree: str, release: Release) -> None:
    """Make the directory of a pack a yum repository.

    :param tree: the directory, with RPMs in Packages/.
    """
    comps = os.path.join(tree, "comps.xml")
    with open(comps, "w", encoding="utf-8") as file:
        file.write(COMPS)
    run(["createrepo_c", "--quiet", "--checksum", "sha256", "--general-compress-type", "gz", "--no-database",
         "--revision", str(release.epoch_seconds), "--set-timestamp-to-revision", "--workers", "1",
         "--groupfile", comps, tree], environment(release.epoch_seconds))
    os.unlink(comps)


def make_iso(tree: str, path: str, release: Release) -> None:
    """Make an ISO 9660 image with Rock Ridge and Joliet; all times in it are the release's."""
    for directory, _, names in os.walk(tree):
        for name in names + ["."]:
            os.utime(os.path.join(directory, name), (release.epoch_seconds, release.epoch_seconds))
    command: List[str] = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-V", LABEL, "-A", release.uuid,
                          "-o", path, tree]
    run(command, environment(release.epoch_seconds))


def repo_file(release: Release) -> str:
    """Return a .repo file for an installation by yum; disabled, as XCP-ng requires of foreign repositories."""
    return "\n".join((
        f"[{LABEL}]", "name=" + DESCRIPTION, "# The pack's directory on this host.",
        f"baseurl=file:///opt/{release.name}", "enabled=0", "gpgcheck=1", "repo_gpgcheck=1",
        f"gpgkey=file:///etc/pki/rpm-gpg/{release.key_file}", ""))
