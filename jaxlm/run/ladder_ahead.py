"""``python -m experiments.scaling predict CONFIG``: a run beyond a ladder, predicted, then trained, then compared.

The prediction is written before the run and never again: a file that stands is not overwritten, the run holds its
checksum, and a run that has begun has no prediction made for it. The comparison is written once too.
"""

import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, Literal

from jaxlm.core.errors import UserError
from jaxlm.io.agree import say
from jaxlm.io.run_dir import RunDir, json_ready
from jaxlm.io.run_table import naming_runs, read_runs, read_table
from jaxlm.plan.params import count_decoder_params
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.ladder import MOVED, RUNS, TABLE, Ladder, begin, check_text, row_of, table_of
from jaxlm.run.ladder_config import LadderConfig, Rung
from jaxlm.run.pretrain import pretrain
from jaxlm.run.processes import require_single_process
from jaxlm.run.training import exit_code, print_figures
from jaxlm.scaling.ahead import Ahead, fit_frontier, judge, predict_ahead
from jaxlm.scaling.chinchilla import ChinchillaFit, fit_chinchilla
from jaxlm.scaling.isoflop import group_budgets
from jaxlm.scaling.lowest import Lowest, fit_lowest

PROG = "python -m experiments.scaling predict"
PREDICTION, OUTCOME, CHECKSUM = "prediction.json", "outcome.json", "prediction_sha256"
_LEAST_BUDGETS = 3


@dataclasses.dataclass(frozen=True)
class PredictOptions(CommandOptions):
    """Options of a prediction."""

    times: float = 8.0
    """Compute of the run over the largest budget of the ladder."""
    law: Literal["parametric", "lowest"] = "parametric"
    """Which predicts: L(N, D) of all runs (approach 3), or the law through the lowest loss of each budget's parabola
    (approach 2)."""
    params: Literal["total", "non-embedding"] = "total"
    """How N is counted in the law."""
    least_squares: bool = False
    """In place of least absolute deviations of log loss, for the parametric law."""
    resamples: int = 4000
    """For the intervals."""
    train: bool = False
    """Train the predicted run, and compare; without it the prediction alone is written."""


def predict_main(argv: list[str]) -> int:
    """``CONFIG [--times 8] [--train] [--field.sub value ...] [--run-dir DIR]``: the last line on stdout is JSON."""
    require_single_process(PROG)
    about = "Predicts one run beyond a finished ladder, and with --train trains and compares it."
    config, options = load_config(LadderConfig, argv, PredictOptions, prog=PROG, about=about)
    if not 1 < options.times < math.inf or options.resamples < 100:
        raise UserError(
            f"--times {options.times} must be a number above 1, and --resamples {options.resamples} at least 100"
        )
    figures = predict(config, options, options.run_dir or Path("runs") / config.name)
    print_figures(json_ready(figures))
    return exit_code(figures)


def predict(config: LadderConfig, options: PredictOptions, run_dir: str | Path) -> dict[str, Any]:
    """Writes the prediction where there is none; with ``train`` trains its run and writes what came of it.

    Raises UserError for a ladder that is not finished, text that is too short, and a record that was changed or made by
    another law than is asked.
    """
    directory = RunDir(run_dir)
    with directory:
        ladder = begin(config, directory)
        place = directory.path / f"ahead-{options.times:g}x"
        record = place / PREDICTION
        if record.exists():
            _check_asked(record, options)
            say(f"{record} stands: it is not made again")
        else:
            _predict(config, options, directory, ladder, place)
        if not options.train:
            return {**_read(record), CHECKSUM: _sha256(record)}
        return _train(config, ladder, place)


def _check_asked(record: Path, options: PredictOptions) -> None:
    """Raises UserError for a record that was made otherwise than is asked: it would pass for what was."""
    written = _read(record)
    made = {"law": written["predicted"]["law"], "params": written["params"]}
    if "least_squares" in written:  # records of before do not say it
        made["least_squares"] = written["least_squares"]
    apart = {name: value for name, value in made.items() if value != getattr(options, name)}
    if apart:
        asked, was = (
            ", ".join(f"{name}={one}" for name, one in values.items())
            for values in ({name: getattr(options, name) for name in apart}, apart)
        )
        raise UserError(
            f"{record} was made with {was}, and {asked} is asked: it is not made again. Give the options it "
            "was made with, or other --times for another run"
        )


