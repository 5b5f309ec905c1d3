"""xscontainer-prepare-vm: makes one VM managed, as it has always been called.

With SSH it does what ``xscontainer prepare`` does. With TLS, which engines on Windows are reached by, it takes
certificates that are given, or has some made and hands them to the guest on a CD.
"""

import argparse
import contextlib
import io
import sys
import time
from typing import Dict, Iterator, List, NamedTuple, Optional

from xscontainer import __version__, keys, settings
from xscontainer.cli import calling, finding, guarded, preparing
from xscontainer.cli.preparing import Wanted
from xscontainer.cli.telling import say
from xscontainer.errors import ArgumentError, ObjectGone, VMNotRunning, XapiError
from xscontainer.reach import SSH, TLS
from xscontainer.settings import Settings
from xscontainer.vmrecord import NULL_REF, VMRecord
from xscontainer.xapi import disk, pool, storage
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

PROGRAM = "xscontainer-prepare-vm"
MOST_PEM = 65536  # bytes of a certificate or key file
UPLOAD_SECONDS = 120.0
WAIT = 1800.0  # s for somebody to run the script in the guest
ROUND = 60.0  # s of it in one call of the plugin

# Argument of the plugin function -> key of other_config, in the order of the options' names.
_SECRETS = (("clientcertsecret", keys.TLS_CLIENT_CERT), ("clientkeysecret", keys.TLS_CLIENT_KEY),
            ("cacertsecret", keys.TLS_CA_CERT))

# What an engine answers with, or its machine, before the script has run.
_NOT_YET = ("GUEST_", "TLS_PROTOCOL", "TLS_CERTIFICATE_INVALID", "TLS_CLIENT_REFUSED", "CONNECT_ERROR",
            "TRANSPORT_LOST", "ENGINE_", "VM_ELSEWHERE")


