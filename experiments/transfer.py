"""Best rates by width: ``python -m experiments.transfer CONFIG [--field value ...] [--run-dir DIR]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.transfer import main

if __name__ == "__main__":
    sys.exit(run_main(main))
