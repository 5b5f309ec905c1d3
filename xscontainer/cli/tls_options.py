"""Options for the certificates of an engine over TLS, shared by ``prepare`` and xscontainer-prepare-vm.

Certificates are given in files, or made by the plugin function, which hands them to the guest on a CD
(:mod:`xscontainer.verbs.handover`).
"""

import argparse
import contextlib
import uuid
from typing import Any, Dict, Iterator

from xscontainer.cli import lookup
from xscontainer.cli.ui import progress
from xscontainer.cli.ui.output import say
from xscontainer.core import wire as calls
from xscontainer.core.target import TLS
from xscontainer.errors import ArgumentError, XapiError
from xscontainer.xapi import secret
from xscontainer.xapi.session import Session

MOST_PEM = 65536  # bytes of a certificate or key file
WAIT = 1800  # s for somebody to run the script in the guest

# Option -> argument of the plugin function, in the order of keys.TLS_SECRETS.
_FILES = {"ca_cert": "cacertsecret", "client_cert": "clientcertsecret", "client_key": "clientkeysecret"}
_MEANINGS = {"ca_cert": "certificate of the CA that signed the engine's certificate",
             "client_cert": "certificate that the engine accepts from clients",
             "client_key": "private key of the client certificate"}

_SCRIPTS = (
    "A CD is in the VM's drive. Run its script in the VM:",
    "  Linux    as root:                      mount /dev/cdrom /mnt && sh /mnt/enable-tls.sh{linux}; umount /mnt",
    "  Windows  in an administrator's prompt: powershell -ExecutionPolicy Bypass -File D:\\enable-tls.ps1{windows}",
    "The CD is ejected as soon as the engine answers, or with Ctrl-C.")
_USUAL_PORT = "2376"  # default of the scripts


def add_options(parser: Any) -> None:
    group = parser.add_argument_group(
        "mode tls", "certificates for --mode tls; without these options the VM's present ones are used")
    group.add_argument("--generate-certs", action="store_true",
                       help="make certificates and hand the engine's to the VM on a CD, with a script that installs "
                            "them")
    group.add_argument("--sr", metavar="SR", help="name or uuid of the storage repository for the CD (default: one "
                                                  "that is attached to the VM's host)")
    group.add_argument("--wait", metavar="SECONDS", type=int, default=WAIT,
                       help=f"time to wait until the script is run in the VM (default: {WAIT})")
    for option in _FILES:
        group.add_argument("--" + option.replace("_", "-"), metavar="FILE", help=f"PEM file: {_MEANINGS[option]}")


def check(options: argparse.Namespace) -> None:
    """Check that the options agree with each other.

    :raises ArgumentError: when they do not.
    """
    files = [getattr(options, option) for option in _FILES]
    if any(files) and not all(files):
        raise ArgumentError("--client-cert, --client-key and --ca-cert must be given together.")
    if any(files) and options.generate_certs:
        raise ArgumentError("Certificates are either given or generated: leave out --generate-certs or the files.")
    if options.mode != TLS and (any(files) or options.generate_certs):
        raise ArgumentError("Certificates require --mode tls.")


@contextlib.contextmanager
def arguments(session: Session, options: argparse.Namespace, vm: str) -> "Iterator[Dict[str, str]]":
    """Yield the arguments of the plugin function that the options mean.

    Files are put into secrets, whose uuids are the arguments. Those that the VM does not use are destroyed at the end.

    :param vm: uuid of the VM.
    :raises ArgumentError: when a file cannot be read.
    """
    if options.generate_certs:
        more = {"sruuid": lookup.storage(session, options.sr)} if options.sr else {}
        yield {"generatecerts": "yes", "wait": str(max(0, options.wait)), **more}
        return
    texts = {argument: _read(getattr(options, option)) for option, argument in _FILES.items()
             if getattr(options, option)}
    made: Dict[str, str] = {}
    call_id = str(uuid.uuid4())
    try:
        for argument, text in texts.items():
            made[argument] = secret.keep_certificate(session, text, vm)
        yield {**made, calls.CALL: call_id}
    finally:
        if made:
            _forget_unused(session, vm, made, call_id)


def _forget_unused(session: Session, vm: str, made: "Dict[str, str]", call_id: str) -> None:
    with contextlib.suppress(XapiError):
        if not progress.under_way(session, call_id):  # a call that still runs may use them
            secret.forget_certificates(session, made.values(), vm)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            text = file.read(MOST_PEM + 1)
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} is not a PEM file.") from error
    if "-----BEGIN " not in text or len(text) > MOST_PEM:
        raise ArgumentError(f"{path} is not a PEM file.")
    return text


class Steps:
    """Print the steps of a task, and the commands to run in the VM when the CD is there.

    :param port: the port that the engine is to listen on.
    :param report: prints a step.
    """

    def __init__(self, port: str, report: progress.Report = progress.on_stderr) -> None:
        self._report = report
        self._explained = False
        other = port != _USUAL_PORT
        self._options = {"linux": f" --port {port}" if other else "", "windows": f" -Port {port}" if other else ""}

    def __call__(self, step: str) -> None:
        if step.startswith(calls.SCRIPT_STEP) and not self._explained:
            self._explained = True
            for line in _SCRIPTS:
                say(line.format(**self._options))
        self._report(step)
