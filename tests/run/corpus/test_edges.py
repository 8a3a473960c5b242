"""Corpora at the edge: nothing left, more shards than files, lone surrogates, sets that cannot be looked for."""

import dataclasses
import errno
import functools
import json
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxlm.core.errors import UserError, is_full_disk
from jaxlm.data.deduplication import DeduplicationConfig, RepeatsConfig
from jaxlm.data.mixture import MixtureConfig, StageConfig
from jaxlm.data.source import ReadLimits, SourceConfig
from jaxlm.io.quality import QualityScore, save_quality
from jaxlm.io.shards import read_removed
from jaxlm.models.quality import QualityConfig, QualityModel, Scored
from jaxlm.run.config_files import run_config_file
from jaxlm.run.corpus.build import build_corpus, main
from jaxlm.run.corpus.cleaning import plain
from jaxlm.run.corpus.config import CorpusBuildConfig
from jaxlm.run.corpus.executors import ExecutorConfig
from jaxlm.run.corpus.workspace import Workspace
from jaxlm.text.rules.presets import LIGHT
from jaxlm.text.tokenizer import TokenizerConfig
from tests.run.corpus import corpus_config as planted

TEXTS = [f"Story number {n}: " + " ".join(f"w{(n * k) % 997}x" for k in range(40, 90)) for n in range(1, 61)]


def _source(folder: Path, name: str, texts: list[str], **changes: Any) -> SourceConfig:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return SourceConfig(**({"name": name, "format": "jsonl", "paths": (str(path),)} | changes))


def _config(*sources: SourceConfig, **changes: Any) -> CorpusBuildConfig:
    given: dict[str, Any] = {
        "sources": sources,
        "tokenizer": TokenizerConfig(kind="byte"),
        "num_shards": 2,
        "validation_fraction": 0.1,
        "executor": ExecutorConfig(workers=1),
    }
    return CorpusBuildConfig(**(given | changes))


def _lengths(texts: Sequence[str]) -> np.ndarray:
    return np.array([len(text) for text in texts], np.float32)


def _report(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_bytes())


def test_more_shards_than_files(tmp_path: Path) -> None:
    final = build_corpus(_config(_source(tmp_path, "a", TEXTS), num_shards=7), tmp_path / "run")
    assert final["documents_kept"] == 60
    builder: Any = tfds.builder_from_directory(tmp_path / "run/dataset")
    assert sum(len(builder.as_data_source(split)) for split in builder.info.splits) == 60


