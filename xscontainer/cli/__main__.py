"""``python -m xscontainer.cli``, for a tree that is not installed."""

import sys

from xscontainer.cli import main

sys.exit(main())
