"""Laws of the word tokenizer: ids, round trip, what is outside the vocabulary."""

import gzip

import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers import load_tokenizer, train_tokenizer
from jaxlm.text.tokenizer import TokenizerConfig

CONFIG = TokenizerConfig(kind="word")


def test_words_come_back_and_others_are_unknown(tmp_path):
    text = "b a b\u00a0c b\n a <unk> "
    tokenizer = train_tokenizer(CONFIG, [text, "d"])
    names = [tokenizer.token_str(i) for i in range(tokenizer.vocab_size)]
    assert names == ["<unk>", "<s>", "</s>", "b", "a", "b\u00a0c", "d"]
    ids = tokenizer.encode(text, eos=True)
    assert ids == [3, 4, 5, 3, 4, 0, 2]
    assert tokenizer.decode(ids) == "b a b\u00a0c b a <unk>"
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode("a never") == [4, 0]


def test_no_words_are_refused():
    with pytest.raises(UserError, match="empty"):
        train_tokenizer(CONFIG, [" \n"])


@pytest.mark.slow
def test_wikitext_has_the_official_vocabulary(shared_data):
    with gzip.open(shared_data / "text" / "wikitext-2" / "train.recovered.txt.gz", "rt", encoding="utf-8") as file:
        lines = [line for line in file if line.strip()]
    tokenizer = train_tokenizer(CONFIG, lines)
    assert tokenizer.vocab_size == 33_277 + 2  # <unk> is one of its words, <s> and </s> are not
    assert sum(map(len, tokenizer.encode_batch(lines))) == 2_051_910