def _predict(config: LadderConfig, options: PredictOptions, directory: RunDir, ladder: Ladder, place: Path) -> None:
    if (place / "run").exists():
        raise UserError(
            f"{place / 'run'} has begun without a prediction: one made now would be none; use other --times"
        )
    missing = [one.name for one in ladder.rungs if RunDir(directory.path / RUNS / one.name).final_figures() is None]
    table = directory.path / TABLE
    if missing:
        raise UserError(
            f"{len(missing)} runs of the ladder are not finished ({', '.join(missing[:3])} ...): start its sweep again "
            "first, with the same options"
        )
    # Of the ladder's own runs: a table can be of an older ladder, or hold the very run that is to be predicted.
    rows = table_of(directory, ladder)
    column = "n" if options.params == "total" else "n_non_embedding"
    if not table.exists() or {row["run"] for row in rows} != set(map(str, read_table(table).columns.get("run", ()))):
        raise UserError(f"{table} does not hold this ladder's runs: start its sweep again, with the same options")
    runs = read_runs(table, {"n": column, "d": "d", "flops": "flops", "loss": "loss"})
    num_budgets = len(group_budgets(runs["flops"]))
    if num_budgets < _LEAST_BUDGETS:
        raise UserError(f"{table} has {num_budgets} budgets: a prediction needs at least {_LEAST_BUDGETS}")
    with naming_runs(table, runs["places"]):
        law = _law(runs, options)
    frontier = fit_frontier(runs["flops"], runs["loss"], resamples=options.resamples)
    one = _choose(config, ladder, law, options.times * config.budgets[-1], options.params)
    check_text(config, one, ladder.data)
    ahead = predict_ahead(
        law, frontier, runs["flops"], runs["loss"], num_params=_params(one, options.params), num_tokens=one.num_tokens,
        flops=one.flops,
    )  # fmt: skip
    _write_once(
        place / PREDICTION,
        {
            "predicted": ahead._asdict(),
            "times": options.times,
            "params": options.params,
            "least_squares": options.least_squares,
            "width": one.config.model.model_dim,
            "num_params": one.num_params,
            "non_embedding_params": one.non_embedding_params,
            "num_tokens": one.num_tokens,
            "flops": one.flops,
            "num_steps": one.config.num_steps,
            "law": (law.law if isinstance(law, Lowest) else law).constants,
            "law_intervals": law.intervals,
            "power": frontier.constants,
            "num_runs": len(runs["loss"]),
            "num_budgets": num_budgets,
            "table_sha256": _sha256(table),
            "dataset_key": ladder.data.dataset.key,
        },
    )
    low, high = ahead.interval
    say(
        f"predicted, before it is trained: width {one.config.model.model_dim}, N {one.num_params:,}, "
        f"{one.num_tokens:,} tokens, {one.flops:.3g} FLOPs: loss {ahead.loss:.4f} ({low:.4f} to {high:.4f}); by "
        f"a power law of compute {ahead.power:.4f}; the last rung has {ahead.last_loss:.4f}. Written to "
        f"{place / PREDICTION}"
    )


def _law(runs: dict[str, Any], options: PredictOptions) -> ChinchillaFit | Lowest:
    if options.law == "lowest":
        return fit_lowest(runs["n"], runs["flops"], runs["loss"], embeddings=options.params == "total")
    return fit_chinchilla(
        runs["n"], runs["d"], runs["loss"], delta=None if options.least_squares else 1e-3, resamples=options.resamples,
        embeddings=options.params == "total",
    )  # fmt: skip


def _params(one: Rung, params: str) -> int:
    return one.num_params if params == "total" else one.non_embedding_params