@pytest.mark.parametrize("texts", [[], ["word " * 500]])
def test_nothing_left_is_one_line_that_says_why(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(UserError, match=r"no document is left.*in step (read|repetition) for"):
        build_corpus(_config(_source(tmp_path, "a", texts)), tmp_path / "run")


def test_a_source_of_which_nothing_is_left_leaves_the_mixture(tmp_path: Path) -> None:
    sources = _source(tmp_path, "a", TEXTS), _source(tmp_path, "copies", TEXTS[:5])
    stages = (StageConfig("early", 0.5, (("copies", 3.0),)), StageConfig("late", 0.5))
    build_corpus(_config(*sources, mixture=MixtureConfig(stages=stages)), tmp_path / "run")
    realised = _report(tmp_path / "run")["mixture"]["realised"]
    assert realised["train_early"]["a"][0] + realised["train_late"]["a"][0] + realised["validation"]["a"][0] == 60
    assert realised["train_early"]["copies"] == [0, 0, 0]
    alone = (StageConfig("early", 0.5, (("a", 0.0),)), StageConfig("late", 0.5))
    with pytest.raises(UserError, match="nothing is left of what stage 'early'"):
        build_corpus(_config(*sources, mixture=MixtureConfig(stages=alone)), tmp_path / "alone")


def test_the_mixture_is_made_of_what_is_not_held_out(tmp_path: Path) -> None:
    config = _config(
        _source(tmp_path, "a", TEXTS), validation_fraction=0.5, mixture=MixtureConfig(num_tokens=20_000, max_epochs=8)
    )
    build_corpus(config, tmp_path / "run")
    mixture = _report(tmp_path / "run")["mixture"]
    trained = mixture["realised"]["train"]["a"][2]
    assert abs(trained - 20_000) < 2 * max(map(len, TEXTS))
    planned = mixture["plan"]["sources"][0]
    assert planned["tokens"] == sum(len(t) for t in TEXTS) - mixture["realised"]["validation"]["a"][2]


def test_copies_that_differ_in_case_share_no_splits(tmp_path: Path) -> None:
    sources = _source(tmp_path, "a", TEXTS), _source(tmp_path, "b", [text.upper() for text in TEXTS])
    build_corpus(_config(*sources, validation_fraction=0.4), tmp_path / "run")
    data: Any = tfds.builder_from_directory(tmp_path / "run/dataset").as_data_source
    held, trained = ({row["text"].lower() for row in data(split)} for split in ("validation", "train"))
    assert held
    assert not held & trained


def test_priority_decides_across_shards(tmp_path: Path) -> None:
    low = _source(tmp_path, "low", TEXTS)
    high = _source(tmp_path, "high", TEXTS[:20] + [f"{text} one more" for text in TEXTS[20:40]], priority=5)
    build_corpus(_config(low, high, num_shards=3), tmp_path / "run")
    sources = _report(tmp_path / "run")["sources"]
    assert (sources["low"]["documents_kept"], sources["high"]["documents_kept"]) == (20, 40)
    notes = [n for path in tmp_path.glob("run/stages/8-select/*/removed.parquet") for n in read_removed(path)]
    assert sorted({(n.reason, n.source) for n in notes}) == [("exact copy", "low"), ("near copy", "low")]
    assert all(n.value >= 0.5 for n in notes)


def test_an_exact_copy_of_a_near_copy_states_a_likeness(tmp_path: Path) -> None:
    near = f"{TEXTS[0]} one more"
    build_corpus(_config(_source(tmp_path, "a", [TEXTS[0], near, near.upper()])), tmp_path / "run")
    notes = [n for path in tmp_path.glob("run/stages/8-select/*/removed.parquet") for n in read_removed(path)]
    assert len(notes) == 2
    assert all(n.value > 0.5 for n in notes)


def test_the_first_documents_of_a_file_whatever_its_pieces(tmp_path: Path) -> None:
    source = _source(tmp_path, "a", TEXTS, max_documents=5, limits=ReadLimits(piece_bytes=2000))
    assert build_corpus(_config(source), tmp_path / "run")["documents_read"] == 5


def test_bad_records_have_file_and_offset(tmp_path: Path) -> None:
    source = _source(tmp_path, "a", [*TEXTS, "broken \ud800 here"])
    build_corpus(_config(source), tmp_path / "run")
    offset = sum(len(json.dumps({"text": text})) + 1 for text in TEXTS)
    (line,) = _report(tmp_path / "run")["bad_records"]["listed"]
    assert "a.jsonl" in line
    assert "U+D800" in line
    assert f"byte {offset}" in line


def test_evaluation_sets_are_accounted_for(tmp_path: Path) -> None:
    exam = _source(tmp_path, "exam", [TEXTS[3], "too short", "3"])
    build_corpus(_config(_source(tmp_path, "a", TEXTS), evaluation=(exam,)), tmp_path / "run")
    found = _report(tmp_path / "run")["evaluation"]["exam"]
    assert (found["items"], found["too_short"], found["bad"]) == (3, 2, 0)
    assert len(found["too_short_listed"]) == 2
    assert "| exam | 3 | 2 | 0 | 1 |" in (tmp_path / "run/DATACARD.md").read_text(encoding="utf-8")
    wrong = _source(tmp_path, "wrong", TEXTS, fields=("question",))
    with pytest.raises(UserError, match=r"'wrong' gives no item.*question"):
        build_corpus(_config(_source(tmp_path, "a", TEXTS), evaluation=(wrong,)), tmp_path / "other")
    assert not (tmp_path / "other/stages/1-collect").exists()


def test_a_decomposed_evaluation_item_is_found(tmp_path: Path) -> None:
    texts = [f"La soirée {text.replace('w', 'é')}" for text in TEXTS]
    exam = _source(tmp_path, "exam", [unicodedata.normalize("NFD", texts[3])])
    build_corpus(_config(_source(tmp_path, "a", texts), evaluation=(exam,)), tmp_path / "run")
    assert "| exam | 1 | 0 | 0 | 1 |" in (tmp_path / "run/DATACARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"late_recipe": LIGHT[:1]}, "recipe and late_recipe both have 'repair_unicode'"),
        ({"late_recipe": (Scored("copies", _lengths, minimum=0.0),)}, "one of the build's own"),
        ({"repeats": RepeatsConfig(exempt=("b",))}, "repeats.exempt names 'b'"),
        ({"mixture": MixtureConfig(stages=(StageConfig("x", 1.0, (("b", 1.0),)),))}, "stage 'x' names 'b'"),
        ({"mixture": MixtureConfig(stages=(StageConfig("a b", 1.0),))}, "letters, digits and '_'"),
        ({"mixture": MixtureConfig(stages=(StageConfig("x", 1.0, (("a", 0.0),)),))}, "every source weight 0"),
    ],
)
def test_what_a_config_says_against_itself_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _config(_source(tmp_path, "a", TEXTS), **changes)
    with pytest.raises(ValueError, match="both named"):
        _config(_source(tmp_path, "a", TEXTS), evaluation=(_source(tmp_path, "e", TEXTS),) * 2)


def test_a_missing_tokenizer_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer at"):
        build_corpus(_config(_source(tmp_path, "a", TEXTS), tokenizer_dir=str(tmp_path / "none")), tmp_path / "run")
    assert not (tmp_path / "run/stages").exists()


