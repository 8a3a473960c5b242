"""Text to a trained decoder: ``python -m experiments.pretrain CONFIG [--field.sub value ...] [--run-dir DIR]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.pretrain import main

if __name__ == "__main__":
    sys.exit(run_main(main))
