"""``jaxlm align CONFIG``: the whole road from text to aligned models on a made-up world. The same command resumes it.

Every stage is an ordinary run below the run directory, trained by the command of that name, and is kept once it is
finished; then all models answer the same held-out questions, and the gold checker judges (`evals.gold`).
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.data.world import records
from jaxlm.data.world.questions import KINDS, Asker
from jaxlm.data.world.text import documents
from jaxlm.data.world.towns import World, make_world
from jaxlm.evals.gold import is_preferred, is_right
from jaxlm.io.agree import say
from jaxlm.io.align_report import align_tables, write_align_report
from jaxlm.io.goodput import Account, read_events
from jaxlm.io.metrics import read_lines
from jaxlm.io.run_dir import RunDir, write_json, write_text
from jaxlm.plan.alignment import rl_flops
from jaxlm.plan.families import train_flops_per_token
from jaxlm.run.align.dpo import dpo
from jaxlm.run.align.measures import measure_answers, measure_knowledge, measure_text
from jaxlm.run.align.ppo import ppo
from jaxlm.run.align.reward import reward
from jaxlm.run.align.road_config import REWARD_STAGE, RoadConfig, Stage
from jaxlm.run.align.road_results import gather
from jaxlm.run.align.sft import sft
from jaxlm.run.causal_lm import CausalLM
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.devices import use_compilation_cache
from jaxlm.run.handle import load
from jaxlm.run.pretrain import pretrain
from jaxlm.run.processes import require_single_process
from jaxlm.run.training import exit_code, print_figures
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.template import ChatTemplate

RESULTS, WORLD_DIR, MEASURES = "align.json", "world", "measures"
TEMPLATE_FILE = "template.jinja"
MAY_CHANGE = ("name", "stages")


def main(argv: list[str]) -> int:
    """``CONFIG [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is the final figures as JSON."""
    require_single_process("jaxlm align")
    config, options = load_config(RoadConfig, argv, CommandOptions, prog="jaxlm align")
    figures = align(config, options.run_dir or Path("runs") / config.name)
    print_figures(figures)
    return exit_code(figures)


def align(config: RoadConfig, run_dir: str | Path) -> dict[str, Any]:
    """Goes the whole road in ``run_dir``, or what is left of it; returns the figures that `align.json` has in full.

    Where a signal or a collapse stopped a stage, ``stopped_by`` and ``stage``. Raises UserError for bad input.
    """
    directory = RunDir(run_dir)
    with directory:
        directory.write_config(config, may_change=MAY_CHANGE)
        world = make_world(config.seed, num_towns=config.world.num_towns)
        write_world(config, world, directory.path / WORLD_DIR)
        finals: dict[str, Any] = {}
        for name in config.stages:
            say(f"-- {name}")
            finals[name] = figures = _STAGES[name](config, directory.path)
            if "stopped_by" in figures:
                return {"stage": name, "run_dir": str(directory.path)} | figures
        say("-- asking every model")
        results = gather(
            config,
            measured=_measure_all(config, world, directory.path),
            knowledge=_measure_knowledge(config, world, directory.path),
            finals=finals,
            costs=[_cost(config, name, finals[name], directory.path / name) for name in config.stages],
            rollouts={
                name: list(read_lines(RunDir(directory.path / name).metrics_path))
                for name in config.stages
                if name in _REINFORCED
            },
        )
        write_json(directory.path / RESULTS, results)
        write_align_report(directory.report_path, config.name, results)
        say(align_tables(results))
        say(f"report: {directory.report_path}")
        return results["headline"] | {"run_dir": str(directory.path)}


def write_world(config: RoadConfig, world: World, directory: Path) -> None:
    """The files of all stages; once, for they are a function of the config."""
    directory.mkdir(exist_ok=True)
    sizes, seed = config.world, config.seed
    for split, for_test in (("train", False), ("validation", True)):
        count = sizes.num_held_out if for_test else sizes.num_documents
        made: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "text": lambda n=count, t=for_test: [{"text": x} for x in documents(world, n, seed=seed, for_test=t)],
            "conversations": lambda t=for_test: records.conversations(world, sizes, seed=seed, for_test=t),
            "rankings": lambda t=for_test: records.rankings(world, sizes, seed=seed, for_test=t),
            "pairs": lambda t=for_test: records.pairs(world, sizes, seed=seed, for_test=t),
        }
        for name, make in made.items():
            _write_lines(directory / f"{name}_{split}.jsonl", make)
    if not (directory / TEMPLATE_FILE).exists():
        write_text(directory / TEMPLATE_FILE, records.TEMPLATE)
    _write_lines(directory / "prompts_train.jsonl", lambda: records.prompts(world, sizes, seed=seed))
    asker = Asker(world, seed, for_test=True)
    _write_lines(
        directory / "questions.jsonl",
        lambda: [one.record() for kind in KINDS for one in asker.ask_different(kind, sizes.num_questions)],
    )


def _write_lines(path: Path, make: Callable[[], list[dict[str, Any]]]) -> None:
    if not path.exists():
        write_text(path, "".join(json.dumps(one) + "\n" for one in make()))


def _base(config: RoadConfig, path: Path) -> dict[str, Any]:
    files = {"paths": (_file(path, "text_train"),), "validation_paths": (_file(path, "text_validation"),)}
    corpus = dataclasses.replace(config.base.corpus, source="jsonl", **files)
    base = dataclasses.replace(config.base, seed=config.seed, corpus=corpus)
    return pretrain(base, path / "base", may_change=tuple(f"corpus.{name}" for name in files))


def _tuned(run: Callable[..., dict[str, Any]], name: str, files: str, base: str) -> Callable[..., dict[str, Any]]:
    """A stage that learns from records."""

    def stage(config: RoadConfig, path: Path) -> dict[str, Any]:
        of_stage = getattr(config, name)
        data = dataclasses.replace(
            of_stage.data,
            train=(_file(path, f"{files}_train"),),
            validation=(_file(path, f"{files}_validation"),),
        )
        if base == "base":  # the later ones have it from SFT
            data = dataclasses.replace(data, template=str(path / WORLD_DIR / TEMPLATE_FILE))
        of_stage = dataclasses.replace(of_stage, seed=config.seed, base=str(path / base), data=data)
        if name == "dpo" and of_stage.text.coef:
            corpus = dataclasses.replace(of_stage.text.corpus, source="jsonl", paths=(_file(path, "text_train"),))
            of_stage = dataclasses.replace(of_stage, text=dataclasses.replace(of_stage.text, corpus=corpus))
        return run(of_stage, path / name, may_change=("base", "data.template", "text.corpus.paths"))

    return stage


def _reinforced(name: str) -> Callable[..., dict[str, Any]]:
    """A stage that learns from rewards."""

    def stage(config: RoadConfig, path: Path) -> dict[str, Any]:
        of_stage = getattr(config, name)
        rewards = tuple(
            dataclasses.replace(one, run=str(path / REWARD_STAGE)) if one.run == REWARD_STAGE else one
            for one in of_stage.rewards
        )
        prompts = dataclasses.replace(of_stage.prompts, train=(_file(path, "prompts_train"),))
        of_stage = dataclasses.replace(
            of_stage, seed=config.seed, base=str(path / "sft"), prompts=prompts, rewards=rewards
        )
        may_change = ("base", "prompts", *(f"rewards.{i}.run" for i in range(len(rewards))))
        return ppo(of_stage, path / name, functions=FUNCTIONS, may_change=may_change)

    return stage


_REINFORCED = ("ppo", "grpo")
_STAGES: dict[Stage, Callable[[RoadConfig, Path], dict[str, Any]]] = {
    "base": _base,
    "sft": _tuned(sft, "sft", "conversations", "base"),
    REWARD_STAGE: _tuned(reward, REWARD_STAGE, "rankings", "sft"),
    "ppo": _reinforced("ppo"),
    "grpo": _reinforced("grpo"),
    "dpo": _tuned(dpo, "dpo", "pairs", "sft"),
}


def _right(prompts: list[str], answers: list[str], given: list[dict[str, Any]]) -> list[float]:
    del prompts
    return [float(is_right(record, answer)) for record, answer in zip(given, answers, strict=True)]


def _preferred(prompts: list[str], answers: list[str], given: list[dict[str, Any]]) -> list[float]:
    del prompts
    return [float(is_preferred(record, answer)) for record, answer in zip(given, answers, strict=True)]


FUNCTIONS = {"right": _right, "preferred": _preferred}
"""The gold checker as rewards."""


def _file(path: Path, name: str) -> str:
    return str(path / WORLD_DIR / f"{name}.jsonl")


def _measure_all(config: RoadConfig, world: World, path: Path) -> dict[str, Any]:
    """Model -> what `run.align.measures` says of it; what was measured before is read."""
    use_compilation_cache()
    asker = Asker(world, config.seed, for_test=True)
    questions = [one for kind in KINDS for one in asker.ask_different(kind, config.world.num_questions)]
    texts = documents(world, config.world.num_held_out, seed=config.seed, for_test=True)
    models: dict[str, CausalLM] = {}

    def model(name: str) -> CausalLM:
        if name not in models:
            models[name] = open_model(path / name)
        return models[name]

    def measure(name: str) -> dict[str, Any]:
        reference = None if name in ("base", "sft") else model("sft")
        options = {"max_new_tokens": config.max_new_tokens, "seed": config.seed}
        found = measure_answers(model(name), reference, questions, **options)
        return found | {"bits_per_byte": measure_text(model(name), texts)}

    return {name: _kept(path / MEASURES / f"{name}.json", lambda name=name: measure(name)) for name in config.models}


def _measure_knowledge(config: RoadConfig, world: World, path: Path) -> dict[str, Any]:
    """Base and SFT model -> what they know."""
    del config
    return {
        name: _kept(
            path / MEASURES / f"knowledge_{name}.json",
            lambda name=name: measure_knowledge(open_model(path / name), world),
        )
        for name in ("base", "sft")
    }


def _kept(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_json(path, measure())
    return json.loads(path.read_text(encoding="utf-8"))


def open_model(run: Path) -> CausalLM:
    """The model of a stage; the base, which was taught no template, is asked in the one that tuning uses."""
    lm = load(run)
    if not isinstance(lm, CausalLM):
        raise UserError(f"{run} is a model of family {lm.family!r}, which does not answer: use a decoder")
    if lm.form is None:
        lm.form = ChatFormat(ChatTemplate("road", records.TEMPLATE), lm.tokenizer)
    return lm


def _cost(config: RoadConfig, name: str, final: dict[str, Any], path: Path) -> dict[str, Any]:
    """FLOPs and seconds of a stage, compilation, evaluations and the one reading of DPO's reference included in the
    seconds alone."""
    of_stage = getattr(config, name)
    if name == "base":
        model = load(path).config
        tokens = of_stage.num_steps * of_stage.tokens_per_step
        flops = tokens * train_flops_per_token(model, of_stage.data.seq_len)
    elif name in _REINFORCED:
        flops = rl_flops(final["train_flops"], algorithm=of_stage.algorithm, passes_trained=of_stage.ppo_epochs)
    else:
        flops = final["train_flops"]
    seconds = Account(read_events(RunDir(path).goodput_path)).total
    return {"stage": name, "flops": flops, "seconds": seconds}
