"""A corpus from its sources: ``python -m experiments.corpus CONFIG [--field value ...] [--run-dir DIR]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.corpus.build import main

if __name__ == "__main__":
    sys.exit(run_main(main))
