"""``experiments.cleaning CONFIG``: what cleaning is worth to a small model, and each step of it.

Good text is mixed with junk of known kinds. One model learns from the raw mixture, one from the cleaned one, one from
each cleaning with a step left out: the same shape, tokenizer, tokens and seeds, scored on the same held-out good text.
Each is a run of its own below the run directory: resumed, and not run again once finished.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.evals.paired import paired_difference
from jaxlm.io.agree import say
from jaxlm.io.cleaning_report import cleaning_tables, write_cleaning_report
from jaxlm.io.run_dir import RunDir, write_json, write_text
from jaxlm.io.tokenizers import load_tokenizer, train_tokenizer
from jaxlm.io.tokenizers.files import DEFINITION_FILE
from jaxlm.run.cleaning_arms import Cleaned, apply_cleaning, precision_recall, tally, words_of
from jaxlm.run.cleaning_config import CEILING, CLEANED, RAW, Cleaning, CleaningStudyConfig
from jaxlm.run.cleaning_data import GOOD, Mixture, make_mixture
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.corpus.cleaning import describe
from jaxlm.run.prepare import keep_tokenizer
from jaxlm.run.processes import require_single_process
from jaxlm.run.proxy import assemble_proxy, bits_per_byte, pretrain_proxy
from jaxlm.run.setup import mesh_of
from jaxlm.run.training import exit_code, print_figures
from jaxlm.text.dedup import unit_hash
from jaxlm.text.tokenizer import Tokenizer

RESULTS, SCORE, FILTERS, HELD_OUT_FILE = "cleaning.json", "score.json", "filters.json", "held_out.jsonl"
MAY_CHANGE = ("name", "checkpoint", "log_every", "num_seeds", "ablation_seeds", "ceiling")


@dataclasses.dataclass(frozen=True)
class CleaningOptions(CommandOptions):
    """Options of the study."""

    filters_only: bool = False
    """Measure what every step does to good text and junk, and train nothing."""


def main(argv: list[str]) -> int:
    """``CONFIG [--filters-only] [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is the figures as
    JSON. The exit code of a study that a signal stopped is that of ``jaxlm pretrain``."""
    require_single_process("jaxlm cleaning")
    config, options = load_config(CleaningStudyConfig, argv, CleaningOptions, prog="jaxlm cleaning")
    run_dir = options.run_dir or Path("runs") / "cleaning"
    results = study_cleaning(config, run_dir, filters_only=options.filters_only)
    print_figures(results if "stopped_by" in results else summary(results))
    return exit_code(results)


def study_cleaning(config: CleaningStudyConfig, run_dir: str | Path, *, filters_only: bool = False) -> dict[str, Any]:
    """Returns (and writes to ``cleaning.json``) ``gain``, ``arms``, ``ablation``, ``filters`` and ``mixture``.

    A gain is bits per byte of the other arm less those of ``cleaned``: above 0, the cleaning (or the step) helps.
    Where a signal stopped the training: ``stopped_by`` and the ``model`` that it met. Raises UserError for bad input.
    """
    directory = RunDir(run_dir)
    with directory:
        directory.check_config(config, may_change=MAY_CHANGE)
        mixture = make_mixture(config)
        study = _Study(config, directory, mixture)
        tokenizer = None if filters_only else study.find_tokenizer()
        if tokenizer is not None and not directory.config_path.exists():
            study.check(tokenizer)  # refuses what cannot run, before the directory is this config's
        directory.write_config(config, may_change=MAY_CHANGE)
        directory.require(recipe=[describe(step) for step in config.recipe], mixture_hash=_hash_of(mixture))
        results: dict[str, Any] = {"mixture": study.describe(), "filters": study.filters()}
        if tokenizer is not None:
            keep_tokenizer(tokenizer, directory.tokenizer_path)
            if stopped := study.train(tokenizer):
                return stopped
            results |= study.compare()
        results["run_dir"] = str(directory.path)
        write_json(directory.path / RESULTS, results)
        write_cleaning_report(directory.report_path, config.name, results)
        say(cleaning_tables(results))
        say(f"report: {directory.report_path}")
        return results


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """The results without the accounts by kind and the list of pages, which ``cleaning.json`` has."""
    filters = results["filters"]
    scores = {
        name: {key: one[key] for key in ("precision", "recall", "good_lost")}
        for name, one in (*filters["alone"].items(), ("all", filters["all"]))
    }
    mixture = {"kinds": results["mixture"]["kinds"], "num_pages": len(results["mixture"]["pages"])}
    return results | {"filters": scores, "mixture": mixture}


def _hash_of(mixture: Mixture) -> str:
    whole = "\0".join([*(one.text for one in mixture.documents), "", *mixture.held_out])
    return f"{unit_hash(whole):.16f}"


class _Study:
    """What all runs share."""

    def __init__(self, config: CleaningStudyConfig, directory: RunDir, mixture: Mixture) -> None:
        self.config, self.directory, self.mixture = config, directory, mixture
        self.texts = [one.text for one in mixture.documents]
        self.scores: dict[str, dict[int, float]] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.same: dict[str, str] = {}
        """Arms that train on the very text of another, which is not trained twice."""

    @functools.cached_property
    def cleaned(self) -> Cleaned:
        """The whole cleaning of all documents."""
        return self._apply(self.config.without(""))

    def _apply(self, cleaning: Cleaning) -> Cleaned:
        return apply_cleaning(self.texts, cleaning)

    def describe(self) -> dict[str, Any]:
        """Documents and bytes of each kind, and the pages that were read."""
        kinds: dict[str, dict[str, int]] = {}
        for one in self.mixture.documents:
            row = kinds.setdefault(one.kind, {"documents": 0, "bytes": 0})
            row["documents"] += 1
            row["bytes"] += len(one.text.encode("utf-8", "replace"))
        return {
            "kinds": kinds,
            "held_out_bytes": sum(len(text.encode()) for text in self.mixture.held_out),
            "pages": sorted(str(page.path) for page in self.mixture.pages),
            "recipe": [describe(step) for step in self.config.recipe],
        }

    def filters(self) -> dict[str, Any]:
        """What the whole cleaning and each step alone do to every kind."""
        config, documents = self.config, self.mixture.documents
        words = [words_of(one) for one in documents]

        def measure(cleaned: Cleaned) -> dict[str, Any]:
            rows = tally(documents, words, cleaned)
            kinds = {kind: vars(row) | {"steps": dict(row.steps)} for kind, row in rows.items()}
            return precision_recall(rows.values()) | {"kinds": kinds}

        found = {
            "all": measure(self.cleaned),
            "alone": {name: measure(self._apply(config.only(name))) for name in config.steps},
        }
        write_json(self.directory.path / FILTERS, found)
        return found

    def check(self, tokenizer: Tokenizer) -> None:
        """Raises UserError where the first pair of runs could not start."""
        held_out = self._write_held_out()
        for name, texts in ((RAW, self.texts), (CLEANED, self.cleaned.texts)):
            file = self._arm(name, texts, tokenizer, {})
            one = self.config.pretraining(name, self.config.seed, (str(file),), (str(held_out),))
            assemble_proxy(one, tokenizer, mesh_of(one))

    def _write_held_out(self) -> Path:
        path = self.directory.path / HELD_OUT_FILE
        _write_texts(path, self.mixture.held_out)
        return path

    def train(self, tokenizer: Tokenizer) -> dict[str, Any] | None:
        """All runs that are not finished; what to return where a signal stopped one."""
        config = self.config
        held_out = self._write_held_out()
        seeds = range(config.seed, config.seed + config.num_seeds)
        arms = {RAW: self.texts, CLEANED: self.cleaned.texts}
        arms |= {CEILING: self.mixture.good} if config.ceiling else {}
        order = [(seed, name) for seed in seeds for name in arms]  # in pairs: a stopped study has whole ones
        steps = config.steps if config.ablation_seeds else ()
        arms |= {_left_out(step): self._apply(config.without(step)).texts for step in steps}
        known: dict[str, str] = {}
        files = {name: self._arm(name, texts, tokenizer, known) for name, texts in arms.items()}
        trained = [_left_out(step) for step in steps if _left_out(step) not in self.same]
        order += [(seed, name) for seed in seeds[: config.ablation_seeds] for name in trained]
        for seed, name in order:
            run = self.directory.path / name / str(seed)
            say(f"-- {name}, seed {seed}")
            run.mkdir(parents=True, exist_ok=True)
            one = config.pretraining(f"{name}, seed {seed}", seed, (str(files[name]),), (str(held_out),))
            figures = pretrain_proxy(one, tokenizer, run)
            if "stopped_by" in figures:
                return {"stopped_by": figures["stopped_by"], "model": name, "run_dir": str(self.directory.path)}
            if not (run / SCORE).exists():
                write_json(run / SCORE, {"bits_per_byte": bits_per_byte(run, self.mixture.held_out)})
            kept = json.loads((run / SCORE).read_text(encoding="utf-8"))
            self.scores.setdefault(name, {})[seed] = kept["bits_per_byte"]
        return None

    def _arm(self, name: str, texts: Sequence[str], tokenizer: Tokenizer, known: dict[str, str]) -> Path:
        """Writes an arm's training text, in an order of its own, and notes its size."""
        left = sorted((text for text in texts if text.strip()), key=unit_hash)
        if not left:
            raise UserError(f"nothing is left to train {name!r} on: the recipe removes all of the text")
        path = self.directory.path / name / "train.jsonl"
        path.parent.mkdir(exist_ok=True)
        whole = _write_texts(path, left)
        other = known.setdefault(whole, name)
        if other != name:
            self.same[name] = other
            say(f"{name} is the same text as {other}: not trained again")
        tokens = sum(len(ids) + 1 for ids in tokenizer.encode_batch(left))
        self.facts[name] = {
            "documents": len(left),
            "bytes": sum(len(text.encode("utf-8", "replace")) for text in left),
            "tokens": tokens,
            "epochs": self.config.proxy.num_tokens / tokens,
        }
        return path

    def compare(self) -> dict[str, Any]:
        """Bits per byte of every arm, and the paired gains of the cleaning and of each of its steps."""
        scores, config = self.scores, self.config
        arms = {
            name: fact | {"bits_per_byte": list(scores.get(name, {}).values())} for name, fact in self.facts.items()
        }
        found: dict[str, Any] = {"arms": arms, "gain": _gain(scores[RAW], scores[CLEANED])}
        if config.ceiling:
            found["to_ceiling"] = _gain(scores[CLEANED], scores[CEILING])
        found["ablation"] = {}
        for step in config.steps if config.ablation_seeds else ():
            name = _left_out(step)
            if name in self.same:
                found["ablation"][step] = {"same_text_as": self.same[name]}
            else:
                found["ablation"][step] = _gain(scores[name], scores[CLEANED])
        return found

    def find_tokenizer(self) -> Tokenizer:
        """That of the directory, or one trained now."""
        directory, config = self.directory, self.config.tokenizer
        if (directory.tokenizer_path / DEFINITION_FILE).exists():  # written last
            return load_tokenizer(directory.tokenizer_path)
        say(f"training a {config.kind} tokenizer on the good text ...")
        sample, size = [], 0
        for one in self.mixture.documents:
            if one.kind == GOOD and size < config.max_train_bytes:
                sample.append(one.good)
                size += len(one.good.encode())
        return train_tokenizer(config, sample)


def _left_out(step: str) -> str:
    return f"without-{step}"


def _write_texts(path: Path, texts: Sequence[str]) -> str:
    whole = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    whole = whole.encode("utf-8", "replace").decode()
    write_text(path, whole)
    return whole


def _gain(other: dict[int, float], ours: dict[int, float]) -> dict[str, Any]:
    """Bits per byte saved over the seeds that both have, with the 95 % interval; none for a single pair."""
    seeds = sorted(other.keys() & ours.keys())
    a, b = [other[seed] for seed in seeds], [ours[seed] for seed in seeds]
    if len(seeds) < 2:
        return {"difference": a[0] - b[0], "lower": None, "upper": None, "num_pairs": 1}
    return paired_difference(a, b)._asdict()
