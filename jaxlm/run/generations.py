"""``jaxlm generations CONFIG``: every generation of language model on one text, with one score, in one table.

Each model is a run of its own below the run directory, resumed like any other; a finished one is not run again.
"""

import dataclasses
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import Document
from jaxlm.evals.positions import loss_by_position
from jaxlm.io.agree import say
from jaxlm.io.config_json import config_to_dict, decode_config
from jaxlm.io.generations_report import generations_table, write_generations_report
from jaxlm.io.run_dir import RunDir, write_json
from jaxlm.io.tokenizers import load_tokenizer
from jaxlm.models.ngram_fit import fit_ngram
from jaxlm.plan.families import train_flops_per_token
from jaxlm.run.assembly import Assembly
from jaxlm.run.config import PretrainConfig
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.encoder_lm import EncoderLM
from jaxlm.run.generations_config import GenerationsConfig, TrainedConfig
from jaxlm.run.handle import load
from jaxlm.run.language_model import LanguageModel
from jaxlm.run.ngram_runs import new_run, run_config, write_run
from jaxlm.run.prepare import PreparedData, prepare_data, resolve_model
from jaxlm.run.pretrain import pretrain
from jaxlm.run.processes import require_single_process
from jaxlm.run.samples import check_prompts
from jaxlm.run.setup import mesh_of
from jaxlm.run.training import exit_code, print_figures
from jaxlm.text.tokenizer import MASK

NGRAM_RUN = "n-gram"
RESULTS = "generations.json"
MAY_CHANGE = (
    "name",
    "sample",
    "checkpoint",
    "log_every",
    "max_scored_documents",
    "max_encoder_documents",
    "decoder_run",
)
"""Fields of the config that change what is reported, not what is trained."""
CONTEXT_LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
TIMED_REPEATS = 5


def main(argv: list[str]) -> int:
    """``CONFIG [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is the table as JSON.

    The exit code of a run that a signal stopped is that of ``jaxlm pretrain``."""
    require_single_process("jaxlm generations")
    config, options = load_config(GenerationsConfig, argv, CommandOptions, prog="jaxlm generations")
    results = compare_generations(config, options.run_dir or Path("runs") / config.name)
    print_figures(results)
    return exit_code(results)


def compare_generations(config: GenerationsConfig, run_dir: str | Path) -> dict[str, Any]:
    """Trains, scores and samples each generation; returns (and writes to ``generations.json``) a row for each.

    A row: ``num_params``, ``train_flops``, ``train_seconds``, ``train_tokens``, ``bits_per_byte``, ``nats_per_token``,
    ``pseudo_nats_per_token``, ``by_position``, ``milliseconds_by_length`` and ``samples``. An encoder has
    pseudo-nats and no likelihood, the others the reverse. Where a signal stopped the training: no rows, but
    ``stopped_by`` and the ``model`` that it met. Raises UserError for bad input, before anything is trained.
    """
    directory = RunDir(run_dir)
    decoder_dir = Path(config.decoder_run or directory.path / "decoder")
    trained = config if config.decoder_run is None else dataclasses.replace(config, decoder=_finished(config))
    with directory:
        directory.check_config(config, may_change=MAY_CHANGE)
        runs = trained.pretraining()
        data = prepare_data(next(iter(runs.values())), say)
        if config.decoder_run is not None:
            _check_data(RunDir(decoder_dir), data)
        if not directory.config_path.exists():
            for name, one in runs.items():  # what cannot run is refused before the directory is this config's
                if name != "decoder" or config.decoder_run is None:
                    _check_run(name, dataclasses.replace(one, sample=config.sample), data)
        directory.write_config(config, may_change=MAY_CHANGE)
        rows = {NGRAM_RUN: _fit_ngram(config, data, directory.path / NGRAM_RUN)}
        for name, one in runs.items():
            say(f"-- {name}")
            if name == "decoder" and config.decoder_run is not None:
                figures = RunDir(decoder_dir).final_figures() or {}
            else:
                figures = pretrain(one, directory.path / name)
            if "stopped_by" in figures:
                say(f"stopped by {figures['stopped_by']} while training {name}: the same command goes on")
                return {"stopped_by": figures["stopped_by"], "model": name, "run_dir": str(directory.path)}
            rows[name] = _cost(one, figures, data)
        documents = list(itertools.islice(data.corpus.validation(), config.max_scored_documents))
        for name, row in rows.items():
            say(f"-- scoring {name}")
            lm = load(decoder_dir if name == "decoder" else directory.path / name)
            row |= _judge_encoder(lm, documents, config) if name == "encoder" else _judge(lm, documents, trained)
        results = {"rows": rows, "run_dir": str(directory.path)}
        write_json(directory.path / RESULTS, results)
        write_generations_report(directory.report_path, config.name, rows)
        say(generations_table(rows))
        say(f"report: {directory.report_path}")
        return results


