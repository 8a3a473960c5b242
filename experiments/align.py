"""From text to aligned models: ``python -m experiments.align CONFIG [--field.sub value ...] [--run-dir DIR]``."""

import sys

from jaxlm.run.align.road import main
from jaxlm.run.cli import run_main

if __name__ == "__main__":
    sys.exit(run_main(main))
