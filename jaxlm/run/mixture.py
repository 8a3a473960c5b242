"""``jaxlm mixture CONFIG``: what a mixture of sources does to the loss on each, measured by small runs.

One run for each candidate, some of the first of them with other seeds (the noise), a law fitted to their losses, and a
run of the mixture that the law calls best; then the law again, with that run, and the next. Each is a run of its own
below the run directory: resumed, and not run again once finished.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.data.mixture import MixtureConfig, MixturePlan, SourceSize, order_keys, plan_mixture, take
from jaxlm.io.agree import say
from jaxlm.io.mixture_report import mixture_table, write_mixture_report
from jaxlm.io.run_dir import RunDir, write_json, write_text
from jaxlm.io.tokenizers import load_tokenizer, train_tokenizer
from jaxlm.io.tokenizers.files import DEFINITION_FILE
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.mixture_config import AGAIN, BEST, MixtureStudyConfig
from jaxlm.run.mixture_data import Domain, read_domains, tokenizer_sample
from jaxlm.run.prepare import keep_tokenizer
from jaxlm.run.processes import require_single_process
from jaxlm.run.proxy import assemble_proxy, bits_per_byte, pretrain_proxy
from jaxlm.run.setup import mesh_of
from jaxlm.run.training import exit_code, print_figures
from jaxlm.scaling.mixing import Choice, best_mixture, choose_law
from jaxlm.text.dedup import hash_of
from jaxlm.text.tokenizer import Tokenizer

RESULTS, SCORES, TRAIN_FILE, HELD_OUT_FILE = "mixture.json", "by_domain.json", "train.jsonl", "held_out.jsonl"
MAY_CHANGE = ("name", "checkpoint", "log_every")
FILES = ("corpus.paths", "corpus.validation_paths")
"""Where a run's files lie is no matter: the key of its data set says what is in them."""


def main(argv: list[str]) -> int:
    """``CONFIG [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is the table as JSON.

    The exit code of a study that a signal stopped is that of ``jaxlm pretrain``."""
    require_single_process("jaxlm mixture")
    config, options = load_config(MixtureStudyConfig, argv, CommandOptions, prog="jaxlm mixture")
    results = study_mixture(config, options.run_dir or Path("runs") / config.name)
    print_figures(results)
    return exit_code(results)


