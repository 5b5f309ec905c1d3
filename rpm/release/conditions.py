"""Decide whether this tree may be released: :func:`read_tree` asks git, :func:`hindrances` decides."""

import datetime
import os
import re
import subprocess
from typing import List, NamedTuple, Optional, Tuple

from rpm.pack.payload import ROOT
from rpm.pack.tools import BuildError
from xscontainer import __version__

GIT_SECONDS = 60


class Tree(NamedTuple):
    """The state of a checkout.

    :ivar version: version of the code, for example "0.9.0".
    :ivar tags: names of all tags that point to HEAD.
    :ivar changes: lines of ``git status --porcelain``: changed and untracked files.
    :ivar changelog: text of CHANGELOG.md.
    """

    version: str
    tags: Tuple[str, ...]
    changes: Tuple[str, ...]
    changelog: str

    @property
    def tag(self) -> str:
        return "v" + self.version


def read_tree(root: str = ROOT) -> Tree:
    """Read the state of the checkout.

    :raises BuildError: when ``root`` is no checkout, or git fails.
    """
    with open(os.path.join(root, "CHANGELOG.md"), encoding="utf-8") as file:
        changelog = file.read()
    return Tree(__version__, tuple(git(root, "tag", "--points-at", "HEAD").split()),
                tuple(git(root, "status", "--porcelain").splitlines()), changelog)


def git(root: str, *arguments: str) -> str:
    """Run git and return its output.

    :raises BuildError: when git cannot be run or fails.
    """
    try:
        done = subprocess.run(["git", "-C", root] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"git {arguments[0]} cannot be run: {error}.") from error
    if done.returncode:
        raise BuildError(f"git {arguments[0]} fails: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode("utf-8", "replace")


def hindrances(tree: Tree, sign_key: str) -> List[str]:
    """Return every reason why the tree may not be released, as sentences; an empty list if it may.

    :param sign_key: the key to sign with, "" if none was given.
    """
    found = []
    if tree.changes:
        shown = ", ".join(line[3:] for line in tree.changes[:5]) + (" ..." if len(tree.changes) > 5 else "")
        found.append(f"The tree differs from its last commit: {shown}. Commit or remove these files.")
    if tree.tag not in tree.tags:
        found.append(f"HEAD does not have the tag {tree.tag}. Set it: git tag -s {tree.tag}")
    if dated(tree.changelog, tree.version) is None:
        found.append(f"CHANGELOG.md has no section '## {tree.version} - YYYY-MM-DD'. Write the date of the release.")
    if not sign_key:
        found.append("A release is not signed with a throw-away key. Name the release key: make release SIGN_KEY=KEY")
    return found


def dated(changelog: str, version: str) -> "Optional[datetime.date]":
    """Return the date of the version's section; None if the section is missing or the date is invalid.

    The version may stand in brackets, as Keep a Changelog has it for versions with a link.
    """
    name = re.escape(version)
    match = re.search(rf"(?m)^## (?:{name}|\[{name}\]) - (\d{{4}})-(\d\d)-(\d\d)$", changelog)
    if not match:
        return None
    try:
        return datetime.date(*map(int, match.groups()))
    except ValueError:
        return None
