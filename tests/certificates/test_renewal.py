"""The pool's client certificate and CA are renewed before they expire, while engines still trust the old CA."""

import contextlib
import time
from pathlib import Path
from typing import Any, Callable, List, Mapping

import pytest

from tests.certificates.test_making import DAY, NOW, damaged, login, pool, secret, session, vm  # noqa: F401 - fixtures
from tests.engine.peers import Script, Server
from tests.engine.tls_peers import Authority, connect, over_tls, server_context
from xscontainer import certificates, keys
from xscontainer.certificates import making, renewal
from xscontainer.engine.tls import certs
from xscontainer.errors import ObjectGone, TLSCredentialsInvalid
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi import pool as xapi_pool
from xscontainer.xapi import stored_certificate
from xscontainer.xapi.session import Session
from xscontainer.xapi.stored_certificate import StoredCertificate

WRITE = "secret.set_value"


class Scene:
    """A pool with certificates that were made for one VM, ``made`` seconds since the epoch."""

    def __init__(self, simulated: Pool, logged_in: Session, made: float) -> None:
        self.pool, self.session = simulated, logged_in
        self.vm = vm(simulated, logged_in)
        self.first = self.issue(made)

    def issue(self, now: float) -> certificates.Issued:
        return certificates.issue(self.session, self.vm, ["127.0.0.1"], now)

    def renew(self, now: float) -> List[str]:
        return renewal.renew(self.session, xapi_pool.record(self.session), now)

    def held(self, key: str) -> StoredCertificate:
        return stored_certificate.read(self.session, xapi_pool.record(self.session).other_config[key])

    @property
    def client(self) -> StoredCertificate:
        return self.held(keys.TLS_CLIENT_SECRET)

    @property
    def ca(self) -> StoredCertificate:
        return self.held(keys.TLS_CA_SECRET)

    def credentials(self) -> certs.Credentials:
        """Return the certificates as each host reads them, by the keys that were set in the VM once."""
        config = self.first.other_config
        return certs.Credentials(*(secret(self.session, config[key]) for key in (
            keys.TLS_CA_CERT, keys.TLS_CLIENT_CERT, keys.TLS_CLIENT_KEY)))


@pytest.fixture
def scene(pool: Pool, session: Session) -> Callable[[float], Scene]:  # noqa: F811
    return lambda made: Scene(pool, session, made)


def end(pem: str) -> float:
    return certs.validity(certs.load(pem))[1]


@pytest.mark.parametrize("left, due", [(31 * DAY, False), (30 * DAY, False), (30 * DAY - 1, True), (-DAY, True)])
def test_a_certificate_is_due_for_renewal_30_days_before_it_expires(left: float, due: bool) -> None:
    assert renewal.due(NOW + left, NOW) is due


def test_nothing_is_renewed_in_a_pool_without_certificates(session: Session) -> None:  # noqa: F811
    assert renewal.renew(session, xapi_pool.record(session), NOW) == []


def test_the_client_certificate_is_renewed_for_all_vms_before_it_expires(scene: Callable[[float], Scene]) -> None:
    world = scene(NOW)
    old, ca = world.client, world.ca
    assert world.renew(NOW + 794 * DAY) == [] and world.client == old
    assert world.renew(NOW + 796 * DAY) == ["client certificate"]
    new = world.client
    assert new.certificate_uuid == old.certificate_uuid and new.key != old.key and world.ca == ca
    certs.client_context(world.credentials())
    assert end(new.certificate) == NOW + (796 + 825) * DAY
    world.session.xenapi.secret.destroy(world.session.xenapi.secret.get_by_uuid(new.key_uuid))
    with pytest.raises(ObjectGone):
        world.renew(NOW)


@pytest.mark.parametrize("day", [2764, 2766, 3600, 3619, 3625, 3651, 5000])
def test_a_second_renewal_changes_nothing(scene: Callable[[float], Scene], day: int) -> None:
    """This holds for the CA, too, however late the renewal is."""
    world = scene(NOW)
    world.renew(NOW + day * DAY)
    world.pool.stats.reset()
    assert world.renew(NOW + day * DAY + 300) == [] and world.pool.stats.calls(WRITE) == 0


def test_a_ca_whose_key_does_not_match_is_an_error(scene: Callable[[float], Scene]) -> None:
    world = scene(NOW)
    stored_certificate.replace(world.session, world.ca, world.ca.certificate, world.client.key)
    with pytest.raises(TLSCredentialsInvalid, match="do not match"):
        world.renew(NOW + 800 * DAY)


# --- the next CA