def study_mixture(config: MixtureStudyConfig, run_dir: str | Path) -> dict[str, Any]:
    """Trains a proxy on each mixture; returns (and writes to ``mixture.json``) ``rows``, ``law``, ``best``, ``noise``.

    A row: ``shares`` (realised, of the training tokens), ``epochs`` and ``bits_per_byte`` by domain, their weighted
    ``mean``, and ``predicted`` where the law had not seen the run. Where a signal stopped the training: no rows, but
    ``stopped_by`` and the ``model`` that it met. Raises UserError for bad input, before anything is trained.
    """
    directory = RunDir(run_dir)
    with directory:
        directory.check_config(config, may_change=MAY_CHANGE)
        domains = read_domains(config)
        study = _Study(config, directory, domains, _shared_tokenizer(config, directory, domains))
        if not directory.config_path.exists():
            study.check()  # refuses what cannot run, before the directory is this config's
        directory.write_config(config, may_change=MAY_CHANGE)
        directory.require(
            text_sha256=hash_of(
                text for one in domains for part in ([one.name], one.train, one.held_out) for text in part
            )
        )
        keep_tokenizer(study.tokenizer, directory.tokenizer_path)
        rows: dict[str, dict[str, Any]] = {}
        for one in config.mixtures():
            if stopped := study.run(rows, one.name, one.shares, config.seed):
                return stopped
        first = config.mixtures()[0]
        repeats = [f"{AGAIN}-{number}" for number in range(1, config.repeats + 1)]
        for number, name in enumerate(repeats, 1):
            if stopped := study.run(rows, name, first.shares, config.seed + number):
                return stopped
        names, weight_d = [domain.name for domain in domains], study.weights
        choice, best_s = _predict(rows, weight_d)
        for number in range(1, config.rounds + 1):
            if number > 1:  # the run before teaches the law what is so near the mixture that it called best
                choice, best_s = _predict(rows, weight_d)
            best = f"{BEST}-{number}"
            if stopped := study.run(rows, best, tuple(best_s.tolist()), config.seed):
                return stopped
            predicted_d = choice.law.predict(_table({best: rows[best]}, "shares"))[0]
            rows[best]["predicted"] = dict(zip(names, predicted_d.tolist(), strict=True))
            rows[best]["predicted_mean"] = float(predicted_d @ weight_d)
        best = f"{BEST}-{config.rounds}"
        tried = [one.name for one in config.mixtures()]
        winner = min(tried, key=lambda name: rows[name]["mean"])
        results = {
            "rows": rows,
            "law": {
                "kind": choice.law.kind,
                "leave_one_out": choice.errors,
                "floor": dict(zip(names, choice.law.floor_d.tolist(), strict=True)),
                "slopes": {name: row.tolist() for name, row in zip(names, choice.law.slope_ds, strict=True)},
            },
            "best": {
                "shares": dict(zip(names, best_s.tolist(), strict=True)),
                "predicted_mean": rows[best]["predicted_mean"],
                "measured_mean": rows[best]["mean"],
                "best_candidate": winner,
                "best_candidate_mean": rows[winner]["mean"],
            },
            "noise": float(np.std([rows[name]["mean"] for name in (first.name, *repeats)], ddof=1)),
            "run_dir": str(directory.path),
        }
        write_json(directory.path / RESULTS, results)
        write_mixture_report(directory.report_path, config.name, results)
        say(mixture_table(results))
        say(f"report: {directory.report_path}")
        return results


def _predict(rows: dict[str, dict[str, Any]], weight_d: np.ndarray) -> tuple[Choice, np.ndarray]:
    """(the law of all rows, the shares that it calls best)."""
    choice = choose_law(_table(rows, "shares"), _table(rows, "bits_per_byte"))
    return choice, best_mixture(choice.law, weight_d)


def _table(rows: dict[str, dict[str, Any]], key: str) -> np.ndarray:
    """Figures by domain of every row, f64 [rows, d]."""
    return np.array([list(row[key].values()) for row in rows.values()])


def _shared_tokenizer(config: MixtureStudyConfig, directory: RunDir, domains: list[Domain]) -> Tokenizer:
    if (directory.tokenizer_path / DEFINITION_FILE).exists():  # written last
        return load_tokenizer(directory.tokenizer_path)
    say(f"training a {config.tokenizer.kind} tokenizer on as much of each domain ...")
    return train_tokenizer(config.tokenizer, tokenizer_sample(domains, config.tokenizer.max_train_bytes))


class _Mixed(NamedTuple):
    """The documents of one mixture."""

    plan: MixturePlan
    lines: list[str]
    tokens_s: np.ndarray


