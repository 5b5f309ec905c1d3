"""Run ``python -m xscontainer.cli`` in a tree that is not installed."""

import sys

from xscontainer.cli import main

sys.exit(main())
