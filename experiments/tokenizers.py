"""What tokenizers make of each source: ``python -m experiments.tokenizers CONFIG [--field value ...]``."""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.tokenizer_study import main

if __name__ == "__main__":
    sys.exit(run_main(main))
