"""What pretraining is worth to a task: ``python -m experiments.gain CONFIG --base RUN [--num-seeds N] ...``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.gain import main

if __name__ == "__main__":
    sys.exit(run_main(main))
