"""``jaxlm corpus CONFIG``: from sources to a dataset with its card, in stages that can be stopped anywhere."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.io.agree import say
from jaxlm.io.corpora.archives import SourceFile
from jaxlm.io.corpora.build_report import summary_lines, write_build_report, write_data_card
from jaxlm.io.corpora.files import BadInput
from jaxlm.io.corpora.sources import find_files
from jaxlm.io.run_dir import RunDir, write_json
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.corpus.cleaning import describe
from jaxlm.run.corpus.collecting import FILES, Collecting, assign_files
from jaxlm.run.corpus.config import MAY_CHANGE, CorpusBuildConfig
from jaxlm.run.corpus.duplicates import (
    BANDS,
    CLUSTER,
    COLLECT,
    EXACT,
    VERIFY,
    Cluster,
    Collected,
    FindBand,
    FindExact,
    Verify,
)
from jaxlm.run.corpus.evaluation_index import CollectItems
from jaxlm.run.corpus.executors import run_stages
from jaxlm.run.corpus.repeated_lines import COUNT, LINES, CountLines, FindRepeated
from jaxlm.run.corpus.reporting import corpus_report
from jaxlm.run.corpus.selecting import EVALUATION, SELECT, TOKENIZER, Selecting
from jaxlm.run.corpus.tokenizing import MakeTokenizer
from jaxlm.run.corpus.workspace import Stage, Workspace
from jaxlm.run.corpus.writing import DATASET, WRITE, Naming, Writing
from jaxlm.run.processes import require_single_process
from jaxlm.run.training import print_figures
from jaxlm.text.tokenizer import TokenizerConfig

LINE_PARTS = 8
DATASET_LINK = "dataset"


@dataclasses.dataclass(frozen=True)
class BuildOptions(CommandOptions):
    """Options of a build."""

    dry_run: bool = False
    """List the files, their shards and the stages, and read nothing."""


def main(argv: list[str]) -> int:
    """``CONFIG [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is one JSON object of the totals."""
    require_single_process("jaxlm corpus")
    config, options = load_config(CorpusBuildConfig, argv, BuildOptions, prog="jaxlm corpus")
    run_dir = options.run_dir or Path("runs") / "corpus"
    if options.dry_run:
        for line in plan_lines(config, run_dir):
            say(line)
        return 0
    print_figures(build_corpus(config, run_dir))
    return 0


def build_corpus(config: CorpusBuildConfig, run_dir: str | Path) -> dict[str, Any]:
    """Builds the corpus under ``run_dir``, or goes on where a build was stopped; returns the totals.

    ``RUN/dataset`` is the TFDS dataset, ``RUN/DATACARD.md`` its card, ``RUN/report.html`` and ``report.json`` say what
    was done to every document. Raises UserError for bad input, before anything is read where it can be known.
    """
    if not config.sources:
        raise UserError("the config names no source: give sources=(SourceConfig(...), ...)")
    directory = RunDir(run_dir)
    with directory:
        directory.check_config(config, may_change=MAY_CHANGE)
        shards, bad_paths = _files(config)
        directory.write_config(config, may_change=MAY_CHANGE)
        directory.require(recipes=recipes_of(config), files_hash=_hash_of(shards))
        final = directory.final_figures()
        if final is not None:
            say(f"{directory.path} is finished: {directory.path / 'report.html'}")
            return final
        workspace = Workspace(directory.path.absolute())
        workspace.remove_partial()
        write_json(workspace.root / FILES, {"shards": shards, "bad_paths": bad_paths})
        stages = make_stages(config, workspace)
        if not run_stages(stages, workspace, config.executor):
            say("the jobs are submitted: start the same command again when they are done, for the report")
            return {"run_dir": str(directory.path), "submitted": True}
        report = corpus_report(config, workspace, stages, bad_paths)
        write_json(directory.path / "report.json", report)
        write_build_report(directory.report_path, report)
        write_data_card(directory.path / "DATACARD.md", report)
        _link_dataset(workspace)
        say(summary_lines(report))
        say(f"dataset: {directory.path / DATASET_LINK}\nreport: {directory.report_path}")
        final = {
            **report["total"],
            "bad_records": report["bad_records"]["count"],
            "sha256": report["sha256"],
            "processor_seconds": round(report["processor_seconds"], 3),
            "run_dir": str(directory.path),
        }
        directory.mark_done(final)
        return final


def make_stages(config: CorpusBuildConfig, workspace: Workspace) -> list[Stage]:
    """All stages in order. They follow from the config alone: each finds its input where an earlier one wrote it."""
    shards, collected = config.num_shards, Collected(workspace, config.num_shards)
    dedup = config.deduplication
    minhash = dedup.minhash if dedup.near else None
    recipes = tuple(config.recipe_of(source) for source in config.sources)
    counts_tokens = config.tokenizer is not None or config.tokenizer_dir is not None
    collecting = Collecting(workspace, config.sources, recipes, minhash)
    stages = [Stage(COLLECT, shards, collecting, "reading and cleaning")]
    if config.evaluation:
        stages.append(Stage(EVALUATION, 1, CollectItems(config.evaluation), "evaluation items"))
    if counts_tokens:
        make = MakeTokenizer(collected, config.tokenizer or TokenizerConfig(), config.tokenizer_dir)
        stages.append(Stage(TOKENIZER, 1, make, "tokenizer"))
    stages.append(Stage(EXACT, 1, FindExact(collected, dedup.exact), "exact copies"))
    if minhash is not None:
        stages.append(Stage(BANDS, minhash.bands, FindBand(collected, dedup.reach), "near copies: candidates"))
        verify = Verify(collected, minhash.bands, dedup.threshold)
        stages.append(Stage(VERIFY, shards, verify, "near copies: comparison"))
    stages.append(Stage(CLUSTER, 1, Cluster(collected, config.sources, minhash is not None), "clusters"))
    if config.repeats is not None:
        stages.append(Stage(COUNT, shards, CountLines(collected, config.repeats), "counting lines"))
        repeated = FindRepeated(collected, LINE_PARTS, config.repeats)
        stages.append(Stage(LINES, LINE_PARTS, repeated, "repeated lines"))
    selecting = Selecting(
        collected,
        config.repeats,
        LINE_PARTS,
        config.decontamination.overlap if config.evaluation else None,
        config.late_recipe,
        counts_tokens,
    )
    stages.append(Stage(SELECT, shards, selecting, "selecting"))
    writing = Writing(workspace, config.sources, config.mixture, config.validation_fraction, config.seed, shards)
    stages.append(Stage(WRITE, shards, writing, "mixing and writing"))
    stages.append(Stage(DATASET, 1, Naming(writing, config.title), "dataset"))
    return stages


def recipes_of(config: CorpusBuildConfig) -> dict[str, list[dict[str, object]]]:
    """Every source's steps as plain values, and those at the end."""
    recipes = {source.name: [describe(step) for step in config.recipe_of(source)] for source in config.sources}
    return recipes | {"all, at the end": [describe(step) for step in config.late_recipe]}


def plan_lines(config: CorpusBuildConfig, run_dir: str | Path) -> list[str]:
    """What a build would do, for a person."""
    shards, bad_paths = _files(config)
    lines = [f"{len(bad_paths)} bad paths", *(f"  {message}" for message in bad_paths)] if bad_paths else []
    for place, source in enumerate(config.sources):
        files = [entry["file"] for shard in shards for entry in shard if entry["source"] == place]
        size = sum(SourceFile(*file).size for file in files)
        lines.append(f"source {source.name}: {len(files)} files, {size / 1e6:.1f} MB, {source.licence}")
    lines += [f"stage {s.name}: {s.num_tasks} tasks ({s.doing})" for s in make_stages(config, Workspace(Path(run_dir)))]
    return lines


def _files(config: CorpusBuildConfig) -> tuple[list[Any], list[str]]:
    """(the files of every shard, what is wrong with paths): bad paths are found before anything is read."""
    bad = BadInput(skip=True)
    files: list[list[SourceFile]] = [find_files(source, bad) for source in config.sources]
    for source in config.evaluation:
        find_files(source, bad)
    return assign_files(files, config.num_shards), list(bad.listed)


def _hash_of(shards: list[Any]) -> str:
    """Names and sizes of the input: a build is not gone on with over other files."""
    return hashlib.sha256(json.dumps(shards, sort_keys=True).encode()).hexdigest()


def _link_dataset(workspace: Workspace) -> None:
    link = workspace.root / DATASET_LINK
    target = os.path.relpath(workspace.task(DATASET, 0), workspace.root)
    partial = link.with_name(f".{DATASET_LINK}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    os.symlink(target, partial)
    os.replace(partial, link)
