"""Fill in the placeholders (``%NAME%``) of a guest's configuration: cloud-config, Ignition or any other text.

guest-config/README.md lists the placeholders for authors of configurations. Values consist of characters that cannot
end a quoted string in YAML or JSON, so no value changes the structure of a document.
"""

import base64
import re
import unicodedata
from typing import Callable, Dict, List, NamedTuple, Optional, Pattern

from xscontainer.errors import ArgumentError

# A plugin call brings less than 128 KiB; the rest is room for values, which are longer than their placeholders.
MOST_BYTES = 1048576
LONGEST_HOSTNAME = 63

# How a newline is written by callers whose arguments cannot hold one, such as xe's.
NEWLINE = "%BR%"

_PUBLIC_KEY = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_HOST_KEY = re.compile(r"[a-z0-9-]+ [A-Za-z0-9+/]+={0,2}\Z")
_PRIVATE_FILE = re.compile("-----BEGIN OPENSSH PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+"
                           "-----END OPENSSH PRIVATE KEY-----\n\\Z")

_INTERNAL_PARTS = (("%XSHINEXISTS%", "%XSENDHINEXISTS%"), ("%HINEXISTS%", "%ENDHINEXISTS%"))
_HOST_KEY_PARTS = (("%XSHOSTKEYEXISTS%", "%XSENDHOSTKEYEXISTS%"),)
_INTERNAL_VALUES = ("%XSHIN%", "%HIN%")
_PRIVATE_VALUES = ("%XSHOSTKEYPRIVATEBASE64%", "%XSHOSTKEYPRIVATEJSON%")


class HostKey(NamedTuple):
    """A guest's SSH host key.

    :ivar public: ``ssh-ed25519 BASE64``.
    :ivar private: the private key file. Secret: it goes onto the guest's config drive only.
    """

    public: str
    private: str

    def __repr__(self) -> str:  # the private key must not reach a log
        return "HostKey(...)"


class Values(NamedTuple):
    """The values of placeholders.

    :ivar public_key: the pool's RSA public key, base64.
    :ivar internal_mac: MAC address of the VM's interface on the host-internal network; "": it has none.
    """

    hostname: str
    public_key: str
    internal_mac: str = ""
    host_key: Optional[HostKey] = None


def hostname(name: str, fallback: str) -> str:
    """Return a host name (RFC 1123, one label) made from a VM's name.

    :param fallback: returned if no character of the name may stand in a host name.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii").lower()
    label = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST_HOSTNAME].rstrip("-")
    return label or fallback


def wants_host_key(template: str) -> bool:
    """Return whether a configuration gives the guest its SSH host key."""
    return any(word in template for word in _PRIVATE_VALUES)


def is_ignition(template: str) -> bool:
    """Return whether a configuration is for Ignition: JSON, apart from its placeholders."""
    return template.lstrip().startswith("{") and '"ignition"' in template


def wants_internal_network(template: str) -> bool:
    """Return whether a configuration has placeholders for the host-internal network."""
    return any(word in template for word in _INTERNAL_VALUES + tuple(begin for begin, _ in _INTERNAL_PARTS))


def substitute(template: str, values: Values) -> str:
    """Return the configuration with its placeholders filled in.

    :raises ArgumentError: it would take more than MOST_BYTES.
    :raises ValueError: a value is malformed.
    """
    replacements = _replacements(values)
    text = template
    for begin, end in _INTERNAL_PARTS:
        text = _parts(text, begin, end, keep=bool(values.internal_mac))
    for begin, end in _HOST_KEY_PARTS:
        text = _parts(text, begin, end, keep=values.host_key is not None)
    # One pass: values are not searched for placeholders.
    pattern = re.compile("|".join(map(re.escape, replacements)))
    _check_size(text, pattern, replacements)
    return pattern.sub(lambda found: replacements[found.group()], text)


def _replacements(values: Values) -> "Dict[str, str]":
    _check("host name", values.hostname, lambda text: hostname(text, "") == text and text != "")
    _check("public key", values.public_key, _PUBLIC_KEY.match)
    _check("MAC address", values.internal_mac, lambda text: text == "" or _MAC.match(text))
    public = private = ""
    if values.host_key is not None:
        public, private = values.host_key
        _check("host key", public, _HOST_KEY.match)
        _check("host key file", private, _PRIVATE_FILE.match)
    both_spellings = {
        "VMNAMETOHOSTNAME": values.hostname,
        "CONTAINERRSAPUB": values.public_key,
        "HIN": values.internal_mac,
    }
    found = {f"%{prefix}{name}%": value for name, value in both_spellings.items() for prefix in ("XS", "")}
    found["%XSHOSTKEYPUBLIC%"] = public
    found["%XSHOSTKEYPRIVATEBASE64%"] = base64.b64encode(private.encode("ascii")).decode("ascii")
    found["%XSHOSTKEYPRIVATEJSON%"] = private.replace("\n", "\\n")
    return found


def _check(what: str, text: str, passes: "Callable[[str], object]") -> None:
    if not passes(text):
        raise ValueError(f"unusable {what}")  # the value may be a secret


def _parts(text: str, begin: str, end: str, keep: bool) -> str:
    """Keep or drop the text between pairs of markers, and remove the markers. A marker without its pair stays."""
    done: List[str] = []
    at = 0
    while True:
        first = text.find(begin, at)
        last = text.find(end, first + len(begin)) if first >= 0 else -1
        if last < 0:
            return "".join(done) + text[at:]
        done.append(text[at:first])
        if keep:
            done.append(text[first + len(begin):last])
        at = last + len(end)


def _check_size(text: str, pattern: "Pattern[str]", replacements: "Dict[str, str]") -> None:
    size = len(text.encode("utf-8", "replace"))
    for found in pattern.finditer(text):
        size += len(replacements[found.group()]) - len(found.group())
        if size > MOST_BYTES:
            raise ArgumentError(f"With its placeholders filled in it takes more than {MOST_BYTES} bytes.")
