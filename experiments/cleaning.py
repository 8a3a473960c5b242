"""What cleaning is worth to a small model: ``python -m experiments.cleaning CONFIG [--field value ...]``."""

import sys

from jaxlm.run.cleaning_study import main
from jaxlm.run.cli import run_main

if __name__ == "__main__":
    sys.exit(run_main(main))
