"""How abilities come, in small models: ``python -m experiments.emergence CONFIG [--processes N] [--run-dir DIR]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.laboratory.laboratory import main

if __name__ == "__main__":
    sys.exit(run_main(main))
