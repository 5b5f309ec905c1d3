"""The product at work on this machine: ``make demo``, or ``python -m xscontainer.simulator.demo --help``.

A pool of hosts, guests with containers, the real daemon and plugin on every host. Shown is only what happened: a part
that does not come about ends the demo with exit code 1.
"""

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Callable, List, Optional

from xscontainer import keys
from xscontainer.cli import inventory, listing
from xscontainer.engine.hostkeys import parse_pin
from xscontainer.errors import KeyNotAccepted
from xscontainer.simulator import demo_cloud
from xscontainer.simulator.demo_cloud import Cloud
from xscontainer.simulator.demo_eye import Eye, engine_events
from xscontainer.simulator.engines import SimulatorError, processes
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import OpenSSHGuest
from xscontainer.simulator.world import ContainerSpec, Failure, GuestSpec, Interrupted, World
from xscontainer.simulator.world_daemon import ROOT
from xscontainer.simulator.xapi import ROOT_PASSWORD

CLASSIC = "classic"
CONTAINER = "hadoop"
PASSWORD = "only its owner knows"
GUESTS = (
    GuestSpec(CLASSIC, (
        ContainerSpec("hadoop", "hadoop:3.3", ("sleep", "100000")), ContainerSpec("tomcat", "tomcat:10"),
        ContainerSpec("mysql", "mysql:8.0"), ContainerSpec("apache", "httpd:2.4"))),
    GuestSpec("shop", (ContainerSpec("front", "nginx:1.27"), ContainerSpec("sessions", "redis:7", state="paused"))),
    GuestSpec("build", (ContainerSpec("runner", "runner:5"), ContainerSpec("last-job", "builder:12", state="exited"))),
    GuestSpec("fresh"),
    GuestSpec("legacy", (ContainerSpec("erp", "erp:9"),), monitored=False, prepared=False, password=PASSWORD),
)
NEW = "web"
COMMAND_SECONDS = 60.0
HELP = """\
To look at this pool yourself:

  Python    pip install XenAPI
            import XenAPI
            session = XenAPI.Session("http://127.0.0.1:{port}")
            session.xenapi.login_with_password("root", "{password}", "1.0", "me")
            session.xenapi.host.call_plugin(session.xenapi.host.get_all()[0], "xscontainer", "stop",
                                            {{"vmuuid": "{uuid}", "container": "{container}"}})
  Node.js   npm install xen-api
            const {{ createClient }} = await import("xen-api")
            const xapi = createClient({{ url: "http://127.0.0.1:{port}",
                                        auth: {{ user: "root", password: "{password}" }} }})
            await xapi.connect()
  Xen Orchestra on this machine
            Settings > Servers > Add server: http://127.0.0.1:{port}, user root, password {password}
  xscontainer's own command, in {tree}
            xscontainer() {{ {python} -m xscontainer.cli --config {config} "$@"; }}
            xscontainer list
            xscontainer create {new}-2 --template "{template}" --network {network} --image {image}
            xscontainer drive show {new}
"""
BRIEF = "To look at such a pool yourself, from Python, Node.js, Xen Orchestra or a shell: make demo ARGS=--stay"


