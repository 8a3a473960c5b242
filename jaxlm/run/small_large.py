"""``jaxlm small-large CONFIG``: a small model fine-tuned on a task against a larger one prompted: cost and latency.

Both answer the same validation examples; how often the commonest class of the training file is right stands beside.
"""

import dataclasses
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.tree import count_params
from jaxlm.data.examples import Example
from jaxlm.evals.prompting import Template, choose, draw_shots
from jaxlm.io.agree import say
from jaxlm.io.corpora.stdlib_kinds import KINDS, load_kinds
from jaxlm.io.labelled import read_examples
from jaxlm.io.run_dir import RunDir, write_json, write_text
from jaxlm.io.small_large_report import small_large_table, write_small_large_report
from jaxlm.plan.families import train_flops_per_token
from jaxlm.run.causal_lm import CausalLM
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.devices import cache_root
from jaxlm.run.finetune import finetune
from jaxlm.run.finetune_config import FinetuneConfig
from jaxlm.run.handle import load
from jaxlm.run.processes import require_single_process
from jaxlm.run.small_large_config import SmallLargeConfig
from jaxlm.run.training import exit_code, print_figures
from jaxlm.run.tuned_model import TunedModel

RESULTS = "small_large.json"
TASK_DIR, SMALL_RUN = "task", "small"
STDLIB_TASK = "what a docstring of Python's standard library describes; split by module"
MAY_CHANGE = (
    "name",
    "seed",
    "large",
    "num_shots",
    "shot_tokens",
    "cue",
    "label_words",
    "max_examples",
    "timed_answers",
    "small.name",
    "small.checkpoint",
    "small.log_every",
)
"""Fields of the config that change what is reported, not what is trained."""


def main(argv: list[str]) -> int:
    """``CONFIG [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is the table as JSON.

    The exit code of a run that a signal stopped is that of ``jaxlm finetune``."""
    require_single_process("jaxlm small-large")
    config, options = load_config(SmallLargeConfig, argv, CommandOptions, prog="jaxlm small-large")
    results = compare_small_large(config, options.run_dir or Path("runs") / config.name)
    print_figures(results)
    return exit_code(results)


def compare_small_large(config: SmallLargeConfig, run_dir: str | Path) -> dict[str, Any]:
    """Tunes the small model, prompts the larger one; returns (and writes to ``small_large.json``) ``rows``, ``task``
    and one ``prompt``.

    A row: ``model``, ``how``, ``num_params``, ``accuracy``, ``standard_error``, ``train_flops`` (on the task),
    ``answer_flops`` and ``answer_milliseconds``. Where a signal stopped the tuning: no rows, but ``stopped_by``.
    Raises UserError for bad input, before anything is trained.
    """
    large = _open_large(config)
    directory = RunDir(run_dir)
    with directory:
        directory.check_config(config, may_change=MAY_CHANGE)
        task = _prepare_task(config, directory)
        prompts = _prompts(config, large, task)
        directory.write_config(config, may_change=MAY_CHANGE)
        say("-- tuning the small model")
        # Where the files lie is no matter (a run may be moved): what is in them is, and is compared.
        figures = finetune(task.small, directory.path / SMALL_RUN, may_change=("task.train", "task.validation"))
        if "stopped_by" in figures:
            return {"stopped_by": figures["stopped_by"], "run_dir": str(directory.path)}
        small = load(directory.path / SMALL_RUN)
        assert isinstance(small, TunedModel)
        say(f"-- answering {len(task.texts)} examples")
        results = {
            "rows": [
                _majority_row(task),
                _small_row(config, task, small, figures),
                _large_row(config, task, large, prompts),
            ],
            "task": {
                "about": task.about,
                "labels": list(task.labels),
                "num_train": len(task.train),
                "num_answered": len(task.texts),
            },
            "prompt": prompts[0],
            "run_dir": str(directory.path),
        }
        write_json(directory.path / RESULTS, results)
        write_small_large_report(directory.report_path, config.name, results)
        say(small_large_table(results))
        say(f"report: {directory.report_path}")
        return results