def _finished(config: GenerationsConfig) -> TrainedConfig:
    """How the decoder of ``decoder_run`` was trained. Raises UserError where it is none, not finished, or of another
    corpus or tokenizer."""
    run = RunDir(config.decoder_run or "")
    saved = run.read_config()["config"]
    if "task" in saved or saved.get("model", {}).get("family") != "decoder":
        raise UserError(f"decoder_run={run.path} is no pretrained decoder: name the run directory of one")
    if run.final_figures() is None:
        raise UserError(f"decoder_run={run.path} is not finished: start its command again first")
    for name in ("corpus", "tokenizer"):
        if saved.get(name) != config_to_dict(getattr(config, name)):
            raise UserError(
                f"decoder_run={run.path} has another {name} than this config: all models must read the same"
            )
    decoder: PretrainConfig = decode_config(PretrainConfig, saved)
    return TrainedConfig(decoder.model, decoder.data, decoder.optimizer, decoder.num_steps, decoder.global_batch_size)


def _check_run(name: str, config: PretrainConfig, data: PreparedData) -> None:
    """Raises UserError where a model could not be trained, or not write at the end."""
    try:
        check_prompts(config, data.tokenizer)
        Assembly(dataclasses.replace(config, model=resolve_model(config.model, data.tokenizer)), data, mesh_of(config))
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _check_data(run: RunDir, data: PreparedData) -> None:
    """Raises UserError where a finished run read other tokens than these."""
    fingerprint = load_tokenizer(run.tokenizer_path).fingerprint
    if run.read_config().get("dataset_key") != data.dataset.key or fingerprint != data.tokenizer.fingerprint:
        raise UserError(
            f"decoder_run={run.path} was trained on another data set than {data.dataset.key} (the text, or its start "
            "and end symbols, changed since): train it again"
        )


def _cost(config: PretrainConfig, figures: dict[str, Any], data: PreparedData) -> dict[str, Any]:
    """What training took, of a finished run's final figures."""
    model = dataclasses.replace(config.model, vocab_size=data.tokenizer.vocab_size)
    num_tokens = config.num_steps * config.tokens_per_step
    return {
        "num_params": figures["num_params"],
        "train_flops": train_flops_per_token(model, config.data.seq_len) * num_tokens,
        "train_seconds": figures["perf/step_seconds"] * config.num_steps,
        "train_tokens": num_tokens,
    }


def _fit_ngram(config: GenerationsConfig, data: PreparedData, run_dir: Path) -> dict[str, Any]:
    """Counts the training documents, each behind the start symbol as the others see them; once.

    Raises UserError where ``run_dir`` holds the counts of other text."""
    split, tokenizer = data.dataset.splits["train"], data.tokenizer
    described = {"add_bos": True, "add_eos": True, "dataset_key": data.dataset.key}
    run = RunDir(run_dir)
    if (found := run.final_figures()) is not None:
        if run.read_config()["config"] != run_config(config.ngram, described):
            raise UserError(f"{run_dir} holds the counts of other text or another config: pass another --run-dir")
        say(f"{run_dir} is finished: pass another --run-dir to count again")
        return found
    offsets = np.asarray(split.doc_offsets)
    start = time.perf_counter()
    documents = split.read(offsets[:-1], np.diff(offsets))
    model = fit_ngram(
        documents,
        tokenizer.vocab_size,
        config.ngram.order,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        smoothing=config.ngram.smoothing,
        k=config.ngram.k,
        alpha=config.ngram.alpha,
        prune=config.ngram.prune,
        prune_entropy=config.ngram.prune_entropy,
    )
    seconds = time.perf_counter() - start
    # What a model of counts stores: a probability and a back-off weight for each n-gram.
    num_params = 2 * int(sum(model.facts["num_grams"]))
    figures = {
        "num_params": num_params,
        "train_flops": None,
        "train_seconds": seconds,
        "train_tokens": int(split.num_tokens),
    }
    with new_run(run_dir, overwrite=True) as partial:
        write_run(partial, model, tokenizer, described)
        RunDir(partial).mark_done(figures)
    return figures


