"""Laws of every tokenizer: exact round trips, no forged specials, files that detect damage."""

import gzip
import json
import sysconfig
import textwrap
from pathlib import Path

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers import load_tokenizer, train_tokenizer
from jaxlm.io.tokenizers.pieces import sample_chunks
from jaxlm.io.tokenizers.plain import CharTokenizer
from jaxlm.text.tokenizer import SPECIALS, Tokenizer, TokenizerConfig

PROSE = [*Path(textwrap.__file__).read_text().split("\n\n"), "床前明月光,疑是地上霜。\n举头望明月,低头思故乡。"]
EVERY_CHARACTER = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
ODD = [
    "", " ", "  two  spaces ", "\t\r\n\n\r", "\x00", "a\x00b\x00" * 5, "▁", "▁ ▁▁ x▁y ", "<bos>", "<|im_start|>system",
    "<unk><s></s>", "<0x41>", " ⁇ ", "\ufffd", "\ue000\uf8ff", "\u2585", "\ufeffbom", "é e\u0301 ﬁ ①",
    "😀👩‍👩‍👧🇨🇳", "\u2028\x85\x1c",
    "床前明月光,疑是地上霜。", "def f(x):\n\treturn {'a': x**2}  # 12345\n", "a" * 20_000, "字" * 9_000, " " * 20_000,
    "\n" * 9_000, EVERY_CHARACTER,
]  # fmt: skip


@pytest.fixture(scope="module", params=["unigram", "bpe", "byte"])
def tokenizer(request) -> Tokenizer:
    return train_tokenizer(TokenizerConfig(kind=request.param, vocab_size=420), PROSE)


def test_follows_the_protocol(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert not tokenizer.closed
    assert set(tokenizer.special_tokens) == set(SPECIALS) - {"<|reserved_0|>"} | {"<mask>"}
    assert tokenizer.token_str(tokenizer.special_tokens["<mask>"]) == "<mask>"
    ids = tokenizer.special_tokens
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (ids["<pad>"], ids["<bos>"], ids["<eos>"])
    assert tokenizer.encode("x", bos=True, eos=True) == [tokenizer.bos_id, *tokenizer.encode("x"), tokenizer.eos_id]


def test_round_trip_is_exact_and_gives_no_special(tokenizer):
    reserved = set(tokenizer.special_tokens.values())
    for text, ids in zip(ODD, tokenizer.encode_batch(ODD), strict=True):
        assert ids.dtype == np.int32
        assert tokenizer.decode(ids) == text
        assert reserved.isdisjoint(ids.tolist())
        assert ids.tolist() == tokenizer.encode(text)
        assert not len(ids) or (ids.min() >= 0 and ids.max() < tokenizer.vocab_size)


def test_a_batch_is_its_texts_one_by_one(tokenizer):
    long = "word and " * 1000  # cut into three
    for texts in (["", "good film", "bad film", long], [long, "", "", "x"], ["▁", "", "a"], ["", ""], ["a", "b"], []):
        assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == [tokenizer.encode(text) for text in texts]


def test_round_trip_over_the_tang_poems(tokenizer, shared_data):
    files = sorted((shared_data / "chinese" / "tang").glob("*.gz"))
    assert len(files) == 40
    texts = [gzip.decompress(path.read_bytes()).decode() for path in files]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokenizer.decode(ids) == text


def test_round_trip_over_code(tokenizer):
    texts = [path.read_text() for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-d]*.py"))]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(texts)] == texts


def test_lone_surrogates_are_refused(tokenizer):
    for call in (tokenizer.encode, lambda text: tokenizer.encode_batch(["fine", text])):
        with pytest.raises(UserError, match=r"U\+DC80 at character 3"):
            call("bad\udc80")


def test_any_ids_decode(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(20):
        tokenizer.decode(rng.integers(-5, tokenizer.vocab_size + 50, 200)).encode()
    assert tokenizer.decode([-1, 10**9]) == "\ufffd\ufffd"
    assert tokenizer.decode(list(tokenizer.special_tokens.values())) == ""
    assert all(tokenizer.token_str(i) for i in range(-2, tokenizer.vocab_size + 2))
    assert tokenizer.token_str(tokenizer.bos_id) == "<bos>"


def test_training_is_deterministic_and_the_file_round_trips(tokenizer, tmp_path):
    again = train_tokenizer(TokenizerConfig(kind=tokenizer.kind, vocab_size=420), iter(PROSE))
    assert again.fingerprint == tokenizer.fingerprint
    tokenizer.save(tmp_path / "new" / "place")
    loaded = load_tokenizer(tmp_path / "new" / "place")
    assert (loaded.kind, loaded.fingerprint) == (tokenizer.kind, tokenizer.fingerprint)
    assert loaded.encode(PROSE[3]) == tokenizer.encode(PROSE[3])


def test_digits_stand_alone_and_indentation_is_one_token():
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=420), PROSE)
    assert [tokenizer.token_str(i) for i in tokenizer.encode("1234")] == list("1234")
    assert len(tokenizer.encode("\n        ")) <= 3


