"""A directory that stands for a dom0: real package manager, real scriptlets, CPython 3.6 and hardly anything else.

Its systemctl writes down what it is told and, where services run at all, starts and ends the monitor. What
it finds at the root says what there is: /xapi-is-active, or /chroot, where systemctl carries nothing out.
"""

import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any, List, Optional

import cryptography

from rpm.pack import packages
from rpm.pack.payload import PRIVATE
from rpm.pack.tools import environment
from tests.need import need, need_program
from tests.setup.prepare import look_up
from tests.waiting import until

EPOCH_SECONDS = 1700000000
UNIT = "xscontainer-monitor.service"
PATH = "/sbin:/usr/sbin:/bin:/usr/bin"  # the only directories that XAPI gives a plugin
APPLETS = "sh cat mkdir rm find echo sleep timeout sha256sum kill test env setsid ls touch true".split()
# Not copied with Python: they are large, and no program needs them.
NOT_COPIED = shutil.ignore_patterns("test", "tests", "site-packages", "__pycache__", "config-*", "idlelib", "tkinter",
                                    "ensurepip", "_tkinter*", "turtledemo", "lib2to3")
# dom0's own copies of libraries, which must never be imported; some are optional imports of carried libraries.
DECOYS = ("requests urllib3 paramiko docker cryptography six simplejson chardet OpenSSL brotli socks XenAPI "
          "xscontainer").split()

STUB = """
Name: stub-dom0
Version: 1
Release: 1
Summary: what dom0 provides
License: none
BuildArch: noarch
AutoReqProv: no
Provides: product-version = 8.3.0
Provides: platform-version = {platform_version}
Provides: python(abi) = {python}
Provides: /usr/bin/python3 /bin/sh systemd python3 libgcc glibc
%description
%files
%defattr(-,root,root,-)
/usr/bin/*
/usr/sbin
/bin
/sbin
"""

SYSTEMCTL = """#!/bin/sh
echo "$*" >> /systemctl.log
verb= quiet=
for word; do case $word in --quiet) quiet=1 ;; -*) ;; *) verb=${verb:-$word} ;; esac; done
told() { [ "$quiet" ] || echo $1; [ $1 = active ]; }
start() {
    mkdir -p -m 0700 /run/xscontainer
    rm -f /run/monitor.exit
    setsid env -i PATH=%(path)s sh -c '/usr/sbin/xscontainer-monitor & echo $! > /run/monitor.pid; wait $!
        code=$?; rm /run/monitor.pid; echo $code > /run/monitor.exit' > /monitor.out 2>&1 < /dev/null &
}
stop() {
    [ -e /run/monitor.pid ] || return 0
    kill $(cat /run/monitor.pid)
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ -e /run/monitor.exit ] && return 0
        sleep 1
    done
}
# Like in a chroot, where systemctl prints nothing and succeeds.
case $verb in is-enabled|preset|disable) ;; *) [ ! -e /chroot ] || exit 0 ;; esac
case $verb in
    is-active)
        case "$*" in *xapi.service*) mark=/xapi-is-active ;; *) mark=/run/monitor.pid ;; esac
        [ -e $mark ] && told active || told inactive ;;
    is-enabled) test -e /enabled ;;
    preset) : > /enabled ;;
    disable) rm -f /enabled ;;
    start) start ;;
    stop) stop ;;
    restart) stop; start ;;
    try-restart) if [ -e /run/monitor.pid ]; then stop; start; fi ;;
esac
""" % {"path": PATH}

# Like xapi writes it, except the path of the key: dnf looks for it outside the root.
YUM_CONF = """[main]
keepcache=0
reposdir=/dev/null
gpgcheck=1
repo_gpgcheck=1
installonlypkgs=
obsoletes=1
plugins=0
best=1
[xscontainer]
name=xscontainer
baseurl=file://{tree}
gpgcheck=1
repo_gpgcheck=1
gpgkey=file://{key}
"""


