"""The programs that the tests run against: find them, and install what is missing where that is ours to do.

As root on Debian they are installed with apt-get, without starting any service. Elsewhere nothing
is installed: the tests skip what is absent, and under CI that is a failure.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
NODE = ROOT / "tests" / "clients" / "node"
POLICY = "/usr/sbin/policy-rc.d"
# cloud-init does nothing at a boot where this is.
CLOUD_INIT_OFF = "/etc/cloud/cloud-init.disabled"
APT = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
INSTALL_SECONDS = 1200


class Part(NamedTuple):
    package: str
    present: Callable[[], bool]


def say(text: str) -> None:
    """Progress goes to stderr: stdout carries the answer that the Makefile reads."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def find(program: str) -> str:
    """The path of ``program``, '' if absent. Servers are in directories that a user's PATH may lack."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return shutil.which(program, path=path) or ""


def _program(name: str) -> Callable[[], bool]:
    return lambda: bool(find(name))


def _package(name: str) -> Callable[[], bool]:
    """For what shows in no program's name (a library, a static build)."""

    def installed() -> bool:
        if not find("dpkg-query"):
            return False
        query = ["dpkg-query", "-W", "-f", "${Status}", name]
        asked = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
        return asked.stdout == b"install ok installed"

    return installed


PARTS: List[Part] = [
    Part("openssh-server", _program("sshd")),
    # A docker client may come from elsewhere; only the server tells that the engine is there.
    Part("docker.io", _program("dockerd")),
    Part("podman", _program("podman")),
    Part("mono-mcs", _program("mcs")),
    Part("libmono-system-xml4.0-cil", _package("libmono-system-xml4.0-cil")),
    Part("busybox-static", _package("busybox-static")),
    Part("iproute2", _program("ip")),
    Part("socat", _program("socat")),
    # Login shells of guests, and their passwords.
    Part("tcsh", _program("tcsh")),
    Part("zsh", _program("zsh")),
    Part("fish", _program("fish")),
    Part("openssl", _program("openssl")),
    Part("ncat", _program("ncat")),
    Part("nodejs", _program("node")),
    Part("npm", _program("npm")),
    # The supplemental pack is built, and installed into a directory.
    Part("rpm", _program("rpmbuild")),
    Part("createrepo-c", _program("createrepo_c")),
    Part("xorriso", _program("xorriso")),
    Part("gnupg", _program("gpg")),
    Part("genisoimage", _program("isoinfo")),
    Part("dnf", _program("dnf")),
    Part("rpmlint", _program("rpmlint")),
    Part("libxml2-utils", _program("xmllint")),
    Part("logrotate", _program("logrotate")),
    Part("systemd", _program("systemd-analyze")),
    # What goes into guests is checked by the programs that read it there.
    Part("cloud-init", _program("cloud-init")),
    Part("ignition", _program("ignition-validate")),
    Part("shellcheck", _program("shellcheck")),
]


def missing() -> List[str]:
    """Debian names of the parts that are not there."""
    return [part.package for part in PARTS if not part.present()]


def can_install() -> bool:
    return os.geteuid() == 0 and bool(find("apt-get"))


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """While packages are installed, Debian asks this program whether a service may start: no."""
    try:
        handle = os.open(POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except FileExistsError:
        yield  # The administrator's own policy holds.
        return
    try:
        with os.fdopen(handle, "w") as policy:
            policy.write("#!/bin/sh\nexit 101\n")
        yield
    finally:
        os.unlink(POLICY)


def _switch_cloud_init_off() -> None:
    """Installed for its checks, it must not set this machine up anew at the next boot."""
    os.makedirs(os.path.dirname(CLOUD_INIT_OFF), exist_ok=True)
    with open(CLOUD_INIT_OFF, "a"):
        pass


def _run(argv: List[str], env: Dict[str, str], cwd: Path = ROOT) -> bool:
    """Run with all output on stderr; true if it succeeded."""
    try:
        done = subprocess.run(
            argv, env=env, cwd=str(cwd), stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        say(f"gave up after {INSTALL_SECONDS} s: {' '.join(argv)}")
        return False
    return done.returncode == 0


def apt_install(packages: List[str]) -> bool:
    """Install Debian packages (as root); true if all went well."""
    say("installing " + " ".join(packages))
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    if "cloud-init" in packages:
        _switch_cloud_init_off()
    with _no_services():
        updated = _run(APT + ["update"], env)
        return updated and _run(APT + ["install", "-y", "--no-install-recommends"] + packages, env)


def _node_modules() -> bool:
    """Install the JavaScript clients that the lock file names; true if they are there."""
    lock = NODE / "package-lock.json"
    if not lock.exists():
        return True
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = NODE / "node_modules" / ".xscontainer-installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return True
    if not find("npm"):
        return False
    say("installing the JavaScript clients")
    command = [find("npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    if not _run(command, dict(os.environ), cwd=NODE):
        return False
    stamp.write_text(wanted)
    return True


def provide(strict: bool) -> bool:
    """Make the real parts available as far as that is possible here.

    :param strict: nothing may be missing in the end.
    :returns: false if strict and something is missing.
    """
    absent = missing()
    if absent and can_install():
        apt_install(absent)
        absent = missing()
    if not _node_modules():
        absent = absent + ["the JavaScript clients of tests/clients/node"]
    if absent:
        say("missing, tests that need it are skipped: " + ", ".join(absent))
    return not (absent and strict)