class _Task(NamedTuple):
    """What both models are asked."""

    about: str
    small: FinetuneConfig
    """Files filled in."""
    labels: tuple[str, ...]
    words: tuple[str, ...]
    train: list[Example]
    texts: list[str]
    """The validation examples that are answered."""
    answers: np.ndarray
    """Their labels' numbers, int64."""


def _open_large(config: SmallLargeConfig) -> CausalLM:
    if not config.large:
        raise UserError("large is not given: name the run directory of a language model, --large RUN")
    lm = load(config.large)
    if not isinstance(lm, CausalLM):
        raise UserError(f"large={config.large} is a model of family {lm.family!r}: name a decoder or a recurrent model")
    if lm.tokenizer.closed:
        raise UserError(
            f"large={config.large} has a closed {lm.tokenizer.kind} tokenizer, which cannot spell every text: "
            "name a run with unigram, bpe or byte"
        )
    return lm


def _prepare_task(config: SmallLargeConfig, directory: RunDir) -> _Task:
    """The labelled files, made where none are given. Raises UserError for whatever is wrong in them."""
    task, about = config.small.task, f"{config.small.task.train}, {config.small.task.validation}"
    if not task.train:
        about = STDLIB_TASK
        train_file, validation_file = _write_stdlib_task(directory.path / TASK_DIR)
        task = dataclasses.replace(
            task, train=str(train_file), validation=str(validation_file), text="text", label="label", labels=KINDS
        )
    train, validation = (
        read_examples(path, (task.text,), task.label, words=False) for path in (task.train, task.validation)
    )
    classes = sorted({example.labels[0] for example in train})
    if len(classes) < 2:
        raise UserError(f"{task.train} holds one class alone, {classes[0]!r}: there is nothing to tell apart")
    labels = task.labels or tuple(classes)
    for example in (*train, *validation):
        if example.labels[0] not in labels:
            raise UserError(f"{example.where}: unknown label {example.labels[0]!r} (of {', '.join(labels)})")
    words = config.label_words or labels
    if len(words) != len(labels) or len(set(words)) < len(words):
        raise UserError(
            f"label_words={config.label_words} are not {len(labels)} different ones: give one for each of {labels}"
        )
    order = np.random.default_rng(config.seed).permutation(len(validation))[: config.max_examples]
    chosen = [validation[i] for i in sorted(order)]
    return _Task(
        about,
        dataclasses.replace(config.small, task=dataclasses.replace(task, labels=labels)),
        labels,
        words,
        train,
        [example.texts[0] for example in chosen],
        np.array([labels.index(example.labels[0]) for example in chosen]),
    )


def _write_stdlib_task(directory: Path) -> tuple[Path, Path]:
    """The two files; once, for a run that goes on must find the same."""
    files = directory / "train.jsonl", directory / "validation.jsonl"
    if all(path.exists() for path in files):
        return files
    say("making the task from the standard library's docstrings ...")
    directory.mkdir(exist_ok=True)
    for path, examples in zip(files, load_kinds(cache_root() / "corpora"), strict=True):
        write_text(path, "".join(json.dumps(one._asdict(), ensure_ascii=False) + "\n" for one in examples))
    return files


def _prompts(config: SmallLargeConfig, lm: CausalLM, task: _Task) -> list[str]:
    """What the larger model reads before each answer. Raises UserError where it is more than its context."""
    places = draw_shots([example.labels[0] for example in task.train], config.num_shots, config.seed)
    words = dict(zip(task.labels, task.words, strict=True))
    shots = [(_cut(lm, task.train[i].texts[0], config), words[task.train[i].labels[0]]) for i in places]
    template = Template("{question}\n" + config.cue)
    prompts = [template.prompt(shots, _cut(lm, text, config)) for text in task.texts]
    longest = max(len(lm.encode(f"{prompt} {word}")) for prompt in prompts for word in task.words)
    if longest > lm.context:
        raise UserError(
            f"num_shots={config.num_shots} of shot_tokens={config.shot_tokens} make a prompt of {longest} tokens, more "
            f"than the context of {lm.context} of {config.large}: lower one of them"
        )
    return prompts


