"""Certificates are made for one purpose, accepted by TLS libraries, and kept in secrets."""

import contextlib
import os
import random
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.need import need_program
from xscontainer import certificates, keys
from xscontainer.certificates import making
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.tls import certs
from xscontainer.errors import (
    AddressRefused,
    AddressUnknown,
    ArgumentError,
    TLSCredentialsInvalid,
    TLSCredentialsMissing,
)
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi import stored_certificate
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

NOW = 1893456000.0  # 2030
DAY = 86400.0
Made = Callable[[], Dict[str, Any]]
GUEST_CONFIG = str(Path(__file__).resolve().parent.parent.parent / "guest-config")


@pytest.fixture(scope="module")
def ca() -> making.Pair:
    return making.new_ca("a CA", NOW)


def extension(pem: str, kind: Any) -> Any:
    return certs.load(pem).extensions.get_extension_for_class(kind)


# --- what is made


def test_a_ca_may_sign_and_nothing_else(ca: making.Pair) -> None:
    basic = extension(ca.certificate, x509.BasicConstraints)
    assert basic.critical and basic.value.ca and basic.value.path_length == 0
    usage = extension(ca.certificate, x509.KeyUsage)
    assert usage.critical and usage.value.key_cert_sign and not usage.value.digital_signature
    assert certs.validity(certs.load(ca.certificate)) == (NOW - DAY, NOW + 3650 * DAY)


@pytest.mark.parametrize("kind", ["server", "client"])
def test_each_certificate_has_one_purpose(ca: making.Pair, kind: str) -> None:
    made = making.new_server(ca, "x", ["10.0.0.1"], NOW) if kind == "server" else making.new_client(ca, "x", NOW)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if kind == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    assert list(extension(made.certificate, x509.ExtendedKeyUsage).value) == [purpose]
    basic, usage = (extension(made.certificate, cls) for cls in (x509.BasicConstraints, x509.KeyUsage))
    assert basic.critical and not basic.value.ca
    assert usage.critical and usage.value.digital_signature and not usage.value.key_cert_sign
    authority = extension(made.certificate, x509.AuthorityKeyIdentifier).value.key_identifier
    assert authority == extension(ca.certificate, x509.SubjectKeyIdentifier).value.digest
    assert extension(made.certificate, x509.SubjectKeyIdentifier).value.digest != authority
    assert certs.validity(certs.load(made.certificate)) == (NOW - DAY, NOW + 825 * DAY)


def test_a_server_certificate_names_each_address_once(ca: making.Pair) -> None:
    made = making.new_server(ca, "x", ["10.0.0.1", "fd00::0001", "web.example", "10.0.0.1"], NOW)
    assert certs.facts(certs.load(made.certificate)).names == ("10.0.0.1", "fd00::1", "web.example")
    bound = making.new_server(ca, "x", ["10.0.0.1"], NOW, "4a1b2c3d-0000-4000-8000-123456789abc")
    assert certs.facts(certs.load(bound.certificate)).names == (
        "10.0.0.1", "urn:uuid:4a1b2c3d-0000-4000-8000-123456789abc")


@pytest.mark.parametrize("wrong", [[], [""], ["caf\u00e9.example"], ["foo bar"], ["10.0.0.300"], ["*"], ["*.example"],
                                   ["a" * 300], ["fe80::1%eth0"], ["127.1"]], ids=repr)
def test_names_that_are_neither_address_nor_host_name_are_refused(ca: making.Pair, wrong: List[str]) -> None:
    with pytest.raises(ValueError):
        making.new_server(ca, "x", wrong, NOW)


def test_no_certificate_outlives_its_ca(ca: making.Pair) -> None:
    late = NOW + 3600 * DAY
    assert certs.validity(certs.load(making.new_client(ca, "x", late).certificate))[1] == NOW + 3650 * DAY


def test_serial_numbers_differ(ca: making.Pair) -> None:
    made = [making.new_client(ca, "x", NOW) for _ in range(5)]
    assert len({certs.load(one.certificate).serial_number for one in made}) == 5
    assert len({one.key for one in made}) == 5


def test_a_certificate_that_cannot_sign_is_refused_as_ca(ca: making.Pair) -> None:
    for wrong in (ca._replace(key=making.new_ca("x", NOW).key), ca._replace(key="x"), ca._replace(certificate="x")):
        with pytest.raises(ValueError):
            making.check(wrong, NOW)
    making.check(ca, NOW)
    with pytest.raises(ValueError, match="it has expired"):
        making.check(ca, NOW + 3650 * DAY)