class Dom0:
    """A context manager.

    :param python: prefix of a CPython; None: without one, for what no program runs in.
    :param version: of that CPython, or what RPM believes that there is.
    """

    def __init__(self, python: Optional[str], platform_version: str = "3.4.0", version: str = "3.6") -> None:
        need(os.geteuid() == 0, "root, for chroot")
        for program, package in (("dnf", "dnf"), ("createrepo_c", "createrepo-c"), ("chroot", "coreutils")):
            need_program(program, package)
        self._python, self._platform_version = python, platform_version
        self._version, self._name = version, "python" + version

    def __enter__(self) -> "Dom0":
        self.root = Path(tempfile.mkdtemp(prefix="xd"))
        try:
            self._install_stub()
            self._more()
            if self._python:
                self._install_python(self._python)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop_monitor()
        finally:
            shutil.rmtree(str(self.root), ignore_errors=True)
            shutil.rmtree(str(self.root) + "-stub", ignore_errors=True)

    # --- what is there before the pack ---------------------------------------

    def _install_stub(self) -> None:
        work = Path(str(self.root) + "-stub")
        stage, repository = work / "stage", work / "repo"
        (stage / "usr/bin").mkdir(parents=True)
        (stage / "usr/sbin").mkdir()
        repository.mkdir()
        for name in ("bin", "sbin"):
            (stage / name).symlink_to("usr/" + name)
        shutil.copy(need_program("busybox", "busybox-static"), str(stage / "usr/bin/busybox"))
        for applet in APPLETS:
            (stage / "usr/bin" / applet).symlink_to("busybox")
        systemctl = stage / "usr/bin/systemctl"
        systemctl.write_text(SYSTEMCTL)
        systemctl.chmod(0o755)
        build_rpm(STUB.format(platform_version=self._platform_version, python=self._version), stage, repository)
        subprocess.run(["createrepo_c", "-q", str(repository)], check=True, timeout=60)
        self.dnf("install", "stub-dom0", conf=f"[main]\nreposdir=/dev/null\n[stub]\nname=stub\nbaseurl=file://{repository}\n"
                                              "gpgcheck=0\n")

    def _more(self) -> None:
        for directory in ("dev", "etc", "run", "tmp", "var/log", "var/lib/xcp"):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        for name, minor in (("null", 3), ("urandom", 9)):
            node = self.root / "dev" / name
            if not node.exists():
                os.mknod(str(node), stat.S_IFCHR | 0o666, os.makedev(1, minor))
        (self.root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")

    def _install_python(self, prefix: str) -> None:
        usr = self.root / "usr"
        program, library = usr / "bin" / self._name, usr / "lib" / self._name
        shutil.copy(os.path.join(prefix, "bin", self._name), str(program))
        (usr / "bin/python3").symlink_to(self._name)
        shutil.copytree(os.path.join(prefix, "lib", self._name), str(library), ignore=NOT_COPIED)
        # libgcc, which every dom0 has.
        self.copy_libraries(list(Path(os.path.dirname(str(cryptography.__file__))).rglob("*.so")))
        self.copy_libraries([program] + list((library / "lib-dynload").glob("*.so")))
        # Parts of the C library that old programs link, and new ones do not.
        (libc,) = list(self.root.rglob("libc.so.6"))
        for name in ("libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1", "libutil.so.1"):
            shutil.copy("/" + str(libc.with_name(name).relative_to(self.root)), str(libc.with_name(name)))
        # Debian's own Python has other directories than site-packages.
        asked = self.run("/usr/bin/python3", "-c", "import site; print(site.getsitepackages()[0])")
        site = self.path(asked.stdout.decode().strip())
        site.mkdir(parents=True)
        for decoy in DECOYS:
            (site / decoy).mkdir()
            (site / decoy / "__init__.py").write_text("open('/decoys', 'a').write(__name__ + '\\n')\n")
        (site / "decoy.pth").write_text("import sys; open('/decoys', 'a').write('pth\\n')\n")

    def copy_libraries(self, binaries: "List[Path]") -> "List[str]":
        """Have the shared libraries of ``binaries`` in the root, where this machine has them; their names."""
        told = subprocess.run(["ldd"] + [str(path) for path in binaries], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=60).stdout.decode()
        found = sorted(set(re.findall(r"(/\S+) \(0x", told)))
        for library in found:
            if library.startswith(str(self.root)):
                continue
            place = self.root / library[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                shutil.copy(library, str(place))
        return [os.path.basename(library) for library in found]

    # --- doing ------------------------------------------------------------------

    def dnf(self, *words: str, conf: str, check: bool = True) -> str:
        """Run dnf on the root with that configuration; its output. ``check``: whether it must succeed."""
        path = Path(str(self.root) + "-stub") / "yum.conf"
        path.write_text(conf)
        command = ["dnf", "-y", "--noplugins", "-c", str(path), f"--installroot={self.root}", "--releasever=7",
                   "--setopt=module_platform_id=platform:el7", *words]
        done = subprocess.run(command, env=environment(0), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=100)
        output = done.stdout.decode(errors="replace")
        assert (done.returncode == 0) is check, output[-6000:]
        # dnf must not use its cache of one repository for the next one.
        shutil.rmtree(str(self.root / "var/cache/dnf"), ignore_errors=True)
        return output

    def precheck(self, tree: str, key: str, check: bool = True) -> str:
        """Run the precheck, like XAPI before it applies a pack."""
        return self.dnf("install", "control-xscontainer", conf=YUM_CONF.format(tree=tree, key=key), check=check)

    def apply(self, tree: str, key: str, check: bool = True) -> str:
        """Install the group update, like XAPI."""
        return self.dnf("install", "@update", conf=YUM_CONF.format(tree=tree, key=key), check=check)

    def install_alone(self, tree: str, key: str, check: bool = True) -> str:
        """The payload, without what XAPI asks for."""
        return self.dnf("install", "xscontainer", conf=YUM_CONF.format(tree=tree, key=key), check=check)

    def enable_second_way(self, repo_file: str, tree: str, key: str) -> None:
        """Install the sample .repo file like an administrator, with the paths of tree and key."""
        text = Path(repo_file).read_text()
        for name, place in (("baseurl", tree), ("gpgkey", key)):
            text, count = re.subn(f"(?m)^{name}=file://.*$", f"{name}=file://{place}", text)
            assert count == 1
        directory = self.root / "etc/yum.repos.d"
        directory.mkdir(exist_ok=True)
        (directory / "xscontainer.repo").write_text(text)

    def remove(self) -> str:
        return self.dnf("remove", "xscontainer", "xscontainer-guest-templates", "update-xscontainer",
                        "control-xscontainer", conf="[main]\nreposdir=/dev/null\n")

    def run(self, *argv: str, **more: Any) -> "subprocess.CompletedProcess[bytes]":
        """In the root, in the environment of a plugin."""
        return subprocess.run(["chroot", str(self.root), *argv], env={"PATH": PATH}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, **more)

    def stop_monitor(self) -> None:
        pid = self.monitor_pid()
        if pid:
            os.kill(pid, signal.SIGTERM)
            until(lambda: self.path("run/monitor.exit").exists(), "the monitor does not end")

    def monitor_pid(self) -> int:
        """0 if it does not run."""
        try:
            return int(self.path("run/monitor.pid").read_text() or 0)
        except FileNotFoundError:
            return 0

    # --- looking ----------------------------------------------------------------

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def systemctl(self) -> "List[str]":
        """Return the calls of systemctl since the last question, without queries."""
        log = self.path("systemctl.log")
        told = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return [line for line in told if not line.startswith("is-")]

    def on_disk(self) -> int:
        """Bytes of what is carried, with what Python compiled of it."""
        return sum(path.lstat().st_blocks for path in self.path(PRIVATE).rglob("*")) * 512

    def installed(self) -> "List[str]":
        """Name and version of what is installed of ours."""
        command = ["rpm", "--root", str(self.root), "-qa", "--qf", "%{NAME} %{VERSION}\\n", "*xscontainer*"]
        told = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
        return sorted(told.stdout.decode().splitlines())


def prefix_of(version: str) -> str:
    """The prefix of a CPython, as a dom0 has it; "" where there is none here."""
    found = look_up("python" + version)
    if found is None:
        return ""
    base = subprocess.run([found.path, "-c", "import sys; print(sys.base_prefix)"],
                          stdout=subprocess.PIPE, timeout=60, check=True)
    return base.stdout.decode().strip()


def build_rpm(spec: str, stage: Path, output: Path) -> None:
    """Build a package of the files in ``stage``."""
    need_program("rpmbuild", "rpm")
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "x.spec"
        install = f"%install\nmkdir -p %{{buildroot}}\ncp -a {stage}/. %{{buildroot}}/\n"
        path.write_text(spec.replace("%files", install + "%files"))
        macros = dict(packages.MACROS, _topdir=work, _rpmdir=str(output))
        macros["_binaries_in_noarch_packages_terminate_build"] = "0"
        command = ["rpmbuild", "-bb", "--quiet", "--target", "noarch", str(path)]
        for key, value in macros.items():
            command += ["--define", f"{key} {value}"]
        subprocess.run(command, env=environment(EPOCH_SECONDS), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                       check=True, timeout=100)
