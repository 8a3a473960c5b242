"""A trained model learns to answer: ``python -m experiments.sft CONFIG [--field.sub value ...] [--run-dir DIR]``."""

import sys

from jaxlm.run.align.sft import main
from jaxlm.run.cli import run_main

if __name__ == "__main__":
    sys.exit(run_main(main))
