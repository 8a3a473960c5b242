"""Small against large: ``python -m experiments.small_large CONFIG [--field value ...] [--run-dir DIR]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.small_large import main

if __name__ == "__main__":
    sys.exit(run_main(main))
