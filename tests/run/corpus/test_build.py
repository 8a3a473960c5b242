"""A corpus build: every document accounted for, planted trouble found, the same bytes however it was interrupted."""

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow_datasets as tfds

from jaxlm.core.errors import UserError
from jaxlm.data.ledger import Ledger
from jaxlm.io.shards import read_removed, read_rows
from jaxlm.run.config_files import run_config_file
from jaxlm.run.corpus.build import build_corpus, make_stages
from jaxlm.run.corpus.config import CorpusBuildConfig
from jaxlm.run.corpus.workspace import Workspace
from tests.run.commands import refused_here

_spec = importlib.util.spec_from_file_location("corpus_config", Path(__file__).with_name("corpus_config.py"))
assert _spec is not None
assert _spec.loader is not None
planted = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(planted)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CorpusBuildConfig, Path, dict[str, Any]]:
    """(folder of the sources, config, run directory, final figures)."""
    folder = tmp_path_factory.mktemp("corpus")
    planted.write_sources(folder)
    config = run_config_file(planted.write_config(folder), CorpusBuildConfig)
    return folder, config, folder / "run", build_corpus(config, folder / "run")


def _report(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_bytes())


def _removed(run: Path) -> list[Any]:
    return [one for path in sorted(run.glob("stages/*/*/removed.parquet")) for one in read_removed(path)]


def test_every_document_is_kept_or_removed(built: Any) -> None:
    _, config, run, final = built
    report = _report(run)
    Ledger.from_dict(report["ledger"]).check()
    assert final["documents_read"] == planted.NUM_PLAIN + 20 + 20 + 30 + 2 + 5 + 2
    listed = len(_removed(run)) + report["bad_records"]["count"]
    assert final["documents_read"] == final["documents_kept"] + listed
    assert report["bad_records"]["count"] == 2
    assert all("pages.jsonl" in message for message in report["bad_records"]["listed"])
    kept = [r for path in sorted(run.glob("stages/8-select/*/documents.parquet")) for b in read_rows(path) for r in b]
    assert len(kept) == final["documents_kept"]
    assert sum(len(record.text.encode()) for record in kept) == final["bytes_kept"]
    assert config.num_shards == len(list(run.glob("stages/8-select/*")))


def test_planted_trouble_is_found_and_named(built: Any) -> None:
    _, _, run, _ = built
    reasons: dict[str, int] = {}
    for one in _removed(run):
        reasons[one.reason] = reasons.get(one.reason, 0) + 1
    assert reasons["exact copy"] == 20
    assert reasons["near copy"] == 20
    assert reasons["holds an item of exam"] == 5
    copies = [one for one in _removed(run) if one.step == "copies"]
    assert {one.source for one in copies} == {"web"}  # the source that is named first keeps its own
    assert all("good" in one.detail for one in copies)
    texts = [
        record.text for path in run.glob("stages/8-select/*/documents.parquet") for b in read_rows(path) for record in b
    ]
    assert sum("Share this page" in text for text in texts) == 1  # the first keeps it


def test_dataset_opens_and_holds_the_mixture(built: Any) -> None:
    _, _, run, _ = built
    report = _report(run)
    source: Any = tfds.builder_from_directory(run / "dataset").as_data_source
    train, validation = source("train"), source("validation")
    realised = report["mixture"]["realised"]
    assert len(train) == sum(count for count, _, _ in realised["train"].values())
    assert len(validation) == sum(count for count, _, _ in realised["validation"].values())
    example = train[0]
    assert set(example) == {"text", "source", "origin", "part"}
    held = {row["text"] for row in validation}
    assert not held & {row["text"] for row in train}
    card = (run / "DATACARD.md").read_text(encoding="utf-8")
    assert report["sha256"] in card
    assert "near copy" in card
    assert "<svg" in (run / "report.html").read_text(encoding="utf-8") or "svg+xml" in (run / "report.html").read_text()


