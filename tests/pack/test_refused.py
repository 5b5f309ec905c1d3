"""The package manager refuses wrong packs, with the configuration that XAPI writes for it."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, NamedTuple

import pytest

from rpm.pack import medium, signing
from rpm.pack.tools import environment
from tests.pack.conftest import Packs
from tests.pack.dom0 import Dom0

pytestmark = [pytest.mark.real, pytest.mark.limit(300)]
MADE, SIGNED = "20200101T000000", "20200601T000000"  # a key of one year


class Spoiled(NamedTuple):
    """A copy of a pack's tree, and the public key that the host trusts."""

    packs: Packs
    tree: Path
    key: str

    @property
    def ours(self) -> signing.Signer:
        return signing.Signer(self.packs.home, "xscontainer", "KEY")

    @property
    def repomd(self) -> Path:
        return self.tree / "repodata/repomd.xml"

    def describe_anew(self, signer: signing.Signer) -> None:
        """The repository tells the truth about its packages, whatever became of them, and is signed."""
        medium.make_repository(str(self.tree), self.packs.current.release)
        signer.sign_file(str(self.repomd))


def nothing(spoiled: Spoiled) -> Spoiled:
    spoiled.describe_anew(spoiled.ours)
    return spoiled


def changed_repository(spoiled: Spoiled) -> Spoiled:
    spoiled.repomd.write_bytes(spoiled.repomd.read_bytes().replace(b"</repomd>", b" </repomd>"))
    return spoiled


def repository_without_signature(spoiled: Spoiled) -> Spoiled:
    Path(str(spoiled.repomd) + ".asc").unlink()
    return spoiled


def changed_packages(spoiled: Spoiled) -> Spoiled:
    for path in (spoiled.tree / "Packages").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:-20] + bytes(byte ^ 1 for byte in content[-20:]))
    return spoiled


def changed_packages_in_a_signed_repository(spoiled: Spoiled) -> Spoiled:
    changed_packages(spoiled).describe_anew(spoiled.ours)
    return spoiled


def packages_without_signature(spoiled: Spoiled) -> Spoiled:
    for path in (spoiled.tree / "Packages").iterdir():
        subprocess.run(["rpmsign", "--delsign", str(path)], check=True, stdout=subprocess.DEVNULL, timeout=60)
    spoiled.describe_anew(spoiled.ours)
    return spoiled


def packages_of_an_untrusted_key(spoiled: Spoiled) -> Spoiled:
    with signing.signer(None) as other:
        other.sign_packages([str(path) for path in (spoiled.tree / "Packages").iterdir()])
    spoiled.describe_anew(spoiled.ours)
    return spoiled


def repository_of_an_untrusted_key(spoiled: Spoiled) -> Spoiled:
    with signing.signer(None) as other:
        spoiled.describe_anew(other)
    return spoiled


def repository_of_an_expired_key(spoiled: Spoiled) -> Spoiled:
    """The pack was signed while the key was valid, and the host trusts the key."""
    with signing.keyring() as home:
        signature = str(spoiled.repomd) + ".asc"
        for time, *words in ((MADE, "--quick-generate-key", "expired", "rsa2048", "sign", "1y"),
                             (SIGNED, "--armor", "--output", signature, "--detach-sign", str(spoiled.repomd))):
            subprocess.run(["gpg", "--batch", "--yes", "--faked-system-time", time, "--passphrase", ""] + words,
                           env=environment(0, {"GNUPGHOME": home}), check=True, stderr=subprocess.DEVNULL, timeout=60)
        key = signing.Signer(home, "expired", "RPM-GPG-KEY-expired").export(str(spoiled.tree.parent))
    return spoiled._replace(key=key)


# Way to spoil a pack -> message of dnf.
SPOILERS: "Dict[Callable[[Spoiled], Spoiled], str]" = {
    changed_repository: "Bad GPG signature",
    repository_without_signature: "repomd.xml.asc",
    changed_packages: "has incorrect checksum",
    changed_packages_in_a_signed_repository: "GPG check FAILED",
    packages_without_signature: "is not signed",
    packages_of_an_untrusted_key: "Public key for .* is not installed",
    repository_of_an_untrusted_key: "Bad GPG signature",
    repository_of_an_expired_key: "Bad GPG signature",
}


@pytest.fixture
def spoiled(packs: Packs, tmp_path: Path) -> Iterator[Spoiled]:
    tree = tmp_path / "tree"
    shutil.copytree(packs.current.tree, str(tree))
    yield Spoiled(packs, tree, packs.current.key)
    signing.end_agent(packs.home)


@pytest.fixture(scope="module")
def host() -> Iterator[Dom0]:
    """Yield one dom0 for all tests: nothing is installed in it."""
    with Dom0(None) as made:
        yield made


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_precheck_and_apply_refuse_a_pack_with_a_wrong_signature(
        spoiled: Spoiled, host: Dom0, spoil: Callable[[Spoiled], Spoiled]) -> None:
    told = SPOILERS[spoil]
    spoiled = spoil(spoiled)
    for step in (host.precheck, host.apply):
        output = step(str(spoiled.tree), spoiled.key, check=False)
        assert re.search(told, output), output[-3000:]
        assert host.installed() == []


def test_an_unchanged_copy_is_accepted(spoiled: Spoiled) -> None:
    spoiled = nothing(spoiled)
    with Dom0(None) as other:
        other.precheck(str(spoiled.tree), spoiled.key)
        other.apply(str(spoiled.tree), spoiled.key)
        assert len(other.installed()) == 4


def test_a_host_of_another_platform_fails_the_precheck(packs: Packs) -> None:
    with Dom0(None, platform_version="3.2.1") as other:
        assert "platform-version = 3.4.0" in other.precheck(packs.current.tree, packs.current.key, check=False)
        assert other.installed() == []