class Engines:
    """TLS servers with the files that guests were given at different times."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._servers = directory, []  # type: Path, List[Server]

    def start(self, files: Mapping[str, bytes]) -> Server:
        directory = self._directory / str(len(self._servers))
        directory.mkdir()
        text = {name: content.decode("ascii") for name, content in files.items()}
        given = Authority(making.Pair(text["ca.pem"], ""),
                          making.Pair(text["server-cert.pem"], text["server-key.pem"]), making.Pair("", ""))
        self._servers.append(Server(over_tls(server_context(str(directory), given), Script())))
        return self._servers[-1]

    def close(self) -> None:
        for server in self._servers:
            server.close()


@pytest.fixture
def engines(tmp_path: Path) -> Any:
    made = Engines(tmp_path)
    yield made
    made.close()


def reached(world: Scene, server: Server) -> None:
    connect(world.credentials(), server.port, vm=world.vm.uuid).close()


def test_engines_with_the_old_and_the_new_ca_are_reached_during_a_change_of_ca(scene: Callable[[float], Scene],
                                                                   engines: Engines) -> None:
    now = time.time()
    world = scene(now - 2766 * DAY)
    old_ca, old_end = world.ca, now + 884 * DAY
    for before in (1965, 1165, 365):
        assert world.renew(now - before * DAY) == ["client certificate"]
    last = engines.start(world.issue(now - 2 * DAY).files)
    assert world.renew(now - 2 * DAY) == []
    reached(world, last)
    assert world.renew(now) == ["client certificate", "CA"]
    # VMs name the same secrets as before. Hosts trust both CAs, and so do guests that get files now.
    assert world.ca.certificate_uuid == old_ca.certificate_uuid and old_ca.certificate in world.ca.certificate
    fresh = world.issue(now)
    assert fresh.files["ca.pem"].decode() == world.ca.certificate
    assert fresh.other_config == world.first.other_config
    # The client certificate is valid longer than that of any engine that trusts only the old CA.
    assert abs(end(world.client.certificate) - old_end) < 2 * DAY and old_end > now + (825 + 30) * DAY
    reached(world, last)
    reached(world, engines.start(fresh.files))
    # The next client certificate is signed by the new CA.
    assert world.renew(now + 850 * DAY) == []
    assert world.renew(now + 860 * DAY) == ["client certificate"]
    newest, older = certs.each(world.ca.certificate)
    client = certs.load(world.client.certificate)
    assert certs.signer_of(client, older) is None and certs.signer_of(client, newest) is not None
    # The next renewal leaves out the expired CA.
    assert world.renew(now + 2800 * DAY) == ["client certificate", "CA"]
    assert certs.each(world.ca.certificate)[1:] == [newest]


def test_an_engine_with_both_cas_accepts_client_certificates_of_either(scene: Callable[[float], Scene],
                                                            engines: Engines) -> None:
    now = time.time()
    world = scene(now - 3630 * DAY)
    old = making.new_client(making.Pair(world.ca.certificate, world.ca.key), "x", now)
    assert world.renew(now) == ["CA", "client certificate"], "too late for another one of the old CA"
    server = engines.start(world.issue(now).files)
    reached(world, server)
    connect(world.credentials()._replace(certificate=old.certificate, key=old.key), server.port,
            vm=world.vm.uuid).close()


@pytest.mark.parametrize("writes", range(4))
def test_an_interrupted_renewal_is_completed_by_the_next(scene: Callable[[float], Scene], engines: Engines,
                                                   monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """The power of the coordinator fails after each of the writes."""
    now = time.time()
    world = scene(now - 2766 * DAY)
    left = [writes]

    def failing(session: Session, old: StoredCertificate, certificate: str, key: str) -> StoredCertificate:  # noqa: F811
        for uuid, value in ((old.key_uuid, key), (old.certificate_uuid, certificate)):
            if not left[0]:
                raise TimeoutError("no power")
            left[0] -= value != secret(session, uuid)
            session.xenapi.secret.set_value(session.xenapi.secret.get_by_uuid(uuid), value)
        return old._replace(certificate=certificate, key=key)

    with monkeypatch.context() as patch:
        patch.setattr(stored_certificate, "replace", failing)
        with pytest.raises(TimeoutError):
            world.renew(now)
    world.renew(now)
    assert world.renew(now + 300) == [] and len(certs.each(world.ca.certificate)) == 2
    reached(world, engines.start(world.issue(now).files))


@pytest.mark.filterwarnings("ignore")  # warnings about invalid serial numbers
def test_damaged_secrets_are_reported_with_a_code(scene: Callable[[float], Scene]) -> None:
    """The coordinator reports every kind of damage in the pool's secrets, and goes on."""
    now = time.time()
    pool_scene = scene(now)
    ca, client = pool_scene.ca, pool_scene.client
    texts = [damaged(ca.certificate, number) for number in range(100)] + ["", "x", "é", ca.key, ca.certificate[:200]]
    for text in texts:
        for kept, other in ((ca, client), (client, ca)):
            ref = pool_scene.session.xenapi.secret.get_by_uuid(kept.certificate_uuid)
            pool_scene.pool.set_field("secret", ref, "value", text)
            with contextlib.suppress(TLSCredentialsInvalid):
                pool_scene.renew(now)
            for back in (kept, other):
                for uuid, value in ((back.certificate_uuid, back.certificate), (back.key_uuid, back.key)):
                    ref = pool_scene.session.xenapi.secret.get_by_uuid(uuid)
                    pool_scene.pool.set_field("secret", ref, "value", value)
