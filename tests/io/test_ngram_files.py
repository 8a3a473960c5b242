"""Model directories, word vocabularies, texts in pieces, and counting on disk."""

import gzip
import json
import os
import resource
import shutil
from typing import Any

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.ngram.files import load_ngram, save_ngram
from jaxlm.io.ngram.sentences import learn_tokens, read_pieces, sentence_tokens
from jaxlm.io.ngram.spill import FAN_IN, Spill, merge_runs
from jaxlm.io.ngram.word_vocab import UNK, WordVocab, load_word_vocab
from jaxlm.io.tokenizers import load_tokenizer
from jaxlm.models.ngram_counts import count_ngrams, join_sequences
from jaxlm.models.ngram_fit import fit_ngram
from jaxlm.text.words import split_words
from tests.run.commands import small_disk


def random_sequences(seed=0, count=300, vocab_size=50):
    rng = np.random.default_rng(seed)
    return [np.minimum(rng.zipf(1.3, rng.integers(0, 30)) + 2, vocab_size - 1) for _ in range(count)]


def same_models(a, b):
    np.testing.assert_array_equal(a.unigrams, b.unigrams)
    assert len(a.tables) == len(b.tables)
    for x, y in zip(a.tables, b.tables, strict=True):
        np.testing.assert_array_equal(x[:, 0], y[:, 0])
        used = x[:, 0] != np.uint64(2**64 - 1)
        np.testing.assert_array_equal(x[used], y[used])
    assert (a.config, a.bos_id, a.eos_id, a.unk_id, a.facts) == (b.config, b.bos_id, b.eos_id, b.unk_id, b.facts)


def test_a_saved_model_is_the_model(tmp_path):
    model = fit_ngram(random_sequences(), 50, 4, bos_id=1, eos_id=2, prune=(0, 0, 1))
    save_ngram(tmp_path / "m", model)
    again = load_ngram(tmp_path / "m")
    same_models(model, again)
    assert not again.tables[0].flags.writeable
    assert isinstance(again.tables[0].base, np.memmap)


def test_damaged_models_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"model\.json is missing"):
        load_ngram(tmp_path)
    save_ngram(tmp_path, fit_ngram(random_sequences(), 50, 3, bos_id=1))
    table = tmp_path / "table_3.npy"
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged"):
        load_ngram(tmp_path)
    table.unlink()
    with pytest.raises(UserError, match=r"table_3\.npy is missing"):
        load_ngram(tmp_path)
    table.write_bytes(whole)
    record = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(record | {"format_version": 2}))
    with pytest.raises(UserError, match="format 2"):
        load_ngram(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(record | {"num_rows": [1, 2]}))
    with pytest.raises(UserError, match="other lengths"):
        load_ngram(tmp_path)


def test_objects_are_never_read(tmp_path):
    save_ngram(tmp_path, fit_ngram(random_sequences(), 50, 2, bos_id=1))
    with open(tmp_path / "table_2.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        file.write(b"cos\nsystem\n.")
    with pytest.raises(UserError, match="damaged"):
        load_ngram(tmp_path)


@pytest.mark.parametrize("memory_bytes", [1 << 18, 1 << 30])
@pytest.mark.parametrize("key_bits", [64, 8])
@pytest.mark.parametrize("smoothing", ["kneser-ney", "backoff"])
def test_counting_on_disk_is_counting_in_memory(tmp_path, memory_bytes, key_bits, smoothing):
    sequences = random_sequences()
    options = {"bos_id": 1, "eos_id": 2, "smoothing": smoothing, "key_bits": key_bits}
    expected = fit_ngram(sequences, 50, 4, **options)
    with Spill(tmp_path, memory_bytes) as spill:
        found = fit_ngram(
            sequences, 50, 4, sorter=spill.sort, allocate=spill.allocate, block_size=spill.block_size, **options
        )
        assert spill.num_files
        same_models(expected, found)
    assert not list(tmp_path.iterdir())


def test_counts_do_not_depend_on_the_blocks(tmp_path):
    tokens = join_sequences(random_sequences(), vocab_size=50, bos_id=1, eos_id=None)
    options: dict[str, Any] = {"order": 3, "vocab_size": 50, "bos_id": 1}
    expected = count_ngrams(tokens, **options)
    for block_size in (200, 1001):
        with Spill(tmp_path, 1) as spill:
            spill.block_size = block_size
            found = count_ngrams(tokens, sorter=spill.sort, allocate=spill.allocate, block_size=block_size, **options)
            for a, b in zip(expected, found, strict=True):
                for x, y in zip(a, b, strict=True):
                    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("columns", [1, 2])
def test_many_runs_are_merged_in_rounds_with_few_descriptors(tmp_path, rng, columns):
    rows = rng.integers(0, 1 << 40, (200_000, columns)).astype(np.uint64)
    blocks = (tuple(np.ascontiguousarray(part.T)) for part in np.array_split(rows, 400))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + FAN_IN + 20, limits[1]))
    try:
        with Spill(tmp_path, 1) as spill:
            found = np.concatenate([np.stack(keys, axis=1) for keys in spill.sort(blocks)])
            assert spill.num_files > 200 > FAN_IN
            assert not any(spill.path.iterdir())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    np.testing.assert_array_equal(found, rows[np.lexsort(rows.T[::-1])])


