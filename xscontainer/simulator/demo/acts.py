"""The acts of the demo. They show only what happened: a part that fails raises SimulatorError."""

import json
import shlex
import subprocess
import sys
import time
from typing import List

from xscontainer import keys
from xscontainer.cli.listing.selection import Filter
from xscontainer.cli.listing.table import table
from xscontainer.cli.ui.columns import Line, Note, Row, lay_out
from xscontainer.cli.ui.terminal import Terminal
from xscontainer.engine.ssh.hostkeys import parse_pin
from xscontainer.errors import KeyNotAccepted
from xscontainer.simulator.demo import cloud
from xscontainer.simulator.demo.eye import Eye, engine_events
from xscontainer.simulator.demo.guests import BUILD, CLASSIC, FAILING, REASON, YOURS
from xscontainer.simulator.demo.screen import show
from xscontainer.simulator.engines import SimulatorError
from xscontainer.simulator.install import ROOT
from xscontainer.simulator.world import World
from xscontainer.xapi import inventory

CONTAINER = "hadoop"
NEW = "web"
COMMAND_SECONDS = 60.0


def aligned(text: str) -> str:
    """Return a text with aligned columns in place of the tabs that a command prints on a pipe."""
    lines: List[Line] = [Row(0, tuple(line.split("\t"))) if "\t" in line else Note(0, line)
                         for line in text.splitlines()]
    return lay_out(lines)


class Demo:
    """The acts on a world that has started."""

    def __init__(self, world: World, begun: float) -> None:
        self._world = world
        self._begun = begun

    def say(self, text: str) -> None:
        """Write a line with the time."""
        show(f"[{time.monotonic() - self._begun:5.1f} s] {text}\n")

    def show_tree(self) -> None:
        """Show pool, hosts, VMs and containers as read through XAPI."""
        with self._world.session() as session:
            pool = inventory.read(session)
        shown = sum(len(vm.containers) for host in pool.hosts for vm in host.vms)
        wanted = sum(len(vm.spec.containers) for vm in self._world.vms if vm.other_config.get(keys.MONITOR) == "True")
        made, terminal = table(pool, Filter(every=True), time.time()), Terminal.standard()
        show("\n" + aligned(terminal.text(made.lines(terminal) + made.note_lines(terminal))) + "\n")
        if shown != wanted:
            raise SimulatorError(f"{shown} containers are listed, but the VMs have {wanted}")

    def fail(self) -> None:
        """Start a container that dies at once, and show what the command line says about it."""
        world = self._world
        name = f"{BUILD}/{FAILING}"
        self.say(f"a container dies: {name} ends as soon as it is started. Why?")
        self.command("start", name)
        world.wait_published(BUILD, lambda listed: listed[FAILING].state == "exited")
        said = self.command("status", BUILD)
        for wanted in (f"{FAILING}  exited (3)", REASON, f"xscontainer logs {name}"):
            if wanted not in said:
                raise SimulatorError(f"xscontainer status {BUILD} does not say {wanted!r}")

    def onboard(self) -> None:
        """Diagnose a VM that nobody prepared, prepare it as its owner does, and show its containers."""
        world = self._world
        for vm in (vm for vm in world.vms if not vm.spec.prepared and vm.name != YOURS.name):
            self.say(f"diagnose VM {vm.name}, which nobody prepared")
            found = json.loads(world.call(0, "diagnose", vmuuid=vm.uuid)[len("True"):])
            self.say(f"  {found['code']}: {found['message']}")
            if found["code"] != KeyNotAccepted.code:
                raise SimulatorError(f"diagnose found {found['code']} instead of {KeyNotAccepted.code}")
            self.say(f"  next: {found['next']}")
            self.say("its owner prepares it: the fingerprint is from its console, the password on standard input")
            self.command("prepare", vm.name, "--user", vm.guest.user, "--fingerprint",
                         parse_pin(vm.guest.host_key_base64).fingerprint, "--password-fd", "0", given=vm.spec.password)
            with open(vm.guest.authorized_keys_path, encoding="utf-8") as file:
                if "ssh-rsa " not in file.read():
                    raise SimulatorError(f"the pool's key is not authorized in VM {vm.name}")

    def create(self) -> None:
        """Create a VM from a template; its host key is known before the first boot."""
        self.command("create", NEW, "--template", cloud.TEMPLATE, "--network", cloud.NETWORK,
                     "--image", cloud.IMAGE)
        self.command("ps", "--vm", NEW)

    def command(self, *words: str, given: str = "") -> str:
        """Run xscontainer's own command as on the coordinator; return its output.

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
            raise SimulatorError(f"xscontainer {words[0]} has not ended after {COMMAND_SECONDS:g} s") from error
        said = done.stdout.decode("utf-8", "replace")
        show("".join(f"    {line}\n" for line in aligned(said).splitlines()))
        if done.returncode:
            raise SimulatorError(f"xscontainer {words[0]} failed with exit code {done.returncode}")
        world.wait(lambda: True)  # notices an interrupt
        return said

    def act(self, eye: Eye, verb: str, event: str, state: str) -> None:
        """Call an action on another host than the VM's, and show when clients see the change."""
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
        """Migrate a VM live: its list stays, and the other host's monitor takes over."""
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
            raise SimulatorError(f"VM {CLASSIC} is not on {target.name_label} after its migration")
        sights = eye.since(before)
        gaps = sum(1 for sight in sights if sight.docker_ps is None)
        if gaps:
            raise SimulatorError(f"the list was missing in {gaps} of {len(sights)} looks during the migration")
        # Only the new host's monitor can publish the next changes.
        for verb, state in (("pause", "paused"), ("unpause", "running")):
            self.act(eye, verb, verb, state)
        world.wait_published(CLASSIC, lambda listed: set(listed) == {spec.name for spec in vm.spec.containers})
        self.say(f"  {CLASSIC} runs on {target.name_label} now; its list was there all the time, "
                 f"in each of the {len(sights)} events that a client got meanwhile")