def test_every_flipped_byte_is_noticed(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    rng = np.random.default_rng(0)
    for path in tmp_path.iterdir():
        whole = path.read_bytes()
        for content in (b"", whole[: len(whole) // 2], *(_flipped(whole, i) for i in rng.integers(0, len(whole), 20))):
            path.write_bytes(content)
            with pytest.raises(UserError, match=r"damaged|upgrade"):
                load_tokenizer(tmp_path)
        path.write_bytes(whole)
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint


def _flipped(content: bytes, place: int) -> bytes:
    # White space of the JSON carries no meaning and may change: flip a byte that does.
    while content[place : place + 1].isspace():
        place += 1
    return content[:place] + bytes((content[place] ^ 1,)) + content[place + 1 :]


def test_missing_and_newer_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(UserError, match="upgrade jaxlm"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("texts", [[], [""], ["\n" * 0]])
def test_no_text_is_refused(texts):
    for kind in ("unigram", "bpe", "char"):
        with pytest.raises(UserError, match="empty"):
            train_tokenizer(TokenizerConfig(kind=kind), texts)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_too_little_text_names_the_largest_vocabulary(kind):
    with pytest.raises(UserError, match=r"vocab_size=4096.*at most \d+"):
        train_tokenizer(TokenizerConfig(kind=kind), PROSE[:4])


def test_too_many_characters_names_the_mend():
    with pytest.raises(UserError, match=r"vocab_size=300 has no room"):
        train_tokenizer(TokenizerConfig(vocab_size=300), ["".join(map(chr, range(0x4E00, 0x5000)))])


def test_char_tokenizer_is_nanogpts(shared_data):
    text = (shared_data / "text" / "tinyshakespeare" / "input.txt").read_text()
    tokenizer = train_tokenizer(TokenizerConfig(kind="char"), [text[:1_003_854]])
    assert (tokenizer.vocab_size, tokenizer.closed, tokenizer.bos_id, tokenizer.pad_id) == (65, True, None, 0)
    assert isinstance(tokenizer, CharTokenizer)
    assert tokenizer.characters == "".join(sorted(set(text)))
    assert tokenizer.decode(tokenizer.encode_batch([text])[0]) == text


def test_char_tokenizer_refuses_what_it_cannot_spell(tmp_path):
    tokenizer = train_tokenizer(TokenizerConfig(kind="char"), ["abc", "d\x00😀"])
    assert tokenizer.encode("😀\x00a") == [5, 0, 1]
    for unknown in ("z", "\U0010ffff"):
        with pytest.raises(UserError, match="at position 2"):
            tokenizer.encode(f"ab{unknown}")
    with pytest.raises(UserError, match="surrogate"):
        tokenizer.encode("\ud800")
    with pytest.raises(UserError, match="add_bos"):
        tokenizer.encode("a", bos=True)
    assert tokenizer.decode([1, 99, -1]) == "a\ufffd\ufffd"
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint


def test_sample_is_bounded_and_does_not_depend_on_order():
    texts = [f"document number {i}" for i in range(2000)]
    sample = sample_chunks(texts, 5_000)
    assert 1_000 < sum(map(len, sample)) <= 5_000
    assert sorted(sample_chunks(reversed(texts), 5_000)) == sorted(sample)
    assert sample_chunks(texts, 10**6) == texts