def main(arguments: "Optional[List[str]]" = None) -> int:
    """Entry point; returns the exit code, as those of ``xscontainer prepare``."""
    options = _parser().parse_args(arguments)
    options.run = _run
    return guarded(PROGRAM, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Prepares a running VM so that its containers are shown and steered. "
                                  "'xscontainer prepare' does the same by the VM's name, and knows more options.")
    parser.add_argument("-v", "--vm", metavar="UUID", required=True, help="uuid (or name) of the VM")
    parser.add_argument("-u", "--username", help="whom to log in as in the VM (mode ssh)")
    parser.add_argument("--mode", choices=(SSH, TLS), default=SSH, help="how its engine is reached (default: ssh)")
    parser.add_argument("--yes", action="store_true", help="ask nothing; trust the SSH host key that is shown")
    parser.add_argument("--fingerprint", metavar="SHA256:...", help="of the VM's SSH host key, instead of being asked")
    parser.add_argument("--password-fd", metavar="N", type=int, help="read the password from this file descriptor")
    parser.add_argument("--address", help="IP address or name, instead of what the guest tools report")
    tls = parser.add_argument_group("mode tls", "with neither, the certificates that the VM has already")
    tls.add_argument("--generate-certs", action="store_true",
                     help="make certificates, and hand the engine's to the guest on a CD with a script")
    tls.add_argument("--sr", metavar="SR", help="uuid of the storage repository for the CD (default: the pool's)")
    tls.add_argument("--wait", metavar="SECONDS", type=float, default=WAIT,
                     help=f"for the script to be run in the guest (default: {WAIT:g})")
    for name in ("client-cert", "client-key", "ca-cert"):
        tls.add_argument("--" + name, metavar="FILE", help="PEM file")
    parser.add_argument("--config", metavar="FILE", help=f"settings file (default: ${settings.ENVIRONMENT_VARIABLE} "
                                                         f"or {settings.DEFAULT_PATH})")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def _run(options: argparse.Namespace, conf: Settings) -> int:
    files = (options.client_cert, options.client_key, options.ca_cert)
    if any(files) and not all(files):
        raise ArgumentError("--client-cert, --client-key and --ca-cert belong together.")
    if any(files) and options.generate_certs:
        raise ArgumentError("Certificates are either given or made: leave out --generate-certs or the files.")
    if options.mode != TLS and (any(files) or options.generate_certs):
        raise ArgumentError("Certificates are for --mode tls.")
    with calling.logged_in(conf) as session:
        wishes = {"mode": options.mode}
        if options.address:
            wishes["address"] = options.address
        if options.mode == SSH and options.username:
            wishes["username"] = options.username
        wanted = Wanted(finding.vm(session, options.vm), wishes, options.fingerprint, options.yes,
                        options.password_fd)
        if options.generate_certs:
            return _with_new(session, conf, wanted, options)
        if any(files):
            return _with_given(session, conf, wanted, [_read(path) for path in files])
        return preparing.prepare(session, conf, wanted)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            text = file.read(MOST_PEM + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no PEM file'}.") \
            from error
    if "-----BEGIN " not in text or len(text) > MOST_PEM:
        raise ArgumentError(f"{path} is no PEM file.")
    return text


def _with_given(session: Session, conf: Settings, wanted: Wanted, texts: "List[str]") -> int:
    """The files become secrets, which go again if the engine is not reached with them."""
    with contextlib.ExitStack() as undo:
        wishes = dict(wanted.wishes)
        for (name, _), text in zip(_SECRETS, texts):
            ref = session.xenapi.secret.create({"value": text, "other_config": {}})
            undo.callback(_forget_secret, session, ref)
            wishes[name] = session.xenapi.secret.get_uuid(ref)
        code = preparing.prepare(session, conf, wanted._replace(wishes=wishes))
        undo.pop_all()
        return code


def _forget_secret(session: Session, ref: str) -> None:
    with contextlib.suppress(XapiError):
        session.xenapi.secret.destroy(ref)


# --- certificates that are made -----------------------------------------------------------------


class _Made(NamedTuple):
    wishes: Dict[str, str]
    medium: bytes


def _with_new(session: Session, conf: Settings, wanted: Wanted, options: argparse.Namespace) -> int:
    vm = xapi_vm.record(session, wanted.vm)
    if vm.power_state != "Running":
        raise VMNotRunning(f"The VM {vm.label} is not running: its power state is {vm.power_state}.")
    made = _make(session, conf, vm, options.address or "")
    wanted = wanted._replace(wishes={**wanted.wishes, **made.wishes})
    with _disc(session, conf, vm, made.medium, options.sr or ""):
        print("A CD is in the VM's drive. Run its script there:\n"
              "  Linux    as root:                      mount /dev/cdrom /mnt && sh /mnt/enable-tls.sh\n"
              "  Windows  in an administrator's prompt: powershell -ExecutionPolicy Bypass -File D:\\enable-tls.ps1\n"
              "It is taken out again as soon as the engine answers, or with Ctrl-C.", flush=True)
        deadline = time.monotonic() + options.wait
        while True:
            left = max(0.0, min(ROUND, deadline - time.monotonic()))
            try:
                return preparing.prepare(session, conf, wanted._replace(
                    wishes=dict(wanted.wishes, wait=str(int(left)))))
            except XapiError as error:
                code = (error.details or [""])[0]
                if not code.startswith(_NOT_YET) or time.monotonic() >= deadline:
                    raise


def _make(session: Session, conf: Settings, vm: VMRecord, address: str) -> _Made:
    """:raises VMError: nobody knows where the VM answers, so no certificate can say it."""
    from xscontainer import certificates
    from xscontainer.configdrive import defaults, image

    names = certificates.names(vm, address, pool.host_addresses(session), conf.address.allow_loopback)
    print(f"The engine's certificate is made out to the VM {vm.uuid} at {', '.join(names)}.", flush=True)
    try:
        issued = certificates.issue(session, vm, names)
        files = {**issued.files, **certificates.scripts(str(defaults.directory()))}
    except ValueError as error:
        raise ArgumentError(f"No certificate can be made: {error}.") from error
    except OSError as error:
        raise ArgumentError(f"A part of the installation is missing: {error}.") from error
    return _Made({name: issued.other_config[key] for name, key in _SECRETS}, image.write(files, certificates.LABEL))


@contextlib.contextmanager
def _disc(session: Session, conf: Settings, vm: VMRecord, content: bytes, sr_uuid: str) -> "Iterator[None]":
    """A disc with this content is in the VM's CD drive; afterwards it is gone, as is the disk that it was made of.

    :raises DriveMissing, DriveBusy: there is no drive for it.
    """
    drive = disk.cd_drive(session, vm.ref, running=True)
    if disk.disc_in(session, drive) != NULL_REF:
        raise ArgumentError(f"There is a disc in the CD drive of VM {vm.label}.", "Eject it first.")
    vdi = disk.create(session, _repository(session, conf, vm, sr_uuid), len(content), "xscontainer TLS",
                      f"Certificates for {vm.name}; may be deleted")
    try:
        disk.upload(session, conf.xapi.socket, session.xenapi.VDI.get_uuid(vdi), io.BytesIO(content), len(content),
                    UPLOAD_SECONDS)
        disk.insert(session, drive, vdi)
        yield
    finally:
        try:
            if disk.disc_in(session, drive) == vdi:
                disk.eject(session, drive)
        except ObjectGone:
            pass  # the VM has gone
        except XapiError as error:
            say(f"{PROGRAM}: The CD could not be taken out: {error}")
        try:
            disk.destroy(session, vdi)
        except XapiError as error:
            # The key of the guest's engine is on it: somebody has to know.
            say(f"{PROGRAM}: The disk with the certificates could not be deleted, do it by hand: {error}")


def _repository(session: Session, conf: Settings, vm: VMRecord, uuid: str) -> str:
    """One that both this host, for the upload, and the VM's have attached.

    :raises ArgumentError: there is none.
    """
    here, _ = pool.this_host(session, conf.daemon.inventory)
    xapi = session.xenapi
    if uuid:
        wanted = [xapi.SR.get_by_uuid(uuid)]
    else:
        default = xapi.pool.get_default_SR(xapi.pool.get_all()[0])
        others = sorted(ref for ref, record in xapi.SR.get_all_records().items() if record["content_type"] == "user")
        wanted = [ref for ref in [default] if ref != NULL_REF] + others
    for ref in wanted:
        with contextlib.suppress(ObjectGone):
            if {here, vm.resident_on} <= set(storage.attached_hosts(session, ref)):
                return ref
    raise ArgumentError("There is no storage repository that both this host and the VM's have attached.",
                        "Run this on the VM's host, or name a repository with --sr.")


if __name__ == "__main__":
    sys.exit(main())
