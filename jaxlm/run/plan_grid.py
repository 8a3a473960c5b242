"""``python -m tools.plan calibrate``: the memory model against the compiler, on a grid of small and middling runs.

One row of a table is one run; its last columns are the compiler's, filled in once and committed, so that the model can
be fitted again without compiling.
"""

import csv
import dataclasses
import hashlib
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.data.batches import DataConfig
from jaxlm.models.presets import preset
from jaxlm.plan.activations import CALIBRATED, Constants, Share, decoder_step_bytes
from jaxlm.plan.calibration import Case, fit_constants
from jaxlm.plan.memory import estimate_memory
from jaxlm.plan.topology import GIB, Topology, parse_topology
from jaxlm.run.compile_tpu import compile_for
from jaxlm.run.config import PretrainConfig
from jaxlm.run.parsers import tool_parser
from jaxlm.run.plan_run import workload
from jaxlm.sharding.mesh import MeshConfig

GIVEN = ("model", "topology", "mesh", "seq_len", "rows", "grad_accum_steps", "remat_policy", "loss_chunk")
"""Columns that say what the run is; ``rows``: of one microbatch on one device."""
MEASURED = (
    "peak_bytes",
    "argument_bytes",
    "temporary_bytes",
    "all_gather_bytes",
    "all_reduce_bytes",
    "reduce_scatter_bytes",
    "other_bytes",
    "compile_seconds",
)
"""Columns that the compiler fills in; of collectives, what leaves one device in a step."""
FULL = 0.9
"""A program that needs more than this share of the chip is not compared: near the limit XLA recomputes more, so as to
fit, and its peak says nothing of the plan."""


@dataclasses.dataclass(frozen=True)
class GridCase:
    """One row of the table."""

    row: dict[str, str]

    @property
    def name(self) -> str:
        return ", ".join(self.row[column] or "-" for column in GIVEN)

    @property
    def peak_bytes(self) -> int | None:
        """None before it is compiled, and where it does not fit."""
        text = self.row.get("peak_bytes") or ""
        return int(text) if text.isdigit() else None

    @property
    def topology(self) -> Topology:
        return parse_topology(self.row["topology"])

    @property
    def config(self) -> PretrainConfig:
        """The run: its preset in bfloat16, AdamW's state in f32."""
        row = self.row
        axes: dict[str, Any] = {axis: int(size) for axis, size in (part.split("=") for part in row["mesh"].split())}
        mesh = MeshConfig(**axes)
        shape = preset(row["model"])
        model = dataclasses.replace(
            shape,
            vocab_multiple=128 * mesh.model,
            compute_dtype="bfloat16",
            remat_policy=row["remat_policy"],
        )
        steps = int(row["grad_accum_steps"])
        ways = math.prod(size for axis, size in axes.items() if axis != "model")
        return PretrainConfig(
            model=model,
            data=DataConfig(seq_len=int(row["seq_len"])),
            mesh=mesh,
            global_batch_size=int(row["rows"]) * steps * ways,
            grad_accum_steps=steps,
            loss_chunk=int(row["loss_chunk"]) if row["loss_chunk"] else None,
        )

    @property
    def is_compared(self) -> bool:
        """Whether its peak can be held against the plan."""
        return self.peak_bytes is not None and self.peak_bytes <= FULL * self.topology.chip.hbm_bytes


def read_grid(path: Path) -> list[GridCase]:
    """The rows of the table."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := {*GIVEN, *MEASURED} - {*(reader.fieldnames or ())}:
            raise UserError(f"{path} is no grid of runs: it has no column {', '.join(sorted(missing))}")
        rows = [{name: value or "" for name, value in row.items()} for row in reader]
    return [GridCase(row) for row in rows]


def write_grid(path: Path, cases: list[GridCase]) -> None:
    """The table, whole."""
    lines = [",".join(GIVEN + MEASURED)]
    lines += [",".join(case.row.get(column, "") for column in GIVEN + MEASURED) for case in cases]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def halves(cases: list[GridCase]) -> tuple[list[GridCase], list[GridCase]]:
    """(to fit on, to judge by): every other one in the order of a hash of what the run is, so that no result has a say
    in it. All rows count in the order, compared or not."""
    ordered = sorted(cases, key=lambda case: hashlib.sha256(case.name.encode()).hexdigest())
    return ordered[::2], ordered[1::2]


def measure(
    cases: list[GridCase], compile_for: Callable[[PretrainConfig, Topology], dict[str, Any]]
) -> Iterator[list[GridCase]]:
    """The table after each case that had no figures, with the compiler's."""
    for i, case in enumerate(cases):
        if case.row.get("peak_bytes"):
            continue
        figures = compile_for(case.config, case.topology)
        cases = [*cases[:i], GridCase(case.row | _measured(figures)), *cases[i + 1 :]]
        yield cases


