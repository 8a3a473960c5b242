"""tokenizer.json behind the protocol, and ours written as one."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import normalizers, pre_tokenizers

from jaxlm.core.errors import UserError
from jaxlm.io.hf.tokenizer_files import write_hf_tokenizer
from jaxlm.io.tokenizers import SentencePieceTokenizer, load_tokenizer, train_tokenizer
from jaxlm.io.tokenizers.hf import HFTokenizer, read_hf_tokenizer
from jaxlm.io.tokenizers.hf_spelling import byte_alphabet
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
    assert (t.kind, t.vocab_size, t.bos_id, t.eos_id, t.adds_bos) == ("hf", 131, 0, 1, False)
    assert t.closed  # it has 128 of the 256 bytes
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
    roles = {"eos_token_id": [1, 5], "bos_token_id": 0}
    assert opened(tmp_path, config=roles).eos_id == 1
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": null}')  # Qwen: there is none, and that is said
    found = opened(tmp_path, config=roles)
    assert (found.bos_id, found.eos_id) == (None, 1)


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


@pytest.mark.parametrize(
    ("content", "match"),
    [("[]", "holds no JSON object"), ("3", "holds no JSON object"), ("{", "is no JSON"), ("[" * 100_000, "is no JSON")],
)
def test_damaged_settings_are_refused(tmp_path, content, match):
    write_ascii_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(UserError, match=f"tokenizer_config.json {match}"):
        opened(tmp_path)


def test_settings_of_other_types_name_no_roles(tmp_path):
    write_ascii_tokenizer(tmp_path)
    settings = {"bos_token": 5, "eos_token": {"content": 3}, "mask_token": ["[M]"], "pad_token": {}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = opened(tmp_path)
    assert (found.bos_id, found.eos_id, found.pad_id) == (None, None, 0)


def test_word_pieces_are_closed(tmp_path):
    word = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    word.normalizer = tokenizers.normalizers.BertNormalizer()
    assert HFTokenizer(word.to_str().encode(), {}).closed


FALLBACK = [f"<0x{byte:02X}>" for byte in range(256)]
LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
UNDERSCORE = normalizers.Replace(" ", "\u2581")


def made(model, pieces, normalizer=None, pre_tokenizer=None, **options):
    vocab = {piece: number for number, piece in enumerate(pieces)}
    if model is tokenizers.models.Unigram:
        built = model([(piece, -1.0) for piece in pieces], **options)
    else:
        built = model(vocab, **({"merges": []} if model is tokenizers.models.BPE else {}), **options)
    tokenizer = tokenizers.Tokenizer(built)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    return HFTokenizer(tokenizer.to_str().encode(), {})


BPE, UNIGRAM = tokenizers.models.BPE, tokenizers.models.Unigram


@pytest.mark.parametrize("without", range(0, 256, 17))
def test_a_byte_without_an_id_closes_a_tokenizer(without):
    for pieces, options in ((byte_alphabet(), {"pre_tokenizer": LEVEL}), (FALLBACK, {"byte_fallback": True})):
        assert not made(BPE, pieces, **options).closed
        assert made(BPE, pieces[:without] + pieces[without + 1 :], **options).closed
    assert made(BPE, FALLBACK).closed  # bytes that it does not fall back on


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "loses"),
    [
        (normalizers.NFC(), LEVEL, False),
        (normalizers.ByteLevel(), None, False),
        (None, pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "isolated"), LEVEL]), False),
        (None, pre_tokenizers.Sequence([pre_tokenizers.Digits(), LEVEL]), False),
        *(
            (lossy, LEVEL, True)
            for lossy in (
                normalizers.NFKC(),
                normalizers.NFKD(),
                normalizers.NFD(),
                normalizers.Nmt(),
                normalizers.Strip(),
                normalizers.StripAccents(),
                normalizers.Lowercase(),
                normalizers.BertNormalizer(),
                normalizers.Replace("``", '"'),
                normalizers.Replace(tokenizers.Regex(" +"), "\u2581"),
                normalizers.Sequence([normalizers.NFC(), normalizers.Sequence([normalizers.Strip()])]),
            )
        ),
        (None, pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), LEVEL]), True),
        (None, pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), LEVEL]), True),
    ],
)
def test_what_loses_text_closes_a_tokenizer(normalizer, pre_tokenizer, loses):
    assert made(BPE, byte_alphabet(), normalizer, pre_tokenizer).closed == loses


def test_byte_fallback_as_the_families_have_it():
    """Gemma and Llama 2 with their space signs; a model of whole words falls back on nothing."""
    pieces = [*FALLBACK, "\u2581", "a"]
    prefix = normalizers.Sequence([normalizers.Prepend("\u2581"), UNDERSCORE])
    for model in (BPE, UNIGRAM):
        for normalizer, cut in ((UNDERSCORE, None), (prefix, None), (None, pre_tokenizers.Metaspace())):
            assert not made(model, pieces, normalizer, cut, byte_fallback=True).closed
    assert made(tokenizers.models.WordLevel, byte_alphabet(), None, LEVEL).closed
    assert made(BPE, byte_alphabet(), None, LEVEL, end_of_word_suffix="</w>").closed


def test_symbols_that_swallow_spaces_close_a_tokenizer():
    tokenizer = tokenizers.Tokenizer(BPE({piece: number for number, piece in enumerate(byte_alphabet())}, []))
    tokenizer.pre_tokenizer = LEVEL
    tokenizer.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
    assert not HFTokenizer(tokenizer.to_str().encode(), {}).closed
    tokenizer.add_tokens([tokenizers.AddedToken("word", lstrip=True)])
    assert HFTokenizer(tokenizer.to_str().encode(), {}).closed


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


@pytest.mark.parametrize("kind", ["char", "word"])
def test_characters_and_words_have_no_form_there(kind, tmp_path):
    ours = train_tokenizer(TokenizerConfig(kind=kind), ["some words"])
    said = []
    assert not write_hf_tokenizer(ours, tmp_path, add_bos=False, add_eos=False, say=said.append)
    assert f"kind '{kind}'" in said[0]
    assert not list(tmp_path.iterdir())
