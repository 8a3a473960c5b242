"""``python -m tools.bench [train|kernels|trace|loop|decode|...]``: one JSON table for whatever device JAX finds.

``--plan gpu`` runs instead what a session on an accelerator is for, in the order of its worth, within ``--seconds``.
Times are medians over repeats; the spread is given beside them, since machines are shared. Data are random tokens
held in memory: nothing is read from disk but what a section measures.
"""

import importlib
import json
import sys
from collections.abc import Iterator

import jax

from jaxlm.core.errors import UserError
from jaxlm.run.devices import keep_freed_memory
from jaxlm.run.libtpu import quiet_without_tpu
from jaxlm.run.parsers import tool_parser
from tools.bench.measuring import Row

SECTIONS = {
    "train": "train",
    "kernels": "kernels",
    "recurrent": "recurrent",
    "trace": "trace",
    "loop": "loop",
    "decode": "decode",
    "decode_kernel": "decode_kernel",
    "rollout": "rollout",
    "likelihood": "likelihood",
    "data": "data",
    "loader": "data",
    "checkpoint": "checkpoint",
}
"""Section -> the module that has ``bench_SECTION(repeats)``. All to rollout but loop need JAX, Flax, Optax alone."""


def section_rows(name: str, repeats: int) -> Iterator[Row]:
    """The rows of a section as they come."""
    module = importlib.import_module(f"tools.bench.{SECTIONS[name]}")
    yield from getattr(module, f"bench_{name}")(repeats)


def show(row: Row) -> None:
    """A row as a line on stderr."""
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()), file=sys.stderr)


def main(argv: list[str]) -> int:
    """Prints rows to stderr as they come, and the whole table as one JSON line on stdout."""
    parser = tool_parser("python -m tools.bench", __doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default all")
    parser.add_argument("--repeats", type=int, default=20, help="of each measurement; default %(default)s")
    parser.add_argument("--plan", choices=["gpu"], help="a prepared session in place of sections")
    parser.add_argument("--seconds", type=float, default=480.0, help="of the session; default %(default)s")
    parser.add_argument("--nanogpt", help="a folder with nanoGPT's model.py, to measure in turns with it")
    try:
        args = parser.parse_args(argv)
        if args.repeats < 1:
            raise UserError(f"--repeats {args.repeats} must be at least 1")
        for name in args.sections:
            if name not in SECTIONS:
                raise UserError(f"there is no section {name!r}: there are {', '.join(SECTIONS)}")
        if args.plan and args.sections:
            raise UserError(f"--plan {args.plan} has its own sections: leave out {' '.join(args.sections)}")
        if args.nanogpt is not None and not args.plan:
            raise UserError("--nanogpt is for --plan gpu: python -m tools.versus nanogpt FOLDER compares alone")
        quiet_without_tpu()
        if args.plan:
            from tools.bench.session import run_session

            return run_session(args.seconds, args.nanogpt)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    keep_freed_memory()
    table = []
    for name in args.sections or SECTIONS:
        for row in section_rows(name, args.repeats):
            show(row)
            table.append(row)
    device = jax.devices()[0]
    print(
        json.dumps({"device": device.device_kind, "platform": device.platform, "jax": jax.__version__, "rows": table})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
