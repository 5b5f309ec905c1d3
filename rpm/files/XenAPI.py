"""dom0's own XenAPI, and nothing else of what dom0 has installed.

The programs of the pack run without site-packages, so that dom0's copies of libraries that the pack
carries too never meet them. This one module must be dom0's: it is part of its toolstack.
"""

import importlib.machinery
import importlib.util
import site
import sys


def _load() -> None:
    spec = importlib.machinery.PathFinder.find_spec(__name__, site.getsitepackages())
    if spec is None or spec.loader is None:
        raise ImportError("dom0's python3 has no module XenAPI", name=__name__)
    module = importlib.util.module_from_spec(spec)
    # What `import` hands out is what stands here when this file is done.
    sys.modules[__name__] = module
    spec.loader.exec_module(module)


_load()
