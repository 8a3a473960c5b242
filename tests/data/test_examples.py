"""Labelled examples in rows: places of words, cutting, pairs, batches; and their files, with what is refused."""

import json
import re

import numpy as np
import pytest
import tokenizers

from jaxlm.core.errors import UserError
from jaxlm.data.examples import ExamplePlan, encode_rows, label_arrays
from jaxlm.io.labelled import read_examples
from jaxlm.io.tokenizers import ByteTokenizer, CharTokenizer
from jaxlm.io.tokenizers.hf import HFTokenizer
from jaxlm.text.tokenizer import Tokenizer

TOKENIZER = ByteTokenizer()
BOS, EOS = TOKENIZER.bos_id, TOKENIZER.eos_id


def rows_of(texts, *, seq_len=32, words=False, token_types=True, tokenizer: Tokenizer = TOKENIZER):
    return encode_rows(tokenizer, texts, seq_len=seq_len, words=words, token_types=token_types)


def test_a_pair_with_its_types():
    rows = rows_of([("ab", "c"), ("a", "")])
    assert rows.arrays["tokens"].tolist()[0] == [BOS, 97, 98, EOS, 99, EOS]
    assert rows.arrays["token_types"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0]]
    assert rows.arrays["segment_ids"].tolist() == [[1] * 6, [1] * 4 + [0] * 2]
    assert rows.num_cut == 0


@pytest.mark.parametrize(("sizes", "kept"), [((20, 3), (6, 3)), ((9, 20), (4, 5)), ((2, 30), (2, 7)), ((4, 5), (4, 5))])
def test_the_longer_text_of_a_pair_is_cut_first(sizes, kept):
    rows = rows_of([("a" * sizes[0], "b" * sizes[1])], seq_len=12)
    tokens = rows.arrays["tokens"][0].tolist()
    assert (tokens.count(97), tokens.count(98)) in (kept, kept[::-1] if sum(sizes) > 18 else kept)
    assert len(tokens) == 12
    assert rows.num_cut == (sum(sizes) > 9)


def test_tags_stand_at_the_first_token_of_their_word():
    rows = rows_of([("ab", "c", "defg"), ("x",)], words=True, seq_len=8, token_types=False)
    arrays = rows.arrays | label_arrays([[5, 6, 7], [4]], rows, words=True, dtype="int32")
    assert arrays["tokens"].tolist()[0] == [BOS, 97, 98, 32, 99, EOS]  # " defg" does not fit whole
    assert arrays["labels"].tolist()[0] == [0, 5, 0, 6, 0, 0]
    assert arrays["loss_mask"].tolist() == [[0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]]
    assert rows.num_cut == 1


def test_a_word_without_a_token_is_refused():
    """Its tag would have no place of its own. In a text nothing stands at a place, and such characters may be there."""
    word = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    word.normalizer, word.pre_tokenizer = (
        tokenizers.normalizers.BertNormalizer(),
        tokenizers.pre_tokenizers.Whitespace(),
    )
    bert = HFTokenizer(word.to_str().encode(), {})
    for words in (("a", "\u200b", "b"), ("a", "\ufeff")):
        with pytest.raises(UserError, match=rf"the word {re.escape(repr(words[1]))} .*: drop it"):
            rows_of([("b",), words], words=True, tokenizer=bert)
    assert rows_of([("a", "b")], words=True, tokenizer=bert).first_token == [[0, 1]]
    assert rows_of([("a\u200b",)], tokenizer=bert).arrays["tokens"].tolist() == [[1]]


def test_tokenizers_without_the_symbols():
    char = CharTokenizer("ab ")
    assert rows_of([("ab",)], tokenizer=char).arrays["tokens"].tolist() == [[1, 2]]
    with pytest.raises(UserError, match="no <eos> to set two texts apart"):
        rows_of([("a", "b")], tokenizer=char)
    with pytest.raises(UserError, match="an empty text"):
        rows_of([("",)], tokenizer=char)