class _Study:
    """What all runs share."""

    def __init__(
        self, config: MixtureStudyConfig, directory: RunDir, domains: list[Domain], tokenizer: Tokenizer
    ) -> None:
        self.config, self.directory, self.domains, self.tokenizer = config, directory, domains, tokenizer
        data = config.proxy.data
        extra = (data.add_bos and tokenizer.bos_id is not None) + (data.add_eos and tokenizer.eos_id is not None)
        self.lengths = [
            np.array([len(ids) + extra for ids in tokenizer.encode_batch(domain.train)], np.int64) for domain in domains
        ]
        weights = np.array(config.weights or [1.0] * len(domains))
        self.weights = weights / weights.sum()
        for domain, lengths in zip(domains, self.lengths, strict=True):
            say(
                f"domain {domain.name}: {lengths.sum():,} tokens in {len(lengths):,} pieces to train on, "
                f"{domain.held_out_bytes:,} bytes held out"
            )

    def check(self) -> None:
        """Raises UserError where the first run could not start."""
        first = self.config.mixtures()[0]
        files = self._write(first.name, self._mix(first.shares))
        one = self.config.pretraining(first.name, self.config.seed, *files)
        assemble_proxy(one, self.tokenizer, mesh_of(one))

    def _write(self, name: str, mixed: _Mixed) -> tuple[tuple[str], tuple[str]]:
        """The files that a run trains on, and those that it is scored on."""
        train, held_out = self.directory.path / name / TRAIN_FILE, self.directory.path / HELD_OUT_FILE
        train.parent.mkdir(exist_ok=True)
        write_text(train, "\n".join(mixed.lines) + "\n")
        lines = [json.dumps({"text": text}, ensure_ascii=False) for one in self.domains for text in one.held_out]
        write_text(held_out, "\n".join(lines) + "\n")
        return (str(train),), (str(held_out),)

    def run(
        self, rows: dict[str, dict[str, Any]], name: str, shares: tuple[float, ...], seed: int
    ) -> dict[str, Any] | None:
        """Trains and scores one mixture, and adds its row; what to return where a signal stopped it."""
        say(f"-- {name}: " + ", ".join(f"{d.name} {s:.3f}" for d, s in zip(self.domains, shares, strict=True)))
        path = self.directory.path / name
        mixed = self._mix(shares)
        files = self._write(name, mixed)
        figures = pretrain_proxy(self.config.pretraining(name, seed, *files), self.tokenizer, path)
        if "stopped_by" in figures:
            return {"stopped_by": figures["stopped_by"], "model": name, "run_dir": str(self.directory.path)}
        losses = self._score(path)
        names = [domain.name for domain in self.domains]
        taken = mixed.tokens_s / mixed.tokens_s.sum()
        sizes = np.array([lengths.sum() for lengths in self.lengths])
        rows[name] = {
            "shares": dict(zip(names, taken.tolist(), strict=True)),
            "epochs": dict(zip(names, (mixed.tokens_s / sizes).tolist(), strict=True)),
            "bits_per_byte": losses,
            "mean": float(self.weights @ np.array([losses[one] for one in names])),
            "predicted": None,
            "predicted_mean": None,
            "seed": seed,
        }
        return None

    def _mix(self, shares: tuple[float, ...]) -> _Mixed:
        """The pieces of a mixture of one epoch's length, in an order of their own; nested as the shares grow."""
        used = [s for s, share in enumerate(shares) if share > 0]
        sizes = [SourceSize(self.domains[s].name, int(self.lengths[s].sum()), shares[s]) for s in used]
        wanted = MixtureConfig(temperature=None, max_epochs=None, num_tokens=self.config.proxy.num_tokens)
        plan = plan_mixture(sizes, wanted)
        chosen: list[tuple[int, str]] = []
        tokens_s = np.zeros(len(shares), np.int64)
        for s in used:
            domain, numbers = self.domains[s], np.arange(len(self.lengths[s]))
            copies = take(plan, domain.name, numbers, self.config.seed)
            tokens_s[s] = int(copies @ self.lengths[s])
            for copy in range(int(copies.max())):
                keys = order_keys(domain.name, numbers, self.config.seed, copy=copy)
                found = np.flatnonzero(copies > copy)
                chosen += [(int(keys[i]), domain.train[i]) for i in found.tolist()]
        chosen.sort()
        return _Mixed(plan, [json.dumps({"text": text}, ensure_ascii=False) for _, text in chosen], tokens_s)

    def _score(self, path: Path) -> dict[str, float]:
        """Bits per byte of each domain's held-out pieces; kept beside the run."""
        kept = path / SCORES
        if kept.exists():
            return json.loads(kept.read_text(encoding="utf-8"))
        found = {domain.name: bits_per_byte(path, domain.held_out) for domain in self.domains}
        write_json(kept, found)
        return found