def test_openssl_accepts_the_certificates_in_strict_mode(ca: making.Pair, tmp_path: Any) -> None:
    (tmp_path / "ca.pem").write_text(ca.certificate)
    for purpose, made in (("sslserver", making.new_server(ca, "x", ["10.0.0.1"], NOW)),
                          ("sslclient", making.new_client(ca, "x", NOW))):
        (tmp_path / "x.pem").write_text(made.certificate)
        done = subprocess.run(
            [need_program("openssl"), "verify", "-x509_strict", "-purpose", purpose, "-attime", str(int(NOW)),
             "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "x.pem")],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
        assert done.returncode == 0, done.stdout.decode()


def test_the_ssl_module_accepts_the_certificates(ca: making.Pair) -> None:
    client = making.new_client(ca, "x", NOW)
    context = certs.client_context(certs.Credentials(ca.certificate, client.certificate, client.key))
    assert context.verify_mode == ssl.CERT_REQUIRED


# --- malformed ones


def damaged(pem: str, number: int) -> str:
    """Return the certificate with a few bytes changed; ``number`` seeds the changes."""
    chance, der = random.Random(number), bytearray(ssl.PEM_cert_to_DER_cert(pem))
    for _ in range(chance.choice([1, 1, 2, 3])):
        der[chance.randrange(len(der))] = chance.choice([chance.randrange(256), 0, 255, 5, 0x13, 0x30])
    return ssl.DER_cert_to_PEM_cert(bytes(der))


# The warnings are about invalid serial numbers, which this test does not check.
@pytest.mark.filterwarnings("ignore")
def test_every_use_of_a_damaged_certificate_raises_value_error(ca: making.Pair) -> None:
    whole = certs.load(ca.certificate)
    for number in range(1000):
        pem = damaged(ca.certificate, number)
        for use in (lambda: making.check(making.signer(pem, ca.key), NOW),  # noqa: B023 - called at once
                    lambda: making.new_client(making.Pair(pem, ca.key), "x", NOW),  # noqa: B023
                    lambda: certs.facts(certs.load(pem)),  # noqa: B023
                    lambda: certs.signer_of(whole, pem)):  # noqa: B023
            with contextlib.suppress(ValueError):
                use()


# --- where it is kept


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(str(tmp_path_factory.mktemp("x")), hosts=2, tcp=False) as made:
        yield made


@pytest.fixture
def login(pool: Pool) -> Iterator[Callable[[], Session]]:
    made: List[Session] = []

    def make() -> Session:
        made.append(Session.login(pool.coordinator.socket_path, "test", 10.0, 5.0))
        return made[-1]

    yield make
    for session in made:
        session.logout()


@pytest.fixture
def session(login: Callable[[], Session]) -> Session:
    return login()


def vm(pool: Pool, session: Session) -> VMRecord:
    return xapi_vm.record(session, pool.vm(pool.create_vm("web", networks={"0/ip": "10.0.0.5"}))["uuid"])


@pytest.fixture
def made(session: Session) -> Callable[[], Dict[str, Any]]:
    """Return the secrets that were added to the pool."""
    before = set(session.xenapi.secret.get_all())
    return lambda: {ref: record for ref, record in session.xenapi.secret.get_all_records().items() if ref not in before}


def secret(session: Session, uuid: str) -> str:
    return str(session.xenapi.secret.get_value(session.xenapi.secret.get_by_uuid(uuid)))


def test_the_pool_has_one_ca_and_one_client_certificate(pool: Pool, session: Session, made: Made) -> None:
    first, second = (certificates.issue(session, vm(pool, session), ["10.0.0.5"], NOW) for _ in range(2))
    assert first.other_config == second.other_config and first.other_config[keys.MODE] == "tls"
    ca_pem, client, key = (secret(session, first.other_config[name]) for name in (
        keys.TLS_CA_CERT, keys.TLS_CLIENT_CERT, keys.TLS_CLIENT_KEY))
    assert "PRIVATE" not in ca_pem + client
    certs.client_context(certs.Credentials(ca_pem, client, key))
    for issued in (first, second):
        assert issued.files["ca.pem"].decode() == ca_pem
        signed = certs.load(issued.files["server-cert.pem"].decode())
        assert certs.signer_of(signed, ca_pem) is not None and certs.facts(signed).names[0] == "10.0.0.5"
        assert issued.ends == NOW + 825 * DAY
    assert first.files["server-key.pem"] != second.files["server-key.pem"]
    # The guest's files are not kept, and nothing secret is readable for everybody.
    records = made()
    assert len(records) == 4
    assert first.files["server-key.pem"].decode() not in [record["value"] for record in records.values()]
    seen = repr((first, stored_certificate.read(session, first.other_config[keys.TLS_CLIENT_KEY]),
                 session.xenapi.pool.get_all_records(), [record["other_config"] for record in records.values()]))
    assert "BEGIN" not in seen


def test_a_server_certificate_is_bound_to_its_vm(pool: Pool, session: Session) -> None:
    record = vm(pool, session)
    issued = certificates.issue(session, record, ["10.0.0.5"], NOW)
    signed = certs.load(issued.files["server-cert.pem"].decode())
    assert certs.facts(signed).names == ("10.0.0.5", f"urn:uuid:{record.uuid}")


def test_a_server_certificate_names_the_set_and_the_reported_addresses(pool: Pool, session: Session) -> None:
    record = vm(pool, session)._replace(networks={"0/ip": "10.0.0.5", "0/ipv6/0": "fd00::5", "1/ip": "10.0.0.1",
                                                  "2/ip": "127.0.0.1", "3/ip": "*"})
    hosts = {"10.0.0.1", "10.0.0.2"}

    def chosen(address: str) -> VMRecord:
        return record._replace(other_config={keys.ADDRESS: address})

    assert certificates.names(record, hosts) == ("10.0.0.5", "fd00::5"), "never a host's address"
    assert certificates.names(chosen("Web.Example"), hosts) == ("web.example", "10.0.0.5", "fd00::5")
    assert certificates.names(chosen("fd00::05"), hosts) == ("fd00::5", "10.0.0.5")
    assert certificates.names(chosen("10.9.9.9")._replace(networks={}), hosts) == ("10.9.9.9",)
    for address, error in (("10.0.0.2", AddressRefused), ("foo bar", ArgumentError)):
        with pytest.raises(error):
            certificates.names(chosen(address), hosts)
    with pytest.raises(AddressUnknown):
        certificates.names(record._replace(networks={"0/ip": "10.0.0.1"}), hosts)


def test_two_hosts_at_once_make_one_ca(pool: Pool, login: Callable[[], Session], made: Made) -> None:
    barrier = threading.Barrier(4)
    found: List[Any] = []

    def make(session: Session, record: VMRecord) -> None:
        barrier.wait(10)
        found.append(certificates.issue(session, record, ["10.0.0.5"], NOW).other_config)

    sessions = [login() for _ in range(4)]
    threads = [threading.Thread(target=make, args=(session, vm(pool, session))) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 4 and all(one == found[0] for one in found)
    assert len(made()) == 4


def test_a_lost_answer_makes_no_second_ca(pool: Pool, session: Session, made: Made) -> None:
    record = vm(pool, session)
    pool.faults("pool.add_to_other_config", "drop-after", times=1)
    issued = certificates.issue(session, record, ["10.0.0.5"], NOW)
    assert issued.other_config == certificates.issue(session, record, ["10.0.0.5"], NOW).other_config
    assert len(made()) == 4


def test_lost_secrets_are_an_error_and_not_replaced(pool: Pool, session: Session) -> None:
    """Guests trust the lost CA: with a new one they would refuse connections without a clear reason."""
    record = vm(pool, session)
    issued = certificates.issue(session, record, ["10.0.0.5"], NOW)
    session.xenapi.secret.destroy(session.xenapi.secret.get_by_uuid(issued.other_config[keys.TLS_CA_CERT]))
    with pytest.raises(TLSCredentialsMissing, match="Remove xscontainer-tls-ca-secret-uuid"):
        certificates.issue(session, record, ["10.0.0.5"], NOW)


def test_a_secret_that_holds_no_ca_is_an_error(pool: Pool, session: Session) -> None:
    (pool_ref,) = session.xenapi.pool.get_all()
    stored_certificate.get_or_create(session, pool_ref, keys.TLS_CA_SECRET, lambda: ("no certificate", "no key"))
    with pytest.raises(TLSCredentialsInvalid) as caught:
        certificates.issue(session, vm(pool, session), ["10.0.0.5"], NOW)
    assert "no key" not in str(caught.value)


# --- what the guest gets


def test_the_cd_has_every_file_that_its_scripts_read(pool: Pool, session: Session) -> None:
    files = dict(certificates.issue(session, vm(pool, session), ["10.0.0.5"], NOW).files)
    files.update(certificates.scripts(GUEST_CONFIG))
    assert set(files) == {"ca.pem", "server-cert.pem", "server-key.pem", "enable-tls.sh", "enable-tls.ps1",
                          "README.txt"}
    for script in ("enable-tls.sh", "enable-tls.ps1"):
        for name in ("ca.pem", "server-cert.pem", "server-key.pem"):
            assert name.encode() in files[script]
        assert script.encode() in files["README.txt"]
    with pytest.raises(OSError):
        certificates.scripts(os.path.join(GUEST_CONFIG, "absent"))
