"""Packaging. All metadata is in setup.cfg; only what it cannot say is here.

The version stands in xscontainer/__init__.py alone. It is read as text: an import would need the
package's dependencies before they are installed.
"""

import os
import re

from setuptools import setup

HERE = os.path.dirname(os.path.abspath(__file__))


def version() -> str:
    with open(os.path.join(HERE, "xscontainer", "__init__.py"), encoding="utf-8") as source:
        found = re.search(r'^__version__ = "([^"]+)"', source.read(), re.MULTILINE)
    if found is None:
        raise SystemExit("xscontainer/__init__.py has no __version__")
    return found.group(1)


setup(version=version())