def test_a_disk_too_small_for_counting_is_one_line(tmp_path, monkeypatch):
    message = rf"no space left in {tmp_path} for [\d,]+ more bytes of counting on disk: free space"
    with Spill(tmp_path, 1) as spill, pytest.raises(UserError, match=message):
        spill.allocate(shutil.disk_usage(tmp_path).total, np.int64)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with Spill(tmp_path, 1) as spill:
        array = spill.allocate(1000, np.int64)
        array[:] = 7
        assert array.sum() == 7000


def test_a_disk_that_fills_while_counting_is_one_line(tmp_path):
    """A real file system of 1 MiB: no SIGBUS at any of its last pages."""
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command here")
    message = r"no space left in .*disk for 180,000 more bytes"
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        with Spill(disk, 1) as spill:
            held = [spill.allocate(22_500, np.int64) for _ in range(5)]
            for i in range(5):
                held[i][:] = 1
            with pytest.raises(UserError, match=message):
                spill.allocate(22_500, np.int64)
            del held  # the room goes back with the arrays
            spill.allocate(22_500, np.int64)
            with pytest.raises(UserError, match=message):
                spill.store([np.ones(22_500)] * 9, np.int64)
        assert not list(disk.iterdir())


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("block_size", [1, 10, 1000])
def test_merged_runs_are_sorted_and_whole(rng, columns, block_size):
    runs = []
    for size in (0, 1, 7, 300, 40):
        rows = rng.integers(0, 30, (size, columns)).astype(np.uint64)
        runs.append(rows[np.lexsort(rows.T[::-1])])
    blocks = list(merge_runs(runs, block_size))
    merged = np.concatenate([np.stack(block, axis=1) for block in blocks])
    every = np.concatenate(runs)
    np.testing.assert_array_equal(merged, every[np.lexsort(every.T[::-1])])


def test_vocabularies_learn_in_the_order_of_the_text_whatever_the_pieces(tmp_path):
    text = tmp_path / "text"
    text.write_text("b a b\n\n  \nc a <unk> d\n天下 a\u00a0b")
    vocab = WordVocab(unk_word=b"RARE")
    tokens = np.concatenate(list(learn_tokens(text, vocab)))
    expected = [b"<unk>", b"<s>", b"</s>", b"b", b"a", b"c", b"RARE", b"d", "天下".encode(), "a\u00a0b".encode()]
    assert vocab.words == expected
    assert tokens.tolist() == [1, 3, 4, 3, 2, 1, 5, 4, 6, 7, 2, 1, 8, 9, 2]
    in_pieces = WordVocab(unk_word=b"RARE")
    parts = []
    for piece in read_pieces(text, size=5):
        words = split_words(piece.data)
        parts.append(sentence_tokens(words, in_pieces.ids(words, learn_from=piece.data)))
    assert in_pieces.words == expected
    np.testing.assert_array_equal(np.concatenate(parts), tokens)
    assert vocab.encode("d <unk> RARE e") == [7, 6, 6, UNK]
    assert vocab.decode([1, 3, 7, 2]) == "b d"
    vocab.save(tmp_path / "v")
    again = load_word_vocab(tmp_path / "v")
    assert (again.words, again.unk_word, again.fingerprint) == (expected, b"RARE", vocab.fingerprint)
    opened = load_tokenizer(tmp_path / "v")
    assert (opened.kind, opened.closed, opened.bos_id, opened.eos_id) == ("word", True, 1, 2)


def test_a_gz_text_is_unpacked_and_a_broken_one_refused(tmp_path):
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(b"one two\nthree"))
    assert b"".join(piece.data for piece in read_pieces(path)) == b"one two\nthree"
    path.write_bytes(gzip.compress(b"one two\nthree")[:-9])
    with pytest.raises(UserError, match="cannot read the text"):
        list(read_pieces(path))
    path.write_bytes(b"plain")
    with pytest.raises(UserError, match="cannot read the text"):
        list(read_pieces(path))
    content = bytearray(gzip.compress(b"one two\nthree"))
    content[10] = 7  # a kind of block that there is none of: an error of zlib's own
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot read the text"):
        list(read_pieces(path))


def test_texts_that_are_none_are_named_by_line(tmp_path):
    text = tmp_path / "text"
    text.write_bytes(b"fine\nalso </s> fine\n")
    with pytest.raises(UserError, match="line 2 holds </s>"):
        list(learn_tokens(text, WordVocab()))
    text.write_bytes(b"fine\n\nnot \xff\n")
    with pytest.raises(UserError, match="line 3 is not UTF-8"):
        list(learn_tokens(text, WordVocab()))


def test_vocabularies_that_are_none():
    for words in ([b"a"], [b"<unk>", b"<s>", b"</s>", b"a", b"a"], [b"<unk>", b"<s>", b"</s>", b"a b"]):
        with pytest.raises(UserError, match="vocabulary"):
            WordVocab(words)
