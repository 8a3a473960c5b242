"""``python -m tools.compile_tpu CONFIG --topology v5p:8x8x16 [--slices N] [--batch-tokens N] [--mesh.fsdp N ...]``:
the train step compiled for TPUs that are not there: does it fit, what it moves, how long it takes at least.

A table goes to stderr, one JSON object to stdout. Exit codes: 0 fits, 1 does not fit, 2 bad input. See docs/compile.md.
"""

import sys

from jaxlm.run.cli import run_main
from jaxlm.run.compile_tpu import main

if __name__ == "__main__":
    sys.exit(run_main(main))