def _cut(lm: CausalLM, text: str, config: SmallLargeConfig) -> str:
    ids = list(lm.tokenizer.encode(text))
    return text.strip() if len(ids) <= config.shot_tokens else lm.tokenizer.decode(ids[: config.shot_tokens]).strip()


def _majority_row(task: _Task) -> dict[str, Any]:
    commonest, _ = Counter(example.labels[0] for example in task.train).most_common(1)[0]
    return {
        "model": "commonest class",
        "how": f"always {commonest!r}",
        "num_params": None,
        **_accuracy(task.answers == task.labels.index(commonest)),
        "train_flops": None,
        "answer_flops": None,
        "answer_milliseconds": None,
    }


def _small_row(config: SmallLargeConfig, task: _Task, lm: TunedModel, figures: dict[str, Any]) -> dict[str, Any]:
    found = [task.labels.index(one.label) for one in lm.predict(task.texts)]
    fresh = config.small.base is None or config.small.from_scratch
    lengths = [min(lm.context, len(lm.tokenizer.encode(text))) for text in task.texts]
    return {
        "model": f"small {lm.config.family}",
        "how": f"{'trained from nothing' if fresh else 'fine-tuned'} on {len(task.train):,} examples",
        "num_params": count_params(lm.params),
        **_accuracy(task.answers == np.array(found)),
        "train_flops": figures["train_flops"],
        "answer_flops": float(np.mean([_read_flops(lm.config, length, head=False) for length in lengths])),
        "answer_milliseconds": _time(lambda text: lm.predict([text], batch_size=1), task.texts[: config.timed_answers]),
    }


def _large_row(config: SmallLargeConfig, task: _Task, lm: CausalLM, prompts: list[str]) -> dict[str, Any]:
    def nats(texts: list[str]) -> list[float]:
        return [score.nats for score in lm.score(texts)]

    found = choose(nats, prompts, task.words)
    flops = [
        sum(_read_flops(lm.config, len(lm.encode(f"{prompt} {word}")), head=True) for word in task.words)
        for prompt in prompts
    ]
    return {
        "model": f"larger {lm.family}",
        "how": f"prompted with {config.num_shots} example{'s' * (config.num_shots != 1)}",
        "num_params": count_params(lm.params),
        **_accuracy(task.answers == found),
        "train_flops": 0.0,
        "answer_flops": float(np.mean(flops)),
        "answer_milliseconds": _time(
            lambda prompt: choose(nats, [prompt], task.words), prompts[: config.timed_answers]
        ),
    }


def _accuracy(right: np.ndarray) -> dict[str, float]:
    """The share, and the standard error of a share of so many."""
    share = float(np.mean(right))
    return {"accuracy": share, "standard_error": (share * (1 - share) / len(right)) ** 0.5}


def _read_flops(model: Any, num_tokens: int, *, head: bool) -> float:
    """Of reading so many tokens, a third of training's: 2N a token and attention; ``head``: with the products of the
    head over the vocabulary."""
    without = 0.0 if head else 2.0 * model.padded_vocab_size * model.model_dim
    return (train_flops_per_token(model, max(1, num_tokens)) / 3 - without) * num_tokens


def _time(answer: Callable[[str], Any], texts: Sequence[str]) -> float:
    """Milliseconds an answer, median; each is given once before, so that all programs are compiled."""
    times = []
    for text in texts:
        answer(text)
        start = time.perf_counter()
        answer(text)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)
