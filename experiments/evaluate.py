"""What a model can do: ``python -m experiments.evaluate RUN --tasks lambada,blimp --data DIR [--shots K]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.evaluate import main

if __name__ == "__main__":
    sys.exit(run_main(main))
