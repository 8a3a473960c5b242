"""The token data set on disk: what is read is what was tokenised; built once; killed, damaged and full-disk builds."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io import token_dataset
from jaxlm.io.corpora import open_corpus
from jaxlm.io.token_dataset import build_token_dataset, open_token_dataset
from jaxlm.io.tokenizers import train_tokenizer
from jaxlm.text.tokenizer import TokenizerConfig

REPO = Path(__file__).parents[2]


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.txt").write_text(f"文 {number} " + "words and more words " * (20 * number % 70 + 1))
    return open_corpus(CorpusConfig(source="text", paths=(str(folder),), validation_fraction=0.2), data_dir=None)


@pytest.fixture
def tokenizer():
    return train_tokenizer(TokenizerConfig(kind="byte"), [])


def build(corpus, tokenizer, cache, *, add_bos=True, add_eos=True):
    return build_token_dataset(corpus, tokenizer, cache_dir=cache, add_bos=add_bos, add_eos=add_eos)


@pytest.mark.parametrize("resident", [True, False])
def test_every_document_is_read_back_exactly(corpus, tokenizer, tmp_path, monkeypatch, resident):
    if not resident:
        monkeypatch.setattr(token_dataset, "_RESIDENT_BYTES", 0)
    dataset = build(corpus, tokenizer, tmp_path / "cache")
    for name, documents in (("train", corpus.train()), ("validation", corpus.validation())):
        split = dataset.splits[name]
        texts = [document.text for document in documents]
        offsets = np.asarray(split.doc_offsets)
        assert split.num_documents == len(texts)
        assert split.num_bytes == sum(len(text.encode()) for text in texts)
        read = split.read(offsets[:-1], np.diff(offsets))
        assert [ids.tolist() for ids in read] == [tokenizer.encode(text, bos=True, eos=True) for text in texts]
        assert {ids.dtype for ids in read} == {np.dtype(np.int32)}
        stream = np.concatenate(read)
        starts = np.random.default_rng(0).integers(0, split.num_tokens - 100, 50)
        for start, piece in zip(starts, split.read(starts, np.full(50, 100)), strict=True):
            np.testing.assert_array_equal(piece, stream[start : start + 100])
        with pytest.raises(IndexError, match=name):
            split.read(np.array([split.num_tokens - 1]), np.array([2]))


def test_it_is_built_once_and_again_for_other_inputs(corpus, tokenizer, tmp_path):
    cache = tmp_path / "cache"
    first = build(corpus, tokenizer, cache)
    stamps = {path: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    assert build(corpus, tokenizer, cache).key == first.key
    assert {path: path.stat().st_mtime_ns for path in first.directory.iterdir()} == stamps
    assert build(corpus, tokenizer, cache, add_eos=False).directory != first.directory
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncate", "delete", "offsets"])
def test_damage_is_found_when_opening(corpus, tokenizer, tmp_path, damage):
    dataset = build(corpus, tokenizer, tmp_path / "cache")
    (shard,) = dataset.directory.glob("*-train.array_record*")
    offsets = dataset.directory / "train.doc_offsets.npy"
    if damage == "truncate":
        os.truncate(shard, shard.stat().st_size // 2)
    elif damage == "delete":
        shard.unlink()
    else:
        content = bytearray(offsets.read_bytes())
        content[-3] ^= 1
        offsets.write_bytes(content)
    with pytest.raises(UserError, match="delete it to rebuild it"):
        open_token_dataset(dataset.directory)


def test_a_flag_without_its_token_is_refused(corpus, tmp_path):
    texts = [document.text for document in (*corpus.train(), *corpus.validation())]
    tokenizer = train_tokenizer(TokenizerConfig(kind="char"), texts)
    with pytest.raises(UserError, match=r"no <bos>: set data\.add_bos=False"):
        build(corpus, tokenizer, tmp_path / "cache")


def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(tmp_path):
    """A real process, killed while it writes; the next build cleans up after it and is complete."""
    text = tmp_path / "big.txt"
    text.write_text("a line of text that goes on\n" * 300_000)
    code = f"""
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.corpora import open_corpus
from jaxlm.io.token_dataset import build_token_dataset
from jaxlm.io.tokenizers import train_tokenizer
from jaxlm.text.tokenizer import TokenizerConfig
config = CorpusConfig(source="text", paths=({str(text)!r},), document="line", split="tail")
dataset = build_token_dataset(open_corpus(config, data_dir=None), train_tokenizer(TokenizerConfig(kind="byte"), []),
                              cache_dir={str(tmp_path / "cache")!r}, add_bos=False, add_eos=True)
print(dataset.splits["train"].num_tokens)
"""
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=REPO)
    cache = tmp_path / "cache"
    end = time.monotonic() + 100
    while not list(cache.glob(".tokens-*/*")) and not list(cache.glob("tokens-*")):
        assert killed.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    # Of another key, too: what the killed one left is not another's to keep.
    code = code.replace("add_eos=True", "add_eos=False")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=100, check=True
    )
    assert int(done.stdout) == 270_000 * 27
    assert [path.name.startswith("tokens-") for path in cache.iterdir()] == [True]
