"""Every generation side by side: ``python -m experiments.generations CONFIG [--field value ...] [--run-dir DIR]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.generations import main

if __name__ == "__main__":
    sys.exit(run_main(main))
