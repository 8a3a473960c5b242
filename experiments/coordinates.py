"""Coordinate check of muP: ``python -m experiments.coordinates CONFIG [--widths ...] [--run-dir DIR]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.coordinates import main

if __name__ == "__main__":
    sys.exit(run_main(main))