def _choose(config: LadderConfig, ladder: Ladder, law: ChinchillaFit | Lowest, flops: float, params: str) -> Rung:
    """The run of that compute whose width has the lowest predicted loss, or the N nearest to the best; widths in the
    steps of the base's heads."""
    base = config.run.model
    unit = getattr(base, "head_dim", None) or base.model_dim // base.num_heads  # pyright: ignore[reportAttributeAccessIssue]
    widths = range(max(unit, config.widths[0]), 8 * config.widths[-1] + 1, unit)
    best: tuple[float, Rung] | None = None
    for width in widths:
        try:
            model = config.model_at(width, ladder.vocab_size)
        except ValueError:  # the base's heads do not divide it
            continue
        if count_decoder_params(model).total ** 2 * 6 > flops:  # under a token a parameter
            break
        one = config.rung(flops, width, ladder.vocab_size)
        if one.num_tokens > config.max_epochs * ladder.data.dataset.splits["train"].num_tokens:
            continue
        n = _params(one, params)
        worse = abs(math.log(n / law.num_params(flops))) if isinstance(law, Lowest) else law.predict(n, one.num_tokens)
        if best is None or worse < best[0]:
            best = worse, one
    if best is None:
        raise UserError(f"no width can spend {flops:.3g} FLOPs within max_epochs={config.max_epochs:g}: add text")
    return best[1]


def _train(config: LadderConfig, ladder: Ladder, place: Path) -> dict[str, Any]:
    written = _read(place / PREDICTION)
    one = config.rung(written["times"] * config.budgets[-1], written["width"], ladder.vocab_size)
    if (one.num_params, one.num_tokens) != (written["num_params"], written["num_tokens"]):
        raise UserError(
            f"{place / PREDICTION} is of N {written['num_params']:,} and {written['num_tokens']:,} tokens, and this "
            f"config gives {one.num_params:,} and {one.num_tokens:,}: start it with the values of the prediction"
        )
    checksum = _sha256(place / PREDICTION)
    run_dir = place / "run"
    kept = place / CHECKSUM
    if kept.exists() and kept.read_text(encoding="utf-8").strip() != checksum:
        raise UserError(f"{place / PREDICTION} was changed since its run began: put back what was written then")
    if not kept.exists():
        if run_dir.exists():
            raise UserError(f"{run_dir} has begun without {kept}: use other --times")
        _exclusive(kept, checksum + "\n")
    figures = pretrain(one.config, run_dir, may_change=MOVED)
    if "stopped_by" in figures:
        return {"stopped_by": figures["stopped_by"], "run_dir": str(place)}
    row = row_of(one, figures, ladder.data, str(run_dir.name))
    fields = {**written["predicted"]}
    for name in ("interval", "power_interval"):
        fields[name] = tuple(fields[name])
    judged = judge(Ahead(**fields), float("nan") if row["loss"] is None else row["loss"])
    outcome = {**judged._asdict(), "holds": judged.holds, "predicted": written["predicted"], CHECKSUM: checksum, **row}
    if (place / OUTCOME).exists():
        if json.loads((place / OUTCOME).read_text(encoding="utf-8")) != json.loads(json.dumps(json_ready(outcome))):
            raise UserError(f"{place / OUTCOME} was changed since it was written: put back what was written then")
        say(f"{place / OUTCOME} stands")
    else:
        _write_once(place / OUTCOME, outcome)
    say(
        f"loss {judged.loss:.4f}: predicted {100 * judged.error:+.2f} % off, {100 * judged.share_of_drop:.1f} % of the "
        f"drop since the last rung; the power law {100 * judged.power_error:+.2f} %; the interval "
        f"{'holds it' if judged.inside else 'does not hold it'}"
    )
    return outcome


def _write_once(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _exclusive(path, json.dumps(json_ready(values), indent=2) + "\n")


def _exclusive(path: Path, text: str) -> None:
    """Writes a file that must not be there, and takes the right to write it away. Raises UserError where it is."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.chmod(0o444)
        os.link(partial, path)  # unlike a rename: fails where the name is taken
    except FileExistsError as error:
        raise UserError(f"{path} stands and is not overwritten") from error
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
