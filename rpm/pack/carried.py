"""The libraries that the pack carries: exactly the pinned wheels, each with its pinned hash."""

import email.parser
import hashlib
import json
import os
import re
import zipfile
from typing import Any, Dict, List, NamedTuple

from rpm.pack.release import Release, Target
from rpm.pack.tools import BuildError, pip_download

# SPDX expressions of the libraries' licences; the wheels name them in free text.
SPDX = {
    "argcomplete": "Apache-2.0", "bcrypt": "Apache-2.0", "certifi": "MPL-2.0", "cffi": "MIT",
    "charset-normalizer": "MIT", "commonmark": "BSD-3-Clause",
    "cryptography": "(Apache-2.0 OR BSD-3-Clause) AND PSF-2.0", "dataclasses": "Apache-2.0", "docker": "Apache-2.0",
    "idna": "BSD-3-Clause", "importlib-metadata": "Apache-2.0", "invoke": "BSD-2-Clause", "markdown-it-py": "MIT",
    "mdurl": "MIT", "paramiko": "LGPL-2.1-or-later", "pycdlib": "LGPL-2.1-only", "pycparser": "BSD-3-Clause",
    "pygments": "BSD-2-Clause", "pynacl": "Apache-2.0", "requests": "Apache-2.0", "rich": "MIT",
    "typing-extensions": "Python-2.0", "urllib3": "MIT", "websocket-client": "Apache-2.0", "zipp": "MIT",
}
_LICENCE = re.compile(r"\.dist-info/(licenses/)?(licen[cs]e|copying|notice|authors)[^/]*\Z", re.IGNORECASE)
# Programs and man pages have no place in a directory of libraries.
_NO_LIBRARY = re.compile(r"\A[^/]+\.data/(scripts|data)/")


class Library(NamedTuple):
    """A carried library.

    :ivar licence: SPDX expression.
    :ivar licence_files: paths in the private directory.
    """

    name: str
    version: str
    licence: str
    wheel: str
    sha256: str
    licence_files: "List[str]"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(requirements: str) -> "Dict[str, str]":
    """Read a requirements file with hashes: name -> version."""
    with open(requirements, encoding="utf-8") as file:
        found = re.findall(r"(?m)^([A-Za-z0-9._-]+)==([0-9A-Za-z.]+) \\$", file.read())
    return {canonical(name): version for name, version in found}


def fetch(requirements: str, target: Target, directory: str) -> None:
    """Download the wheels for ``target`` into ``directory``; pip compares the hashes.

    :raises BuildError: when a wheel cannot be downloaded, or has another hash.
    """
    # pip takes 3.6 for 3.6.0, for which rich has no release; dom0 has 3.6.8.
    version = "3.6.8" if target.python == "3.6" else target.python
    arguments = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version", version,
                 "--implementation", "cp", "-d", directory, "-r", requirements]
    for abi in target.abis:
        arguments += ["--abi", abi]
    for platform in target.platforms + ["any"]:
        arguments += ["--platform", platform]
    pip_download(arguments)


def unpack(wheels: str, requirements: str, root: str) -> "List[Library]":
    """Unpack every pinned wheel of the directory ``wheels`` into ``root``.

    :raises BuildError: when a wheel is missing, is not pinned, or has unexpected files.
    """
    wanted = pinned(requirements)
    libraries: List[Library] = []
    for wheel in sorted(os.listdir(wheels)):
        library = _unpack_one(os.path.join(wheels, wheel), root)
        if wanted.pop(library.name, None) != library.version:
            raise BuildError(f"{wheel} is not pinned in {requirements}")
        libraries.append(library)
    if wanted:
        raise BuildError(f"there is no wheel for {', '.join(wanted)}")
    return libraries


def _unpack_one(path: str, root: str) -> Library:
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/") and not _NO_LIBRARY.search(name))
        for name in names:
            if name.startswith(("/", "../")) or "/../" in name or ".data/" in name.split("/", 1)[0] + "/":
                raise BuildError(f"{path} holds {name}, which is not allowed")
            if os.path.exists(os.path.join(root, name)):
                raise BuildError(f"{path} holds {name}, as does another wheel")
            archive.extract(name, root)
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        head = email.parser.Parser().parsestr(archive.read(metadata).decode("utf-8"), headersonly=True)
    name = canonical(head["Name"])
    licences = [entry for entry in names if _LICENCE.search(entry)]
    if name not in SPDX or not licences:
        raise BuildError(f"{path}: its licence is not listed in rpm/pack/carried.py")
    return Library(name, head["Version"], SPDX[name], os.path.basename(path), digest, licences)


def bill_of_materials(libraries: "List[Library]", release: Release) -> str:
    """Return the SBOM of the carried libraries: CycloneDX 1.5 in JSON."""
    def component(library: Library) -> "Dict[str, Any]":
        return {
            "type": "library", "name": library.name, "version": library.version,
            "bom-ref": f"pkg:pypi/{library.name}@{library.version}",
            "purl": f"pkg:pypi/{library.name}@{library.version}",
            "licenses": [{"expression": library.licence}],
            "hashes": [{"alg": "SHA-256", "content": library.sha256}],
            "properties": [{"name": "xscontainer:wheel", "value": library.wheel}]
            + [{"name": "xscontainer:licence-file", "value": path} for path in library.licence_files],
        }
    document = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{release.uuid}", "version": 1,
        "metadata": {"component": {
            "type": "application", "name": "xscontainer", "version": release.version,
            "licenses": [{"expression": "BSD-2-Clause"}]}},
        "components": [component(library) for library in libraries],
    }
    return json.dumps(document, indent=1) + "\n"
