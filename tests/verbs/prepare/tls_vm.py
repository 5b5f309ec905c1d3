"""A VM whose engine is reached over TLS, and ``xscontainer-prepare-vm`` as a program."""

import os
import subprocess
import sys
import threading
import time
from typing import Any, List, Tuple

from tests.verbs.prepare.world import ROOT, Fresh
from xscontainer import keys
from xscontainer.certificates import making
from xscontainer.configdrive import isoread
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests.addresses import AddressBlock
from xscontainer.simulator.guests.tls import Certificates, flags, free_port
from xscontainer.xapi import disk

ON_DISC = ("ca.pem", "server-cert.pem", "server-key.pem")
SECRETS = (keys.TLS_CA_CERT, keys.TLS_CLIENT_CERT, keys.TLS_CLIENT_KEY)


def argv(world: Fresh, *words: str, host: int = 0) -> List[str]:
    return [sys.executable, "-W", "ignore", "-m", "xscontainer.cli.prepare_vm", "--config",
            world.daemons[host].config_path, *words]


def run(world: Fresh, *words: str, host: int = 0, **more: Any) -> Tuple[int, str, str]:
    done = subprocess.run(argv(world, *words, host=host), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=ROOT), timeout=90, **more)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class TLSVM:
    """A VM that only its engine answers in, as soon as somebody gives it certificates. A context manager."""

    def __init__(self, world: Fresh) -> None:
        self.world = world
        self.address = AddressBlock().addresses(1)[0]
        self.port = free_port(self.address)
        self.ref = world.pool.create_vm("windows", power_state="Halted", other_config={keys.TLS_PORT: str(self.port)})
        with world.session() as session:
            disk.cd_drive(session, self.ref, running=False)  # as every VM of a usual template has one
            session.xenapi.VM.start_on(self.ref, world.pool.hosts[1].ref, False, False)
        world.pool.set_networks(self.ref, {"0/ip": self.address, "0/ipv6/0": "2001:db8::7"})
        self.uuid = str(world.pool.vm(self.ref)["uuid"])
        self.directory = os.path.join(world.directory, "t" + self.uuid[:6])
        self.images: List[bytes] = []
        self.after = 0.0  # s in which somebody runs the script on a disc
        self.served = ""  # the engine's certificate now, PEM
        self.served_at_eject: List[str] = []
        self._engines: List[RealEngine] = []
        self._threads: List[threading.Thread] = []
        self._gone = threading.Event()
        os.makedirs(self.directory)

    def __enter__(self) -> "TLSVM":
        return self

    def __exit__(self, *_: object) -> None:
        self._gone.set()
        for thread in self._threads:
            thread.join()
        for engine in self._engines:
            engine.close()

    @property
    def config(self) -> Any:
        return self.world.pool.other_config(self.ref)

    def start(self, files: Certificates) -> None:
        """Over again, if it runs."""
        for engine in self._engines:
            engine.close()
        self._engines.append(RealEngine(self.directory + "/e", flags=flags(self.directory, files, self.address,
                                                                           self.port)))
        self._engines[-1].start()
        self.served = files.certificate
        self._engines[-1].run("web", ("sleep", "1000"))

    def on_disc(self, ref: str, event: str, vbd: str) -> None:
        """Somebody runs the script on the disc."""
        if ref == self.ref and event == "insert":
            with open(self.world.pool.disk_path(self.world.pool.record("VBD", vbd)["VDI"]), "rb") as file:
                self.images.append(file.read())
            self._threads.append(threading.Thread(target=self._install))
            self._threads[-1].start()
        elif ref == self.ref:
            self.served_at_eject.append(self.served)

    def _install(self) -> None:
        self._gone.wait(self.after)
        found = [isoread.file_in(self.images[-1], name) for name in ON_DISC]
        self.start(Certificates(*((text or b"").decode() for text in found)))

    def drives(self) -> List[Any]:
        return [record for record in self.world.pool.records("VBD").values()
                if record["VM"] == self.ref and record["type"] == "CD"]


def given(world: Fresh, tls: TLSVM) -> List[str]:
    """The admin's own certificates: arguments. The engine runs with them."""
    now = time.time()
    ca = making.new_ca("An admin's CA", now)
    server, client = making.new_server(ca, "engine", [tls.address], now), making.new_client(ca, "me", now)
    tls.start(Certificates(ca.certificate, server.certificate, server.key))
    words = []
    for name, text in (("client-cert", client.certificate), ("client-key", client.key), ("ca-cert", ca.certificate)):
        path = os.path.join(tls.directory, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        words += ["--" + name, path]
    return words
