"""A model that judges answers: ``python -m experiments.reward CONFIG [--field.sub value ...] [--run-dir DIR]``."""

import sys

from jaxlm.run.align.reward import main
from jaxlm.run.cli import run_main

if __name__ == "__main__":
    sys.exit(run_main(main))
