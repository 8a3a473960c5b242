"""The table of comparisons."""

import importlib
import sys

from jaxlm.core.errors import UserError
from jaxlm.run.cli import run_main

PEERS = {
    "nanogpt": "our train step against nanoGPT's compiled one",
    "recurrent": "our recurrent layers against torch.nn's: equal outputs and gradients, and speed",
    "attention": "our attention on a CPU against torch's and XLA's: equal outputs and gradients, and speed",
    "kenlm": "our n-gram commands against KenLM's, whole processes",
    "datatrove": "our cleaning rules against datatrove's filters: equal verdicts, and speed",
    "scipy_fit": "our fit of Chinchilla's law against a loop over SciPy's L-BFGS-B: seconds",
    "minhash": "our MinHash signatures against datatrove's and rensa's: speed",
}


def main(argv: list[str]) -> int:
    """``PEER ...``: each has its own ``--help``."""
    if argv and argv[0] in PEERS:
        return importlib.import_module(f"tools.versus.{argv[0]}").main(argv[1:])
    usage = "usage: python -m tools.versus PEER ...    (PEER --help shows its options)\n\n"
    usage += "\n".join(f"  {name:<10} {what}" for name, what in PEERS.items())
    if argv and argv[0] not in ("-h", "--help"):
        raise UserError(f"unknown peer {argv[0]!r}: there are {', '.join(PEERS)}")
    print(usage)
    return 0 if argv else 2


if __name__ == "__main__":
    sys.exit(run_main(main))