def test_every_example_comes_once_an_epoch_and_padding_counts_nothing():
    arrays = {name: np.arange(1, 11)[:, None] for name in ("tokens", "segment_ids")}
    arrays |= {"labels": np.arange(10), "loss_mask": np.ones(10, np.float32)}
    plan = ExamplePlan(arrays, 4, seed=1)
    seen = np.concatenate([plan.batch(i)["labels"] for i in range(5)])
    assert all(sorted(seen[e * 10 : e * 10 + 10].tolist()) == list(range(10)) for e in range(2))
    assert np.array_equal(plan.batch(3)["labels"], ExamplePlan(arrays, 4, seed=1).batch(3)["labels"])
    once = ExamplePlan(arrays, 4, shuffle=False, num_epochs=1)
    assert once.num_batches == 3
    assert once.batch(2)["labels"][:2].tolist() == [8, 9]
    assert once.batch(2)["loss_mask"].tolist() == [1, 1, 0, 0]
    assert arrays["loss_mask"].all()


def test_jsonl_and_tsv_say_the_same(tmp_path):
    records = [{"a": "one", "b": "two", "label": "x"}, {"a": "three", "b": "four", "label": "y"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n\n")
    (tmp_path / "a.tsv").write_text("label\tb\ta\nx\ttwo\tone\r\ny\tfour\tthree\n")
    found = [read_examples(tmp_path / name, ("a", "b"), "label", words=False) for name in ("a.jsonl", "a.tsv")]
    assert [(e.texts, e.labels) for e in found[0]] == [(("one", "two"), ("x",)), (("three", "four"), ("y",))]
    assert [e[:2] for e in found[0]] == [e[:2] for e in found[1]]
    (tmp_path / "bom.tsv").write_text((tmp_path / "a.tsv").read_text(), encoding="utf-8-sig")
    assert [e[:2] for e in read_examples(tmp_path / "bom.tsv", ("a", "b"), "label", words=False)] == [
        e[:2] for e in found[0]
    ]
    (tmp_path / "w.jsonl").write_text('{"words": ["a", "b"], "tags": ["N", "V"]}')
    (tmp_path / "w.tsv").write_text("words\ttags\na b\tN V\n")
    for name in ("w.jsonl", "w.tsv"):
        (example,) = read_examples(tmp_path / name, ("words",), "tags", words=True)
        assert example[:2] == (("a", "b"), ("N", "V"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"texts": "b", "label": 2}',
            r"a\.jsonl line 2 has no 'text'; did you mean",
        ),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text"', r"a\.jsonl line 2"),
        ("a.jsonl", '{"text": 3, "label": 1}', r"line 1: 'text' is of type int, not text"),
        ("a.jsonl", '{"text": "a", "label": ["x"]}', r"line 1: 'label' is \['x'\]"),
        ("a.jsonl", "[1]", r"line 1 holds no object"),
        ("a.jsonl", "\n \n", r"a\.jsonl holds no examples"),
        ("a.tsv", "text\tlabel\n", r"a\.tsv holds no examples"),
        ("a.tsv", "text\tlabel\na\tb\nc\n", r"a\.tsv line 3 has 1 columns"),
        ("a.csv", "text,label\n", r"a\.csv is no labelled data"),
    ],
)
def test_bad_files_are_refused_with_their_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_examples(tmp_path / name, ("text",), "label", words=False)


def test_words_need_as_many_tags(tmp_path):
    (tmp_path / "w.jsonl").write_text('{"words": ["a", "b"], "tags": ["N"]}')
    with pytest.raises(UserError, match="line 1 has 2 words and 1 tags"):
        read_examples(tmp_path / "w.jsonl", ("words",), "tags", words=True)
    with pytest.raises(UserError, match="cannot be read"):
        read_examples(tmp_path / "none.jsonl", ("words",), "tags", words=True)