def _measured(figures: dict[str, Any]) -> dict[str, str]:
    if not figures["fits"]:
        return {"peak_bytes": "does not fit", "compile_seconds": str(figures["compile_seconds"])}
    memory, sent = figures["bytes_per_device"], figures["collectives"]
    by_kind = {kind: int(row["bytes"]) for kind, row in sent.items()}
    named = {kind: by_kind.pop(kind, 0) for kind in ("all-gather", "all-reduce", "reduce-scatter")}
    return {
        "peak_bytes": str(memory["peak"]),
        "argument_bytes": str(memory["arguments"]),
        "temporary_bytes": str(memory["temporaries"]),
        **{f"{kind.replace('-', '_')}_bytes": str(size) for kind, size in named.items()},
        "other_bytes": str(sum(by_kind.values())),
        "compile_seconds": str(figures["compile_seconds"]),
    }


def main(argv: list[str]) -> int:
    """``[--table FILE] [--compile]``: a table of errors on stderr, one JSON object on stdout."""
    parser = tool_parser("python -m tools.plan calibrate", __doc__)
    table = Path("experiments/plan_grid.csv")
    parser.add_argument("--table", type=Path, default=table, metavar="FILE", help="default %(default)s")
    parser.add_argument(
        "--compile", action="store_true", help="fill in the rows without figures: needs libtpu, minutes"
    )
    options = parser.parse_args(argv)
    if not options.table.is_file():
        raise UserError(f"there is no table {options.table}: give --table FILE, or start in the checkout")
    cases = read_grid(options.table)
    if options.compile:
        for measured in measure(cases, compile_for):
            cases = measured
            write_grid(options.table, cases)
            print(
                f"compiled {sum(bool(case.row.get('peak_bytes')) for case in cases)} of {len(cases)}", file=sys.stderr
            )
    fitted_on, judged_by = ([case for case in half if case.is_compared] for half in halves(cases))
    fitted = fit_constants([prepared(case) for case in fitted_on])
    figures: dict[str, Any] = {"rows": len(cases), "compared": len(fitted_on) + len(judged_by)}
    figures["constants"] = {"in the code": CALIBRATED._asdict(), "fitted now": fitted._asdict()}
    for name, half in (("fitted on", fitted_on), ("judged by", judged_by)):
        errors = {case.name: prepared(case).error(CALIBRATED) for case in half}
        for case in half:
            estimate = prepared(case).total(CALIBRATED)
            line = f"{estimate / GIB:7.2f} GiB, compiler {(case.peak_bytes or 0) / GIB:7.2f}: {errors[case.name]:+.1%}"
            print(f"  {name}  {line}  {case.name}", file=sys.stderr)
        figures[name] = _summary(list(errors.values()))
        print(f"  {name}: {figures[name]}", file=sys.stderr)
    print(json.dumps(figures))
    return 0


def _summary(errors: list[float]) -> dict[str, Any]:
    sizes = [abs(error) for error in errors]
    return {
        "rows": len(sizes),
        "median": round(statistics.median(sizes), 4) if sizes else None,
        "max": round(max(sizes), 4) if sizes else None,
        "within_10_percent": sum(size <= 0.1 for size in sizes),
    }


def prepared(case: GridCase) -> Case:
    """The case as the memory model sees it: peak, and the estimate as a function of the constants."""
    config = case.config
    work = workload(config)
    sizes = config.mesh.axis_sizes(case.topology.num_chips)
    params, state = work.state_bytes(sizes)
    share = Share.on(sizes, rows=int(case.row["rows"]), seq_len=config.data.seq_len, loss_chunk=config.loss_chunk)

    def total(constants: Constants) -> int:
        step = decoder_step_bytes(work.model, share, constants)
        accumulates = config.grad_accum_steps > 1
        return estimate_memory(param_bytes=params, state_bytes=state, step=step, accumulates=accumulates).total

    assert case.peak_bytes is not None
    return Case(case.peak_bytes, total)
