"""The key of a pack, and XAPI's rule for signatures with it."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from rpm.pack import signing
from rpm.pack.__main__ import main
from rpm.pack.tools import environment
from tests.pack.conftest import Packs, run

pytestmark = [pytest.mark.real, pytest.mark.limit(300)]


def gpg_status(home: str, path: str, signature: str) -> str:
    """Verify a signature with gpg as XAPI does."""
    done = subprocess.run(["gpg", "--homedir", home, "--no-default-keyring", "--keyring", "pubring.gpg",
                           "--status-fd", "1", "--verify", signature, path],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    return done.stdout.decode()


def trusted(status: str) -> bool:
    return "[GNUPG:] GOODSIG" in status and "[GNUPG:] TRUST_ULTIMATE" in status


def import_key(home: str, key: str, trust: bool) -> None:
    environ = environment(0, {"GNUPGHOME": home})
    subprocess.run(["gpg", "--batch", "-q", "--no-default-keyring", "--keyring", "pubring.gpg", "--import", key],
                   env=environ, check=True, timeout=60)
    listed = subprocess.run(["gpg", "--batch", "--with-colons", "--no-default-keyring", "--keyring", "pubring.gpg",
                             "--fingerprint"], env=environ, stdout=subprocess.PIPE, check=True, timeout=60)
    if trust:
        fingerprint = re.findall(r"(?m)^fpr:+([0-9A-F]{40}):", listed.stdout.decode())[0]
        subprocess.run(["gpg", "--batch", "-q", "--import-ownertrust"], env=environ, check=True, timeout=60,
                       input=f"{fingerprint}:6:\n".encode())


@pytest.mark.parametrize("name", ["update.xml", "repodata/repomd.xml"])
def test_xapis_rule_for_signatures_good_tampered_untrusted(packs: Packs, tmp_path: Path, name: str) -> None:
    path = os.path.join(packs.current.tree, name)
    tampered = tmp_path / "tampered"
    tampered.write_bytes(Path(path).read_bytes().replace(b"</", b" </", 1))
    with signing.keyring() as home:
        assert not trusted(gpg_status(home, path, path + ".asc")), "nobody knows the key"
        import_key(home, packs.current.key, trust=False)
        status = gpg_status(home, path, path + ".asc")
        assert "GOODSIG" in status and not trusted(status)
        import_key(home, packs.current.key, trust=True)
        assert trusted(gpg_status(home, path, path + ".asc"))
        assert not trusted(gpg_status(home, str(tampered), path + ".asc"))


def test_xapis_rule_for_signatures_expired(packs: Packs, tmp_path: Path) -> None:
    path = tmp_path / "update.xml"
    path.write_text("<update/>")
    with signing.keyring() as home:
        signing.generate(home, expire="seconds=1000")
        # Signed while the key was valid, verified after it expired.
        signer = signing.Signer(home, "xscontainer", "KEY")
        signer.sign_file(str(path))
        key = signer.export(str(tmp_path))
        with signing.keyring() as other:
            import_key(other, key, trust=True)
            assert trusted(gpg_status(other, str(path), f"{path}.asc"))
            done = subprocess.run(
                ["gpg", "--homedir", other, "--no-default-keyring", "--keyring", "pubring.gpg", "--status-fd", "1",
                 "--faked-system-time", "20990101T000000", "--verify", f"{path}.asc", str(path)],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
            assert b"EXPKEYSIG" in done.stdout and not trusted(done.stdout.decode())


# Options of gpg for a new key -> the reason against that key.
UNUSABLE = {
    "1y rsa3072 sign": "expires",
    "0 rsa1024 sign": "is not RSA with at least 2048 bits",
    "0 ed25519 sign": "is not RSA with at least 2048 bits",
    "0 rsa2048 cert": "is not a signing-only key",
    "0 rsa2048 sign,encr,auth": "is not a signing-only key",
    "0 rsa2048 sign revoked": "is revoked",
    "0 rsa2048 sign subkey": "has subkeys",
    "0 rsa2048 sign another": "names 2 keys",
}


def make_key(home: str, expire: str, algorithm: str, usage: str, *more: str) -> bytes:
    """Return the armored secret key of the directory ``home``."""
    environ = environment(0, {"GNUPGHOME": home})

    def gpg(*words: str) -> bytes:
        return subprocess.run(["gpg", "--batch", "--passphrase", "", "--pinentry-mode", "loopback", *words],
                              env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
                              timeout=60).stdout

    gpg("--quick-generate-key", "somebody", algorithm, usage, expire)
    (listed,) = re.findall(r"(?m)^fpr:+([0-9A-F]{40}):", gpg("--with-colons", "--list-secret-keys").decode())
    if "another" in more:
        gpg("--quick-generate-key", "somebody else", algorithm, usage, expire)
    if "subkey" in more:
        gpg("--quick-add-key", listed, algorithm, usage)
    if "revoked" in more:
        (certificate,) = Path(home, "openpgp-revocs.d").glob("*.rev")
        certificate.write_text(certificate.read_text().replace(":-----BEGIN", "-----BEGIN"))
        gpg("--import", str(certificate))
    return gpg("--armor", "--export-secret-keys")


@pytest.mark.parametrize("how", UNUSABLE)
def test_a_key_that_hosts_cannot_use_is_refused(
        tmp_path: Path, capsys: "pytest.CaptureFixture[str]", how: str) -> None:
    key = tmp_path / "secret.asc"
    with signing.keyring() as home:
        key.write_bytes(make_key(home, *how.split()))
    assert main(["--sign-key", str(key), "--output", str(tmp_path / "out")]) == 1
    assert UNUSABLE[how] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("by", ["file", "name"])
def test_a_release_is_signed_with_the_named_key(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    path = tmp_path / "update.xml"
    path.write_text("<update/>")
    with signing.keyring() as home:
        signing.generate(home)
        monkeypatch.setenv("GNUPGHOME", home)
        secret = subprocess.run(["gpg", "--batch", "--armor", "--export-secret-keys"], stdout=subprocess.PIPE,
                                check=True, timeout=60).stdout
        key = tmp_path / "secret.asc"
        key.write_bytes(secret)
        if by == "file":
            monkeypatch.setenv("GNUPGHOME", str(tmp_path))
        with signing.signer(str(key) if by == "file" else "xscontainer") as signer:
            signer.sign_file(str(path))
            public = signer.export(str(tmp_path))
        assert os.path.basename(public) == "RPM-GPG-KEY-xscontainer"
        with signing.keyring() as other:
            import_key(other, public, trust=True)
            assert trusted(gpg_status(other, str(path), f"{path}.asc"))


def test_the_public_key_is_plain(packs: Packs) -> None:
    done = run("gpg", "--homedir", packs.home, "--with-colons", "--show-keys", packs.current.key)
    lines = [line.split(":") for line in done.stdout.decode().splitlines()]
    (public,) = [line for line in lines if line[0] == "pub"]
    assert public[3] == "1" and int(public[2]) >= 2048 and public[6] == ""
    assert not [line for line in lines if line[0] == "sub"]
    assert Path(packs.current.key).name.startswith("RPM-GPG-KEY-")
