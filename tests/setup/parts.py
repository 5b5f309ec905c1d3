"""Find the programs that the tests run against, and install missing ones if this process may install packages.

As root on Debian apt-get installs them, without starting any service. Elsewhere nothing is installed: tests of absent
parts are skipped, which is a failure under CI.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set

ROOT = Path(__file__).resolve().parent.parent.parent
NODE = ROOT / "tests" / "clients" / "node"
_NODE_STAMP = NODE / "node_modules" / ".xscontainer-installed"
POLICY = "/usr/sbin/policy-rc.d"
POLICY_TEXT = "#!/bin/sh\n# Made by xscontainer's set-up while it installs packages; safe to remove.\nexit 101\n"
APT = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
# cloud-init is installed for its checks only. Without these files it never changes this machine at a boot.
NOT_AT_BOOT = {"cloud-init": ("/lib/systemd/system-generators/cloud-init-generator", "/lib/systemd/system/cloud-*",
                              "/etc/init.d/cloud-*")}
INSTALL_SECONDS = 1200
_COUNT = re.compile(r"^\d+ upgraded, (\d+) newly installed", re.MULTILINE)
_DOWNLOAD = re.compile(r"^Need to get ([\d.,]+ \w?B)", re.MULTILINE)
_SPACE = re.compile(r"^After this operation, ([\d.,]+ \w?B) of additional disk space", re.MULTILINE)


# Groups of programs, for tests that start real servers or build packs. Other programs are named one by one.
SERVERS = "servers"
PACKS = "packs"


class Part(NamedTuple):
    """A part of the machine that tests need.

    :ivar programs: names that tests use; a word that is no program's name stands for a group of them.
    """

    package: str
    present: Callable[[], bool]
    programs: Sequence[str] = (SERVERS,)


def say(text: str) -> None:
    """Progress goes to stderr: stdout carries the answer that the Makefile reads."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def find(program: str) -> str:
    """Return the path of ``program``, '' if absent. Servers are in directories that a user's PATH may lack."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return shutil.which(program, path=path) or ""


def _program(name: str) -> Callable[[], bool]:
    return lambda: bool(find(name))


def _package(name: str) -> Callable[[], bool]:
    """Return a check for a part that has no program (a library, a static build)."""

    def installed() -> bool:
        if not find("dpkg-query"):
            return False
        query = ["dpkg-query", "-W", "-f", "${Status}", name]
        asked = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
        return asked.stdout == b"install ok installed"

    return installed


PARTS: List[Part] = [
    Part("openssh-server", _program("sshd"), [SERVERS, "sshd"]),
    # A docker client may come from elsewhere; only the server shows that the engine is installed.
    Part("docker.io", _program("dockerd"), [SERVERS, "docker"]),
    Part("podman", _program("podman"), [SERVERS]),
    Part("mono-mcs", _program("mcs"), ["mono", "mcs"]),
    Part("libmono-system-xml4.0-cil", _package("libmono-system-xml4.0-cil"), ["mono"]),
    Part("busybox-static", _package("busybox-static"), [SERVERS, PACKS, "busybox"]),
    Part("iproute2", _program("ip"), [SERVERS]),
    Part("socat", _program("socat"), [SERVERS, "socat"]),
    # Login shells of guests, and their passwords.
    Part("tcsh", _program("tcsh"), [SERVERS]),
    Part("zsh", _program("zsh"), [SERVERS, "zsh"]),
    Part("fish", _program("fish"), [SERVERS, "fish"]),
    Part("mksh", _program("mksh"), [SERVERS]),
    Part("dropbear-bin", _program("dropbear"), [SERVERS, "dropbear", "dropbearkey"]),
    Part("openssl", _program("openssl"), [SERVERS, "openssl"]),
    Part("ncat", _program("ncat"), [SERVERS]),
    Part("openssh-client", _program("ssh-keygen"), ["ssh-keygen", "ssh-agent", "ssh-add"]),
    Part("nodejs", _program("node"), ["node"]),
    Part("npm", _program("npm"), ["node", "npm"]),
    Part("groff-base", _program("groff"), ["groff"]),
    Part("git", _program("git"), [PACKS, "git", "git-shell"]),
    # The supplemental pack is built, and installed into a directory.
    Part("rpm", _program("rpmbuild"), [PACKS, "rpm", "rpmbuild", "rpm2cpio"]),
    Part("createrepo-c", _program("createrepo_c"), [PACKS, "createrepo_c"]),
    Part("cpio", _program("cpio"), [PACKS, "cpio"]),
    Part("xorriso", _program("xorriso"), [PACKS, "xorriso"]),
    Part("gnupg", _program("gpg"), [PACKS, "gpg"]),
    Part("genisoimage", _program("isoinfo"), [PACKS, "isoinfo", "genisoimage"]),
    Part("dnf", _program("dnf"), [PACKS, "dnf"]),
    Part("rpmlint", _program("rpmlint"), [PACKS, "rpmlint"]),
    Part("libxml2-utils", _program("xmllint"), [PACKS, "xmllint"]),
    Part("logrotate", _program("logrotate"), [PACKS, "logrotate"]),
    Part("systemd", _program("systemd-analyze"), [PACKS, "systemd-analyze"]),
    # Programs of guests, which check the files for guests.
    Part("cloud-init", _program("cloud-init"), ["cloud-init"]),
    Part("ignition", _program("ignition-validate"), ["ignition-validate"]),
    Part("shellcheck", _program("shellcheck"), ["shellcheck"]),
]


def missing(programs: Optional[Set[str]] = None) -> List[str]:
    """Debian names of the parts that are not there.

    :param programs: only of the parts that these need; None: of all.
    """
    return [part.package for part in PARTS
            if (programs is None or programs & set(part.programs)) and not part.present()]


def can_install() -> bool:
    return os.geteuid() == 0 and bool(find("apt-get"))


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """While packages are installed, Debian asks this program whether a service may start: no.

    The administrator's own policy is left alone. Ours goes also when we are told to end.
    """
    with contextlib.suppress(OSError):
        if Path(POLICY).read_text() == POLICY_TEXT:
            os.unlink(POLICY)  # of a set-up that was killed
    try:
        handle = os.open(POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except FileExistsError:
        yield
        return
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with os.fdopen(handle, "w") as policy:
            policy.write(POLICY_TEXT)
        yield
    finally:
        os.unlink(POLICY)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


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
    """Say how much will be installed for these Debian packages, and do it (as root); true if all went well."""
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8")
    command = APT + ["install", "--no-install-recommends"]
    for package in packages:
        for path in NOT_AT_BOOT.get(package, ()):
            command += ["-o", f"DPkg::Options::=--path-exclude={path}"]
    say("missing here: " + " ".join(packages))
    if not _run(APT + ["update"], env):
        return False
    say(f"installing {how_much(command + ['--assume-no'] + packages, env)}")
    with _no_services():
        return _run(command + ["-y"] + packages, env)


def how_much(command: List[str], env: Dict[str, str]) -> str:
    """Summarize what apt-get would install, such as "519 packages: 218 MB to download, 774 MB on disk"."""
    asked = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, timeout=INSTALL_SECONDS)
    text = asked.stdout.decode(errors="replace")
    count, download, space = (found and found.group(1) for found in
                              (_COUNT.search(text), _DOWNLOAD.search(text), _SPACE.search(text)))
    return f"{count or 'some'} packages: {download or 'nothing'} to download, {space or 'nothing more'} on disk"


def node_is_there() -> bool:
    """Return True if the installed JavaScript clients are those of the lock file."""
    return _NODE_STAMP.exists() and _NODE_STAMP.read_text() == _node_lock()


def _node_lock() -> str:
    return hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()


def _node_modules() -> bool:
    """Install the JavaScript clients that the lock file names; true if they are there."""
    if node_is_there():
        return True
    if not find("npm"):
        return False
    size = (NODE / "package-lock.json").read_text().count('"node_modules/')
    say(f"installing the JavaScript clients into {NODE.relative_to(ROOT)}: {size} packages")
    command = [find("npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    if not _run(command, dict(os.environ), cwd=NODE):
        return False
    _NODE_STAMP.write_text(_node_lock())
    return True


def provide(strict: bool, programs: Optional[Set[str]] = None) -> bool:
    """Install the missing parts as far as possible.

    :param strict: fail if a part is still missing.
    :param programs: what the chosen tests need, see :class:`Part`; None: all.
    :returns: false if strict and something is missing.
    """
    absent = missing(programs)
    if absent and can_install():
        apt_install(absent)
        absent = missing(programs)
    if (programs is None or "node" in programs) and not _node_modules():
        absent = absent + ["the JavaScript clients of tests/clients/node"]
    if absent:
        say("missing, so tests that need it are skipped: " + ", ".join(absent))
    return not (absent and strict)
