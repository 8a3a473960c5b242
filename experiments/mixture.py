"""What a mixture does to the loss on each domain: ``python -m experiments.mixture CONFIG [--field value ...]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.mixture import main

if __name__ == "__main__":
    sys.exit(run_main(main))
