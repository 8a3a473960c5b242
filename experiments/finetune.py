"""A trained model to a task: ``python -m experiments.finetune CONFIG [--field.sub value ...] [--run-dir DIR]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.finetune import main

if __name__ == "__main__":
    sys.exit(run_main(main))