def test_finished_build_does_nothing_and_another_config_is_refused(built: Any) -> None:
    import dataclasses

    _, config, run, final = built
    before = sorted(path.stat().st_mtime_ns for path in run.glob("stages/*/*/*"))
    assert build_corpus(config, run) == final
    assert sorted(path.stat().st_mtime_ns for path in run.glob("stages/*/*/*")) == before
    with pytest.raises(UserError, match="validation_fraction"):
        build_corpus(dataclasses.replace(config, validation_fraction=0.5), run)


def test_two_processes_give_the_same_bytes_as_one(built: Any, tmp_path: Path) -> None:
    import dataclasses

    _, config, run, final = built
    two = dataclasses.replace(config, executor=dataclasses.replace(config.executor, workers=2))
    assert build_corpus(two, tmp_path / "run")["sha256"] == final["sha256"]
    assert _hashes(tmp_path / "run") == _hashes(run)


@pytest.mark.slow
def test_kill_in_every_stage_gives_the_same_bytes(built: Any, tmp_path: Path) -> None:
    folder, config, run, final = built
    stages = [stage.name for stage in make_stages(config, Workspace(run))]
    for number, stage in enumerate(stages):
        again = tmp_path / str(number)
        assert _killed_in(stage, folder / "small.py", again, workers=1 + number % 2)
        done = subprocess.run(_command(folder / "small.py", again), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["sha256"] == final["sha256"]
        assert _hashes(again) == _hashes(run), stage
        assert not list(again.glob("stages/*/.*"))


def _command(config: Path, run: Path, workers: int = 1) -> list[str]:
    return [
        sys.executable,
        "-m",
        "experiments.corpus",
        str(config),
        "--run-dir",
        str(run),
        "--executor.workers",
        str(workers),
    ]


def _killed_in(stage: str, config: Path, run: Path, workers: int) -> bool:
    """Kills the build, all of its processes, as soon as a task of ``stage`` has begun."""
    process = subprocess.Popen(
        _command(config, run, workers),
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((run / "stages").glob(f"{stage}/.*.partial")) and not (run / "stages" / stage / "00000").exists():
        assert process.poll() is None, stage
        assert time.monotonic() < deadline, stage
        time.sleep(0.0005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return not (run / "done.json").exists()


def _hashes(run: Path) -> dict[str, str]:
    """sha256 of every file of the last stages, times apart."""
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(run)}


def _files(run: Path) -> Iterator[Path]:
    for stage in ("1-collect", "6-cluster", "8-select", "9-write", "10-dataset"):
        yield from (p for p in sorted((run / "stages" / stage).rglob("*")) if p.is_file() and p.name != "times.json")


def test_bad_input_is_one_line_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted.write_sources(tmp_path)
    path = planted.write_config(tmp_path)
    text = path.read_text(encoding="utf-8")
    wrong = {
        "weight=0.0": text.replace("weight=0.5", "weight=0.0"),
        "both named": text.replace('name="web"', 'name="good"'),
        "no file at": text.replace("/web", "/nowhere"),
        "num_shards=0": text.replace("num_shards=3", "num_shards=0"),
        "is no cleaning step": text.replace("recipe=LIGHT", "recipe=(3,)"),
    }
    for said, content in wrong.items():
        path.write_text(content, encoding="utf-8")
        assert len(refused_here(capsys, ["corpus", str(path), "--run-dir", str(tmp_path / "run")], said)) == 1
        assert not (tmp_path / "run" / "stages").exists()


def test_ledger_refuses_a_lost_document() -> None:
    ledger = Ledger()
    account = ledger.at("a", "read")
    account.documents_in = account.documents_out = 3
    ledger.check()
    account.documents_out = 2
    with pytest.raises(ValueError, match="kept 2 and removed 0"):
        ledger.check()
    account.remove("bad")
    ledger.check()
    following = ledger.at("a", "next")
    following.documents_in = following.documents_out = 3
    with pytest.raises(ValueError, match="left 2 documents"):
        ledger.check()
