"""``python -m tools.compile_gpu CONFIG --gpu h100 [--gpus 8] [--hosts N] [--batch-tokens N] [--mesh.fsdp N ...]``: the
train step compiled for GPUs that are not there: does it fit, what it moves, how long it takes at least.

A table goes to stderr, one JSON object to stdout. Exit codes: 0 fits, 1 does not fit, 2 bad input. See docs/compile.md.
"""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.compile_gpu import main

if __name__ == "__main__":
    sys.exit(run_main(main))