class Demo:
    """The acts, one after the other, on a world that has started."""

    def __init__(self, world: World, begun: float) -> None:
        self._world = world
        self._begun = begun

    def say(self, text: str) -> None:
        """A line with the time; what a terminal cannot show gets a question mark."""
        show(f"[{time.monotonic() - self._begun:5.1f} s] {text}\n")

    def show_tree(self) -> None:
        """Pool -> host -> VM -> container, read through XAPI."""
        with self._world.session() as session:
            pool = inventory.read(session)
        shown = sum(len(vm.containers) for host in pool.hosts for vm in host.vms)
        wanted = sum(len(vm.spec.containers) for vm in self._world.vms if vm.other_config.get(keys.MONITOR) == "True")
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        show("\n" + listing.as_table(pool, columns) + "\n")
        if shown != wanted:
            raise SimulatorError(f"{shown} containers are listed, {wanted} are there")

    def onboard(self) -> None:
        """A VM that nobody prepared: what is wrong is told, its owner prepares it, and its containers are shown."""
        world = self._world
        for vm in (vm for vm in world.vms if not vm.spec.prepared):
            self.say(f"diagnose VM {vm.name}, which nobody prepared")
            found = json.loads(world.call(0, "diagnose", vmuuid=vm.uuid)[len("True"):])
            self.say(f"  {found['code']}: {found['message']}")
            if found["code"] != KeyNotAccepted.code:
                raise SimulatorError(f"the cause is {KeyNotAccepted.code}")
            self.say(f"  next: {found['next']}")
            self.say("its owner prepares it: the fingerprint is from its console, the password on standard input")
            self.command("prepare", vm.name, "--user", vm.guest.user, "--fingerprint",
                         parse_pin(vm.guest.host_key_base64).fingerprint, "--password-fd", "0", given=vm.spec.password)
            with open(vm.guest.authorized_keys_path, encoding="utf-8") as file:
                if "ssh-rsa " not in file.read():
                    raise SimulatorError(f"the pool's key is not in {vm.name}")

    def create(self) -> None:
        """A new VM out of a template, known before its first boot."""
        self.command("create", NEW, "--template", demo_cloud.TEMPLATE, "--network", demo_cloud.NETWORK,
                     "--image", demo_cloud.IMAGE)
        self.command("list", "--vm", NEW)

    def command(self, *words: str, given: str = "") -> None:
        """xscontainer's own command, as on the coordinator.

        :param given: its standard input.
        :raises SimulatorError: it failed.
        """
        world = self._world
        self.say("$ xscontainer " + " ".join(shlex.quote(word) for word in words))
        config = world.daemon(world.pool.coordinator).config_path
        # In a session of its own, so that Ctrl-C reaches only us.
        try:
            done = subprocess.run([sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config", config, *words],
                                  input=given.encode("utf-8"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  cwd=ROOT, timeout=COMMAND_SECONDS, start_new_session=True)
        except subprocess.TimeoutExpired as error:
            raise SimulatorError(f"xscontainer {words[0]} did not end in {COMMAND_SECONDS:g} s") from error
        show("".join(f"    {line}\n" for line in done.stdout.decode("utf-8", "replace").splitlines()))
        if done.returncode:
            raise SimulatorError(f"xscontainer {words[0]} ended with {done.returncode}")
        world.wait(lambda: True)  # notices an interrupt

    def act(self, eye: Eye, verb: str, event: str, state: str) -> None:
        """One action through host.call_plugin on another host than the VM's, and its way back to the clients."""
        world = self._world
        vm = world.vm(CLASSIC)
        home = vm.host
        other = next(host for host in world.pool.hosts if host is not home)
        assert home is not None
        self.say(f"{verb} {CONTAINER} in VM {CLASSIC}, which runs on {home.name_label}: "
                 f"host.call_plugin on {other.name_label}")
        before = len(eye.since())
        with engine_events(vm.guest.engine_socket) as moment_of:
            begun = time.monotonic()
            answer = world.act(other, verb, CLASSIC, CONTAINER)
            took = time.monotonic() - begun
            sight = eye.wait_state(CONTAINER, state, before)
            happened = moment_of(CONTAINER, event)
        if not answer.startswith("True"):
            raise SimulatorError(f"{verb} answered {answer[:200]!r}")
        status = world.wait_published(CLASSIC)[CONTAINER].status
        self.say(f"  clients saw '{status}' {(sight.at - happened) * 1000:.0f} ms after the engine's event; "
                 f"the call took {took * 1000:.0f} ms")

    def migrate(self, eye: Eye) -> None:
        """Live migration: the list stays, and the other host's monitor takes over."""
        world = self._world
        vm = world.vm(CLASSIC)
        home = vm.host
        target = next(host for host in world.pool.hosts if host is not home)
        assert home is not None
        self.say(f"live migration of VM {CLASSIC} from {home.name_label} to {target.name_label}")
        before = len(eye.since())
        with world.session() as session:
            session.xenapi.VM.pool_migrate(vm.ref, target.ref, {})
        eye.wait(f"{CLASSIC} on {target.name_label}", lambda sight: sight.host == target.ref, before)
        if vm.host is not target:
            raise SimulatorError(f"{CLASSIC} is not on {target.name_label}")
        sights = eye.since(before)
        gaps = sum(1 for sight in sights if sight.docker_ps is None)
        if gaps:
            raise SimulatorError(f"the list was missing in {gaps} of {len(sights)} looks during the migration")
        # What is seen next comes from the new host's monitor, and from nobody else.
        for verb, state in (("pause", "paused"), ("unpause", "running")):
            self.act(eye, verb, verb, state)
        world.wait_published(CLASSIC, lambda listed: set(listed) == {spec.name for spec in vm.spec.containers})
        self.say(f"  {CLASSIC} runs on {target.name_label} now; its list was there all the time, "
                 f"in each of the {len(sights)} events that a client got meanwhile")

    def explain(self) -> None:
        """How to point clients at it."""
        pool = self._world.pool
        show("\n" + HELP.format(
            port=pool.coordinator.tcp_port, password=ROOT_PASSWORD, uuid=self._world.vm(CLASSIC).uuid,
            container=CONTAINER, tree=ROOT, python=sys.executable, new=NEW, template=demo_cloud.TEMPLATE,
            image=demo_cloud.IMAGE, network=demo_cloud.NETWORK,
            config=self._world.daemon(pool.coordinator).config_path) + "\n")


def show(text: str) -> None:
    """Write at once; what a terminal cannot show gets a question mark."""
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def run(options: argparse.Namespace, stop: threading.Event) -> None:
    """The whole demo.

    :raises Failure: something did not happen. Interrupted: ``stop`` was set (not while it stays).
    """
    begun = time.monotonic()
    world = World(hosts=options.hosts, guests=guest_specs(options.guests), ssh=options.ssh,
                  engine="embedded" if options.no_docker else "auto", stop=stop,
                  progress=lambda text: demo.say(text))
    demo = Demo(world, begun)
    demo.say(parts(options))
    with world, Cloud(world):
        demo.say(f"every list is published, {world.wait_all_published():.1f} s later "
                 f"(engines: {world.guests.engine}, SSH: {world.guests.kind})")
        demo.show_tree()
        with Eye(world, CLASSIC) as eye:
            demo.act(eye, "stop", "die", "exited")
            demo.act(eye, "start", "start", "running")
            demo.migrate(eye)
        demo.onboard()
        demo.create()
        if options.stay:
            demo.explain()
            demo.say("it stays until Ctrl-C")
            stop.wait()
        else:
            demo.say(BRIEF)
        demo.say("ending")
    left = processes.mentioning(world.directory)
    if left or processes.mounts_below(world.directory):
        raise SimulatorError(f"something was left behind in {world.directory}: processes {sorted(left)}")
    demo.say("all of it is gone again")


def parts(options: argparse.Namespace) -> str:
    """Which kinds of guest and engine it will be, and why."""
    reason = "as asked for" if options.no_docker else RealEngine.missing()
    engine = f"embedded engines ({reason})" if reason else "Docker engines"
    reason = "as asked for" if options.ssh == "embedded" else OpenSSHGuest.missing()
    server = f"an embedded SSH server ({reason})" if reason else "OpenSSH"
    more = "" if reason else "; where a password is asked for, an embedded SSH server"
    return f"{options.guests} guests: {engine} behind {server}{more}"


def guest_specs(count: int) -> List[GuestSpec]:
    """So many guests: the well-known ones, then smaller ones."""
    more = [GuestSpec(f"vm{number}", (ContainerSpec("app", "app:1"),)) for number in range(len(GUESTS) + 1, count + 1)]
    return list(GUESTS[:count]) + more


def _number(low: int, high: int) -> Callable[[str], int]:
    """For argparse."""
    def parse(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {low} to {high}")
        return int(text)

    return parse


def main(arguments: Optional[List[str]] = None) -> int:
    """Exit code: 0 when all that was shown happened, 1 when something did not, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="make demo ARGS='...'", description=__doc__.split("\n\n")[1])
    parser.add_argument("--stay", action="store_true", help="keep everything running until Ctrl-C")
    parser.add_argument("--hosts", type=_number(2, 16), default=2, metavar="N", help="2 to 16, default 2")
    parser.add_argument("--guests", type=_number(1, 100), default=len(GUESTS), metavar="N",
                        help=f"1 to 100, default {len(GUESTS)}")
    parser.add_argument("--no-docker", action="store_true", help="embedded engines, even if dockerd can run here")
    parser.add_argument("--ssh", choices=("auto", "openssh", "embedded"), default="auto",
                        help="which SSH server the guests have; auto is OpenSSH where it is installed")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    # Only noted: what is starting or ending is never cut off half-way, so nothing can stay behind.
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        run(options, stop)
    except Interrupted:
        show("interrupted; all of it is gone again\n")
        return 130
    except Failure as error:
        sys.stderr.write(f"the demo failed: {error}\n")
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
