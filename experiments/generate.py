"""Completions from a trained model: ``python -m experiments.generate RUN [--prompt TEXT] [--temperature T] ...``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.generate import main

if __name__ == "__main__":
    sys.exit(run_main(main))
