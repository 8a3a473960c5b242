"""A tokenizer study through the real command, beside tokenizers of other makers."""

import json
import subprocess
import sys

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizer_references import as_reference, open_reference
from jaxlm.io.tokenizers import train_tokenizer
from jaxlm.run import tokenizer_study
from jaxlm.run.cli import run_main
from jaxlm.run.tokenizer_study import StudiedSource, TokenizerStudyConfig
from jaxlm.text.tokenizer import TokenizerConfig
from tests.run.commands import REPO, environment

CONFIG = '''
"""Tiny."""
from jaxlm.data.corpus import CorpusConfig
from jaxlm.run.tokenizer_study import StudiedSource, TokenizerStudyConfig


def config():
    def text(name):
        return CorpusConfig(source="text", paths=(f"FOLDER/{name}.txt",), document="paragraph", validation_fraction=0.3)

    return TokenizerStudyConfig(
        sources=(StudiedSource("english", "en", text("english")), StudiedSource("chinese", "zh", text("chinese"))),
        kinds=("bpe",),
        vocab_sizes=(360, 400, 30000),
        measured_bytes=2000,
    )
'''
ENGLISH = [
    f"The {a} {b} of the house met {i} guests." for i, a in enumerate(("old", "new")) for b in ("cat", "dog", "owl")
]
CHINESE = [
    "床前明月光，疑是地上霜。",
    "舉頭望明月，低頭思故鄉。",
    "春眠不覺曉，處處聞啼鳥。",
    "夜來風雨聲，花落知多少。",
]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(config file, run directory, what the command wrote last)."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for name, sentences in (("english", ENGLISH), ("chinese", CHINESE)):
        paragraphs = ["".join(np.random.default_rng(i).choice(sentences, 4)) for i in range(80)]
        (folder / f"{name}.txt").write_text("\n\n".join(paragraphs))
    config = folder / "tiny.py"
    config.write_text(CONFIG.replace("FOLDER", str(folder)))
    args = [sys.executable, "-m", "experiments.tokenizers", str(config), "--run-dir", str(folder / "run")]
    done = subprocess.run(args, cwd=REPO, env=environment(1), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stderr  # 30000 pieces are more than the text gives
    return config, folder / "run", json.loads(done.stdout.splitlines()[-1])


def test_larger_vocabularies_spell_in_fewer_tokens(study):
    _, run_dir, results = study
    assert results == json.loads((run_dir / "tokenizers.json").read_text())
    rows = {(row["tokenizer"], row["source"]): row for row in results["rows"]}
    assert len(rows) == 6
    for source, least in (("english", 1.0), ("chinese", 1.0)):
        found = [rows[name, source]["bytes_per_token"] for name in ("bytes", "bpe-360", "bpe-400")]
        assert found[0] == least
        assert found == sorted(found)
        assert rows["bpe-400", source]["unknown_share"] == 0
    assert rows["bytes", "chinese"]["fertility"] > 3  # of every character, and the signs between them
    assert rows["bytes", "chinese"]["byte_share"] == 1
    assert rows["bpe-400", "english"]["byte_share"] == 0
    assert min(row["mb_per_second"] for row in results["rows"]) > 0
    page = (run_dir / "report.html").read_text()
    assert "bytes a token by vocabulary size" in page


def test_other_makers_tokenizers_stand_beside_ours(study, tmp_path, capsys):
    config, run_dir, _ = study
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    theirs.train_from_iterator(ENGLISH, tokenizers.trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet))
    (tmp_path / "theirs").mkdir()
    theirs.save(str(tmp_path / "theirs" / "tokenizer.json"))
    model = run_dir / "tokenizers" / "bpe-360" / "tokenizer.model"
    names = [str(tmp_path / "theirs"), str(model), str(model.parent)]
    assert run_main(tokenizer_study.main, [str(config), "--run-dir", str(run_dir), "--references", *names]) == 0
    out, err = capsys.readouterr()
    assert "training bpe-360" not in err  # found again
    rows = [row for row in json.loads(out)["rows"] if row["source"] == "chinese"]
    theirs, piece, own = (row for row in rows if row["kind"] == "reference")
    assert (theirs["tokenizer"], theirs["fertility"]) == ("theirs", pytest.approx(rows[0]["fertility"]))
    assert theirs["byte_share"] == 1  # it saw no Chinese
    ours = next(row for row in rows if row["tokenizer"] == "bpe-360")
    for row in (piece, own):
        assert (row["num_tokens"], row["byte_tokens"]) == (ours["num_tokens"], ours["byte_tokens"])


def test_other_text_under_the_same_name_is_refused(study, capsys):
    config, run_dir, _ = study
    text = run_dir.parent / "english.txt"
    kept = text.read_text()
    text.write_text(kept.replace("house", "barn"))
    try:
        assert run_main(tokenizer_study.main, [str(config), "--run-dir", str(run_dir)]) == 2
    finally:
        text.write_text(kept)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "text_sha256=" in line
    assert "mend the input or pass another --run-dir" in line


def test_a_refused_start_leaves_the_directory_to_the_mended_command(study, tmp_path, capsys):
    argv = [str(study[0]), "--run-dir", str(tmp_path / "run"), "--sources.0.corpus.validation-fraction", "0"]
    assert run_main(tokenizer_study.main, argv) == 2
    assert "has no held-out text" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run" / "config.json").exists()


def test_unknown_tokens_are_counted(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "cat": 1}, unk_token="[UNK]"))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    theirs.save(str(tmp_path / "tokenizer.json"))
    found = open_reference(tmp_path / "tokenizer.json", name="words")
    (ids,) = found.encode_batch(["cat dog cat"])
    assert found.is_unknown_v[ids].tolist() == [False, True, False]


def test_lone_bytes_are_known_in_ours():
    reference = as_reference("bytes", train_tokenizer(TokenizerConfig(kind="byte"), ()))
    assert np.flatnonzero(reference.is_byte_v).tolist() == list(range(128, 256))
    assert not reference.is_unknown_v.any()


def test_what_is_no_tokenizer_is_named(tmp_path):
    (tmp_path / "odd.model").write_bytes(b"no model")
    (tmp_path / "odd.json").write_text("no json")
    for name, message in (
        ("odd.model", "no SentencePiece model"),
        ("odd.json", "no JSON"),
        ("none", "no tokenizer at"),
    ):
        with pytest.raises(UserError, match=message):
            open_reference(tmp_path / name)


def test_bad_configs_are_refused(study, capsys):
    one = StudiedSource("a")
    with pytest.raises(ValueError, match="name at least one"):
        TokenizerStudyConfig(sources=())
    with pytest.raises(ValueError, match="two sources of one name"):
        TokenizerStudyConfig(sources=(one, one))
    with pytest.raises(ValueError, match="vocab_sizes holds 100"):
        TokenizerStudyConfig(vocab_sizes=(100,))
    assert run_main(tokenizer_study.main, [str(study[0]), "--references", "/nowhere/tokenizer.json"]) == 2
    assert "no tokenizer at /nowhere/tokenizer.json" in capsys.readouterr().err
