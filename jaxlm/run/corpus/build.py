"""``jaxlm corpus CONFIG``: from sources to a dataset with its card, in stages that can be stopped anywhere."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from jaxlm.io.agree import say
from jaxlm.io.corpora.archives import SourceFile
from jaxlm.io.corpora.build_report import summary_lines, write_build_report, write_data_card
from jaxlm.io.run_dir import RunDir, write_json
from jaxlm.run.config_files import CommandOptions, load_config
from jaxlm.run.corpus.cleaning import describe, plain
from jaxlm.run.corpus.collecting import FILES, Collecting
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
from jaxlm.run.corpus.executors import check_executor, run_stages
from jaxlm.run.corpus.inputs import find_inputs, with_bad_words
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
LAYOUT = 1
"""Of what stages leave for later ones: a build is not gone on with by code that reads it otherwise."""
DATASET_LINK = "dataset"


@dataclasses.dataclass(frozen=True)
class BuildOptions(CommandOptions):
    """Options of a build."""

    dry_run: bool = False
    """List the files, their shards and the stages, and read nothing."""


def main(argv: list[str]) -> int:
    """``CONFIG [--field.sub value ...] [--run-dir DIR]``; the last line on stdout is one JSON object of the totals,
    or of the plan."""
    require_single_process("jaxlm corpus")
    config, options = load_config(CorpusBuildConfig, argv, BuildOptions, prog="jaxlm corpus")
    run_dir = options.run_dir or Path("runs") / "corpus"
    if options.dry_run:
        lines = plan_lines(config, run_dir)
        say("\n".join(lines))
        print_figures({"run_dir": str(run_dir), "plan": lines})
        return 0
    print_figures(build_corpus(config, run_dir))
    return 0


def build_corpus(config: CorpusBuildConfig, run_dir: str | Path) -> dict[str, Any]:
    """Builds the corpus under ``run_dir``, or goes on where a build was stopped; returns the totals.

    ``RUN/dataset`` is the TFDS dataset, ``RUN/DATACARD.md`` its card, ``RUN/report.html`` and ``report.json`` say what
    was done to every document. Raises UserError for bad input, before anything is read where it can be known.
    """
    config = with_bad_words(config)
    directory = RunDir(run_dir)
    with directory:
        directory.check_config(plain(config), may_change=MAY_CHANGE)
        final = directory.final_figures()
        if final is not None:  # whatever has become of its sources
            write_build_report(directory.report_path, json.loads((directory.path / "report.json").read_text("utf-8")))
            say(f"{directory.path} is finished: {directory.path / 'report.html'}")
            return final
        shards, bad_paths, facts = find_inputs(config)
        workspace = Workspace(directory.path.absolute())
        stages = make_stages(config, workspace)
        check_executor(stages, workspace, config.executor)
        directory.write_config(plain(config), may_change=MAY_CHANGE)
        directory.require(recipes=recipes_of(config), layout=LAYOUT, **facts)
        write_json(workspace.root / FILES, {"shards": shards, "bad_paths": bad_paths})
        if not run_stages(stages, workspace, config.executor):
            say("the jobs are submitted: start the same command again when they are done, for the report")
            return {"run_dir": str(directory.path), "submitted": True}
        report = corpus_report(config, workspace, stages, bad_paths)
        write_json(directory.path / "report.json", report)
        write_build_report(directory.report_path, report)
        write_data_card(directory.path / "DATACARD.md", report)
        write_data_card(workspace.task(DATASET, 0) / "DATACARD.md", report)  # a dataset that is moved keeps its card
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
    stages = []
    if config.evaluation:  # first: where it is wrong, little was done in vain
        items = CollectItems(config.evaluation, config.decontamination.overlap)
        stages.append(Stage(EVALUATION, 1, items, "evaluation items"))
    stages.append(Stage(COLLECT, shards, collecting, "reading and cleaning"))
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
        config.validation_fraction,
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
    config = with_bad_words(config)
    RunDir(run_dir).check_config(plain(config), may_change=MAY_CHANGE)
    shards, bad_paths, _ = find_inputs(config)
    workspace = Workspace(Path(run_dir).absolute())
    stages = make_stages(config, workspace)
    check_executor(stages, workspace, config.executor)
    lines = [f"{len(bad_paths)} bad paths", *(f"  {message}" for message in bad_paths)] if bad_paths else []
    for place, source in enumerate(config.sources):
        files = [entry["file"] for shard in shards for entry in shard if entry["source"] == place]
        size = sum(SourceFile(*file).size for file in files)
        lines.append(f"source {source.name}: {len(files)} files, {size / 1e6:.1f} MB, {source.licence}")
    for stage in stages:
        done = stage.num_tasks - len(workspace.unfinished(stage.name, stage.num_tasks))
        lines.append(
            f"stage {stage.name}: {stage.num_tasks} tasks ({stage.doing})" + (f", {done} done" if done else "")
        )
    return lines


def _link_dataset(workspace: Workspace) -> None:
    link = workspace.root / DATASET_LINK
    target = os.path.relpath(workspace.task(DATASET, 0), workspace.root)
    partial = link.with_name(f".{DATASET_LINK}.{os.getpid()}")
    for left in link.parent.glob(f".{DATASET_LINK}.*"):  # by a kill
        left.unlink()
    os.symlink(target, partial)
    os.replace(partial, link)
