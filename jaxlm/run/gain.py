"""What pretraining is worth to a task: fine-tuned from the base and from nothing, over several seeds, in pairs."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.evals.paired import paired_difference
from jaxlm.io.agree import on_first_process, say
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.run_dir import RunDir, write_json
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.finetune import finetune
from jaxlm.run.finetune_config import FinetuneConfig
from jaxlm.run.finetune_data import prepare_examples
from jaxlm.run.training import exit_code, print_figures

RESULTS, ARMS = "gain.json", ("base", "scratch")


@dataclasses.dataclass(frozen=True)
class GainOptions(CommandOptions):
    """Options beside those of the fine-tuning."""

    num_seeds: int = 5
    """Pairs of runs, with seeds from the config's on."""


def main(argv: list[str]) -> int:
    """``CONFIG --base RUN [--num-seeds 5] [--field.sub value ...]``; the last line on stdout is the table as JSON."""
    about = "What pretraining is worth to a task: fine-tuned from the base and from nothing, over several seeds."
    prog = "python -m experiments.gain"
    config, options = load_config(FinetuneConfig, argv, GainOptions, prog=prog, about=about)
    run_dir = options.run_dir or Path("runs") / f"{config.name}-gain"
    results = pretraining_gain(config, run_dir, num_seeds=options.num_seeds)
    print_figures(results)
    return exit_code(results)


def pretraining_gain(config: FinetuneConfig, run_dir: str | Path, *, num_seeds: int = 5) -> dict[str, Any]:
    """Fine-tunes ``num_seeds`` pairs of runs, ``RUN/base-SEED`` and ``RUN/scratch-SEED``: model, tokenizer, data, order
    of examples and head are the same, and only the base's parameters are not.

    Returns (and writes to ``gain.json``) for each score the mean of both arms and the paired difference with its 95 %
    interval. Finished runs are not trained again. Raises UserError for bad input.
    """
    if config.base is None or config.from_scratch:
        raise UserError("what pretraining is worth is measured from a base: give --base RUN, and no --from-scratch")
    if num_seeds < 2:
        raise UserError(f"num_seeds={num_seeds} has no spread: give 2 or more, 5 for a figure to rely on")
    directory = Path(run_dir)
    config = dataclasses.replace(config, base_step=_base_step(config, directory))
    seeds = range(config.seed, config.seed + num_seeds)
    begun = [run for seed in seeds for arm in ARMS if (run := RunDir(directory / f"{arm}-{seed}")).config_path.exists()]
    on_first_process("examples", lambda: _check_examples(config, begun))
    arms: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in seeds:
        for arm, runs in arms.items():
            one = dataclasses.replace(config, seed=seed, from_scratch=arm == "scratch")
            say(f"-- {arm}, seed {seed}")
            figures = finetune(one, directory / f"{arm}-{seed}")
            if "stopped_by" in figures:
                return {"stopped_by": figures["stopped_by"], "run_dir": str(directory)}
            runs.append(figures)
    names = [name for name in arms["base"][0] if name.startswith("eval/")]
    results: dict[str, Any] = {"num_pairs": num_seeds, "base_step": config.base_step, "run_dir": str(directory)}
    for name in names:
        base, scratch = ([figures.get(name) for figures in runs] for runs in arms.values())
        results[name] = _compare(base, scratch)
        say(f"{name}: {_describe(results[name])}")
    on_first_process("gain", lambda: write_json(RunDir(directory).path / RESULTS, results))
    return results


def _base_step(config: FinetuneConfig, directory: Path) -> int | None:
    """The checkpoint that all pairs start from: that of the first, for the base may be trained on meanwhile."""
    first = RunDir(directory / f"base-{config.seed}")
    if config.base_step is None and first.config_path.exists():
        return first.read_config()["config"].get("base_step")
    if config.base_step is None and config.base is not None:
        with Checkpointer(RunDir(config.base).checkpoints_path, read_only=True) as checkpointer:
            return checkpointer.newest_intact()
    return config.base_step


def _check_examples(config: FinetuneConfig, begun: list[RunDir]) -> None:
    """Raises UserError where a run that has begun, or is finished, was given other examples than these."""
    if begun:
        found = prepare_examples(config, lambda line: None, resumes=True).fingerprint
        for run in begun:
            run.require(examples_sha256=found)


def _compare(base: list[float | None], scratch: list[float | None]) -> dict[str, float | int | None]:
    """Means, and the interval over the pairs in which both arms have the score (a constant has no correlation)."""
    pairs = [(a, b) for a, b in zip(base, scratch, strict=True) if a is not None and b is not None]
    undefined = len(base) - len(pairs)
    if len(pairs) < 2:
        nothing = dict.fromkeys(("base", "scratch", "difference", "lower", "upper"))
        return {**nothing, "num_undefined": undefined}
    ours, theirs = zip(*pairs, strict=True)
    found = paired_difference(ours, theirs)
    means = {"base": sum(ours) / len(pairs), "scratch": sum(theirs) / len(pairs)}
    bounds = {"difference": found.difference, "lower": found.lower, "upper": found.upper}
    return {**means, **bounds, "num_undefined": undefined}


def _describe(row: dict[str, float | int | None]) -> str:
    if row["difference"] is None:
        return f"undefined in {row['num_undefined']} of the pairs"
    means = f"{row['base']:.4f} from the base, {row['scratch']:.4f} from nothing"
    return f"{means}, difference {row['difference']:+.4f} [{row['lower']:+.4f}, {row['upper']:+.4f}]"
