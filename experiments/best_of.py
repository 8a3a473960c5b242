"""The best of n answers, by a judge: ``python -m experiments.best_of RUN --prompts FILE --judge JUDGE --out FILE``."""

import sys

from jaxlm.run.align.best_of import main
from jaxlm.run.cli import run_main

if __name__ == "__main__":
    sys.exit(run_main(main))
