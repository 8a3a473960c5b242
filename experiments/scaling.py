"""Scaling laws of finished runs: ``python -m experiments.scaling fit --csv FILE --columns n=..,d=..,loss=..``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.scaling import main

if __name__ == "__main__":
    sys.exit(run_main(main))
