"""Laws of the word tokenizer: order of ids, round trip, what is outside the vocabulary."""

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.tokenizers import load_tokenizer, train_tokenizer
from jaxlm.text.tokenizer import TokenizerConfig

CONFIG = TokenizerConfig(kind="word")


def test_the_most_frequent_words_come_first_and_come_back(tmp_path):
    text = "b a b\u00a0c b\n a <unk> "
    tokenizer = train_tokenizer(CONFIG, [text])
    assert [tokenizer.token_str(i) for i in range(tokenizer.vocab_size)] == ["<eos>", "a", "b", "<unk>", "b\u00a0c"]
    ids = tokenizer.encode(text, eos=True)
    assert ids == [2, 1, 4, 2, 1, 3, 0]
    assert tokenizer.decode(ids) == "b a b\u00a0c b a <unk>"
    np.testing.assert_array_equal(tokenizer.encode_batch([text])[0], ids[:-1])
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode("a never") == [1, 3]


def test_a_word_outside_is_refused_where_there_is_no_unk():
    tokenizer = train_tokenizer(CONFIG, ["a b"])
    with pytest.raises(UserError, match="word 'c' is not among the 2"):
        tokenizer.encode("a c")
    with pytest.raises(UserError, match="no <bos>"):
        tokenizer.encode("a", bos=True)
    with pytest.raises(UserError, match="empty"):
        train_tokenizer(CONFIG, [" \n"])


def test_wikitext_has_the_official_vocabulary(shared_data):
    import gzip

    with gzip.open(shared_data / "text" / "wikitext-2" / "train.recovered.txt.gz", "rt", encoding="utf-8") as file:
        lines = [line for line in file if line.strip()]
    tokenizer = train_tokenizer(CONFIG, lines)
    assert tokenizer.vocab_size == 33_278
    assert sum(map(len, tokenizer.encode_batch(lines))) == 2_051_910
