"""tokenizer.json behind the protocol, and ours written as one."""

import json

import numpy as np
import pytest
import tokenizers

from jaxlm.core.errors import UserError
from jaxlm.io.hf.tokenizer_files import write_hf_tokenizer
from jaxlm.io.tokenizers import CharTokenizer, SentencePieceTokenizer, load_tokenizer, train_tokenizer
from jaxlm.io.tokenizers.hf import HFTokenizer, read_hf_tokenizer
from jaxlm.text.tokenizer import Tokenizer, TokenizerConfig
from tests.io.hf.directories import write_ascii_tokenizer

TEXTS = [
    "", "a", "  two  spaces", "\tTabs\n\n\n\nand lines\r\n", "床前明月光", "émoji 🙂🙂", "\x00\x01", "12345 67",
    "    def f(self):\n        return x\n" * 3, "trailing   ", " lead", "<bos> <pad> and <0xE4> text",
]  # fmt: skip


def opened(directory, vocab_size=131, config=None):
    return read_hf_tokenizer(directory, config or {}, vocab_size, lambda _: None)


@pytest.fixture
def ascii_tokenizer(tmp_path):
    (tmp_path / "t").mkdir()
    write_ascii_tokenizer(tmp_path / "t")
    return opened(tmp_path / "t")


def test_keeps_the_protocol(ascii_tokenizer, tmp_path):
    t: HFTokenizer = ascii_tokenizer
    protocol: Tokenizer = t
    assert isinstance(protocol, Tokenizer)
    assert (t.kind, t.vocab_size, t.bos_id, t.eos_id, t.closed, t.adds_bos) == ("hf", 131, 0, 1, False, False)
    text = "plain <s> text, [M] and </s>"
    ids = t.encode(text)
    assert t.decode(ids) == text
    assert not set(ids) & set(t.special_tokens.values())  # text cannot forge a special token
    assert t.encode("a", bos=True, eos=True) == [0, *t.encode("a"), 1]
    assert t.decode([0, *t.encode("a"), 5000, -1, *t.encode("b"), 1]) == "a\ufffd\ufffdb"
    assert [t.token_str(i) for i in (0, 3 + ord("a"), 999)] == ["<s>", "a", "\ufffd"]
    assert t.special_tokens["<mask>"] == 2
    for one, many in zip(map(t.encode, ["ab", "", text]), t.encode_batch(["ab", "", text]), strict=True):
        np.testing.assert_array_equal(one, many)
    t.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert (again.fingerprint, again.encode(text), again.special_tokens) == (t.fingerprint, ids, t.special_tokens)
    with pytest.raises(UserError, match="surrogate"):
        t.encode("\ud800")


def test_written_as_it_came(ascii_tokenizer, tmp_path):
    (tmp_path / "out").mkdir()
    assert write_hf_tokenizer(ascii_tokenizer, tmp_path / "out", add_bos=False, add_eos=False, say=print)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "t" / "tokenizer.json").read_bytes()


def test_roles_from_the_model(tmp_path):
    """Where tokenizer_config.json names no end of text, config.json does by number."""
    write_ascii_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert opened(tmp_path).eos_id is None
    assert opened(tmp_path, config={"eos_token_id": [1, 5], "bos_token_id": 0}).eos_id == 1


def test_tokens_of_other_modalities_are_left_out(tmp_path):
    write_ascii_tokenizer(tmp_path)
    described = json.loads((tmp_path / "tokenizer.json").read_text())
    described["added_tokens"].append(described["added_tokens"][0] | {"id": 131, "content": "<image>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    said = []
    assert read_hf_tokenizer(tmp_path, {}, 131, said.append).vocab_size == 131
    assert said == ["tokens beyond the model's vocabulary of 131 are left out: <image>"]


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {"type": "BPE"}}', '{"added_tokens": [1]}'])
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="cannot be read"):
        opened(tmp_path)


def test_word_pieces_are_closed(tmp_path):
    word = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    word.normalizer = tokenizers.normalizers.BertNormalizer()
    assert HFTokenizer(word.to_str().encode(), {}).closed


@pytest.mark.parametrize("kind", ["byte", "unigram", "bpe"])
def test_ours_written_as_theirs(kind, tmp_path, repo):
    """The same ids; for unigram at least pieces of the same score, for it may break ties otherwise."""
    trained_on = [path.read_text(encoding="utf-8") for path in sorted((repo / "docs").glob("*.md"))]
    ours = train_tokenizer(TokenizerConfig(kind=kind, vocab_size=768), trained_on)
    assert write_hf_tokenizer(ours, tmp_path, add_bos=True, add_eos=False, say=print)
    theirs = opened(tmp_path, ours.vocab_size)
    assert (theirs.vocab_size, theirs.bos_id, theirs.eos_id) == (ours.vocab_size, ours.bos_id, ours.eos_id)
    assert theirs.adds_bos
    assert not theirs.closed
    scores = ours.pieces()[1] if isinstance(ours, SentencePieceTokenizer) and kind == "unigram" else None
    for text in [*TEXTS, *(text[i : i + 300] for text in trained_on[:4] for i in range(0, 3000, 300))]:
        a, b = ours.encode(text), theirs.encode(text)
        assert theirs.decode(b) == text
        if scores is None:
            assert a == b
        else:
            assert sum(scores[i] for i in a) == pytest.approx(sum(scores[i] for i in b), abs=1e-3)
    assert theirs.special_tokens.items() >= ours.special_tokens.items()


def test_characters_have_no_form_there(tmp_path):
    said = []
    assert not write_hf_tokenizer(CharTokenizer("abc"), tmp_path, add_bos=False, add_eos=False, say=said.append)
    assert "kind 'char'" in said[0]
    assert not list(tmp_path.iterdir())
