"""Learning-rate finder: ``python -m experiments.lr_finder CONFIG [--steps N] [--run-dir DIR]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.lr_finder import main

if __name__ == "__main__":
    sys.exit(run_main(main))