def test_other_input_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exam = _source(tmp_path, "exam", [TEXTS[3]])
    config = _config(_source(tmp_path, "a", TEXTS), evaluation=(exam,))
    monkeypatch.setattr("jaxlm.run.corpus.build.run_stages", lambda *_: False)  # stopped before the first stage
    build_corpus(config, tmp_path / "run")
    build_corpus(config, tmp_path / "run")
    _source(tmp_path, "exam", [TEXTS[3].replace("Story", "Stary")])  # the same size
    with pytest.raises(UserError, match="evaluation_hash"):
        build_corpus(config, tmp_path / "run")
    _source(tmp_path, "a", [*TEXTS[:-1], TEXTS[-1].replace("Story", "Stary")])
    with pytest.raises(UserError, match="files_changed"):
        build_corpus(config, tmp_path / "run")


def test_a_build_is_not_gone_on_with_over_another_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.linspace(-1, 1, 64, dtype=np.float32)
    save_quality(tmp_path / "quality", QualityModel(QualityConfig(num_buckets=64), weights, 0.0, {}))
    score = QualityScore(str(tmp_path / "quality"))
    config = _config(_source(tmp_path, "a", TEXTS), recipe=(*LIGHT, Scored("quality", score, minimum=0.5)))
    monkeypatch.setattr("jaxlm.run.corpus.build.run_stages", lambda *_: False)  # stopped before the first stage
    build_corpus(config, tmp_path / "run")
    build_corpus(config, tmp_path / "run")
    save_quality(tmp_path / "quality", QualityModel(QualityConfig(num_buckets=64), -weights, 0.0, {}), replace=True)
    with pytest.raises(UserError, match="scores_hash"):
        build_corpus(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "quality")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        build_corpus(config, tmp_path / "run")


def test_a_finished_build_needs_its_sources_no_more(tmp_path: Path) -> None:
    config = _config(_source(tmp_path, "a", TEXTS))
    final = build_corpus(config, tmp_path / "run")
    (tmp_path / "a.jsonl").unlink()
    assert build_corpus(config, tmp_path / "run") == final


def test_dry_run_says_what_is_done_and_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted.write_sources(tmp_path)
    path = str(planted.write_config(tmp_path))
    assert main([path, "--dry-run", "--run-dir", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert "source good: 6 files" in err
    assert json.loads(out.splitlines()[-1])["plan"] == err.splitlines()
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="no tokenizer at"):
        main([path, "--dry-run", "--tokenizer-dir", str(tmp_path), "--run-dir", str(tmp_path / "run")])


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("7320 requested and 3568 written"),  # NumPy
        RuntimeError("write() failed: No space left on device; writing x"),  # ArrayRecord
    ],
)
def test_a_full_disk_is_known_whoever_says_it(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(OSError, match=r"space|written") as caught, Workspace(tmp_path).writing("1-first", 0):
        raise error
    assert is_full_disk(caught.value)
    assert not list(tmp_path.rglob("*.partial"))


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="boom") as caught, Workspace(tmp_path).writing("1-first", 0):
        raise RuntimeError("boom")
    assert not is_full_disk(caught.value)


def test_what_a_task_wrote_stands_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.writing("1-first", 0) as directory:
        (directory / "file").write_text("first")
        with workspace.writing("1-first", 1) as other:
            (other / "file").write_text("other")
    with workspace.writing("1-first", 0) as directory:  # another machine was slower
        (directory / "file").write_text("second")
    assert (tmp_path / "stages/1-first/00000/file").read_text() == "first"
    assert not list(tmp_path.rglob("*.partial"))


def test_configs_as_plain_values() -> None:
    assert plain(DeduplicationConfig()) == dataclasses.asdict(DeduplicationConfig())
    assert plain((Scored("s", _lengths, minimum=1.0), Path("x"), {"a": {2, 1}})) == [
        {"name": "s", "score": f"{__name__}._lengths", "minimum": 1.0, "maximum": None},
        "x",
        {"a": [1, 2]},
    ]
    zeros, ones = plain(np.zeros(3)), plain(np.ones(3))
    assert zeros != ones
    assert plain(np.zeros(3)) == zeros
    assert "0x" not in json.dumps(plain([object(), functools.partial(len, "a"), "a".join]))


def test_bad_words_come_from_files(tmp_path: Path) -> None:
    planted.write_sources(tmp_path)
    config = run_config_file(planted.write_config(tmp_path), CorpusBuildConfig)
    words = tmp_path / "words.txt"
    words.write_text("# remark\nshare this page\n\n", encoding="utf-8")
    build_corpus(dataclasses.replace(config, bad_words=(str(words),)), tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert report["ledger"]["web"]["bad_words"]["reasons"] == {"bad words": 30}
    words.write_text("# only a remark\n", encoding="utf-8")
    for path, said in ((words, "holds no word"), (tmp_path / "none.txt", "has no file at")):
        with pytest.raises(UserError, match=said):
            build_corpus(dataclasses.replace(config, bad_words=(str(path),)), tmp_path / "other")
