"""Runs the command line as ``python -m k2eg.cli``."""

import sys

from k2eg.cli import main

sys.exit(main())
