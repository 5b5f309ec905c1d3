"""Certificates for an engine over TLS, as commands are told: given in files, or to be made and handed over on a CD."""

import argparse
import contextlib
from typing import Any, Dict, Iterator

from xscontainer import calls
from xscontainer.cli import finding, progress
from xscontainer.cli.telling import say
from xscontainer.errors import ArgumentError, XapiError
from xscontainer.reach import TLS
from xscontainer.xapi import secret
from xscontainer.xapi.session import Session

MOST_PEM = 65536  # bytes of a certificate or key file
WAIT = 1800  # s for somebody to run the script in the guest

# Option -> argument of the plugin function, in the order of keys.TLS_SECRETS.
_FILES = {"ca_cert": "cacertsecret", "client_cert": "clientcertsecret", "client_key": "clientkeysecret"}

_SCRIPTS = (
    "A CD is in the VM's drive. Run its script there:",
    "  Linux    as root:                      mount /dev/cdrom /mnt && sh /mnt/enable-tls.sh{linux}; umount /mnt",
    "  Windows  in an administrator's prompt: powershell -ExecutionPolicy Bypass -File D:\\enable-tls.ps1{windows}",
    "It is taken out again as soon as the engine answers, or with Ctrl-C.")
_USUAL_PORT = "2376"  # of the scripts


def add_options(parser: Any) -> None:
    group = parser.add_argument_group("mode tls", "with neither, the certificates that the VM has already")
    group.add_argument("--generate-certs", action="store_true",
                       help="make certificates, and hand the engine's to the guest on a CD with a script")
    group.add_argument("--sr", metavar="SR", help="name or uuid of the storage repository for the CD (default: one "
                                                  "that the VM's host has attached)")
    group.add_argument("--wait", metavar="SECONDS", type=int, default=WAIT,
                       help=f"for the script to be run in the guest (default: {WAIT})")
    for option in _FILES:
        group.add_argument("--" + option.replace("_", "-"), metavar="FILE", help="PEM file")


def check(options: argparse.Namespace) -> None:
    """:raises ArgumentError: the options contradict each other."""
    files = [getattr(options, option) for option in _FILES]
    if any(files) and not all(files):
        raise ArgumentError("--client-cert, --client-key and --ca-cert belong together.")
    if any(files) and options.generate_certs:
        raise ArgumentError("Certificates are either given or made: leave out --generate-certs or the files.")
    if options.mode != TLS and (any(files) or options.generate_certs):
        raise ArgumentError("Certificates are for --mode tls.")


@contextlib.contextmanager
def wishes(session: Session, options: argparse.Namespace, vm: str) -> "Iterator[Dict[str, str]]":
    """What the options mean for the plugin function; secrets that are made for it, and that nothing names, go again.

    :param vm: uuid.
    """
    if options.generate_certs:
        more = {"sruuid": finding.storage(session, options.sr)} if options.sr else {}
        yield {"generatecerts": "yes", "wait": str(max(0, options.wait)), **more}
        return
    texts = {argument: _read(getattr(options, option)) for option, argument in _FILES.items()
             if getattr(options, option)}
    made: Dict[str, str] = {}
    try:
        for argument, text in texts.items():
            made[argument] = secret.keep_certificate(session, text, vm)
        yield made
    finally:
        if made:
            _forget_unnamed(session, vm, made)


def _forget_unnamed(session: Session, vm: str, made: "Dict[str, str]") -> None:
    with contextlib.suppress(XapiError):
        if not progress.under_way(session, vm):  # it may name them yet
            secret.forget_certificates(session, made.values(), vm)


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


class Steps:
    """Tells the steps of a task, and what to do when it is a person's turn.

    :param port: that the engine is to listen on.
    """

    def __init__(self, port: str) -> None:
        self._told = False
        other = port != _USUAL_PORT
        self._options = {"linux": f" --port {port}" if other else "", "windows": f" -Port {port}" if other else ""}

    def __call__(self, step: str) -> None:
        if step.startswith(calls.SCRIPT_STEP) and not self._told:
            self._told = True
            for line in _SCRIPTS:
                say(line.format(**self._options))
        progress.on_stderr(step)