def _judge(lm: LanguageModel, documents: list[Document], config: GenerationsConfig) -> dict[str, Any]:
    texts = [document.text for document in documents]
    scores = lm.score(texts)
    nats = sum(score.nats + (score.start_nats or 0.0) for score in scores)
    num_bytes = sum(score.num_bytes for score in scores)
    longest = min(config.decoder.data.seq_len, max(score.num_tokens for score in scores))
    by_position = loss_by_position([score.logprobs for score in scores], longest=longest)
    return {
        "bits_per_byte": nats / (num_bytes * float(np.log(2))),
        "nats_per_token": sum(score.nats for score in scores) / sum(score.num_tokens for score in scores),
        "pseudo_nats_per_token": None,
        "by_position": [one._asdict() for one in by_position],
        "milliseconds_by_length": _time_by_length(lm, texts, longest),
        "samples": _samples(lm, config),
    }


def _judge_encoder(lm: LanguageModel, documents: list[Document], config: GenerationsConfig) -> dict[str, Any]:
    """Pseudo-nats of the first piece of some documents. The other figures are of likelihoods: None or empty."""
    assert isinstance(lm, EncoderLM)
    pieces = [first_piece(lm, one.text) for one in documents[: config.max_encoder_documents] if MASK not in one.text]
    scores = lm.pseudo_log_likelihood([piece for piece in pieces if piece])
    num_tokens = sum(score.num_tokens for score in scores)
    return {
        "bits_per_byte": None,
        "nats_per_token": None,
        "pseudo_nats_per_token": sum(score.nats for score in scores) / num_tokens if num_tokens else None,
        "by_position": [],
        "milliseconds_by_length": {},
        "samples": [],
    }


def first_piece(lm: EncoderLM, text: str) -> str:
    """The longest beginning of a text, in whole tokens, that fits the context of ``lm``."""
    ids = list(lm.tokenizer.encode(text))[: lm.context]
    # What was cut may be cut into other tokens when read again, so it is tried.
    while ids:
        piece = lm.tokenizer.decode(ids)
        if lm.fits(piece):
            return piece
        ids.pop()
    return ""


def _samples(lm: LanguageModel, config: GenerationsConfig) -> list[dict[str, str]]:
    if not config.sample.prompts:
        return []
    drawn = lm.generate(
        config.sample.prompts,
        max_new_tokens=config.sample.max_new_tokens,
        temperature=config.sample.temperature,
        top_p=config.sample.top_p,
        num_samples=config.sample.num_samples,
        seed=config.seed,
        slide=True,
    )
    return [{"prompt": one.prompt, "completion": one.text} for one in drawn]


def _time_by_length(lm: LanguageModel, texts: list[str], longest: int) -> dict[int, float]:
    """Milliseconds to score a text of so many tokens, median of some; programs are compiled before."""
    ids = lm.tokenizer.encode("\n".join(texts[:200]))
    found = {}
    for length in CONTEXT_LENGTHS:
        if length > min(longest, len(ids)):
            break
        text = [lm.tokenizer.decode(ids[:length])]
        lm.score(text)
        times = []
        for _ in range(TIMED_REPEATS):
            start = time.perf_counter()
            lm.score(text)
            times.append(time.perf_counter() - start)
        found[length] = 1e3 * statistics.median(times)
    return found
