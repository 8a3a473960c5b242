"""ARPA files: the round trip, a published file's published scores, and refusals that name the line."""

import errno
import math
import os
from typing import Any

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.ngram.arpa import read_arpa, write_arpa
from jaxlm.io.ngram.sentences import sentence_tokens
from jaxlm.io.ngram.word_vocab import BOS, EOS, UNK, WordVocab
from jaxlm.models.ngram import NgramConfig
from jaxlm.models.ngram_fit import fit_tokens
from jaxlm.text.words import split_words

TEXT = "the cat sat\nthe cat ran \na\u00a0b the\u2003cat Straße 天下\nthe dog sat on the cat\n"

SMALL = """
\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-99\t<s>\t-0.5
-1.5\t<unk>
-0.6\t</s>
-0.7\ta\t-0.25
-0.8\tb

\\2-grams:
-0.2\t<s> a
-0.3\ta b

\\end\\
"""


def fit(text, **options):
    vocab = WordVocab()
    data = text.encode()
    words = split_words(data)
    tokens = sentence_tokens(words, vocab.ids(words, learn_from=data))
    chosen: dict[str, Any] = {"order": 3} | options
    config = NgramConfig(**chosen)
    return fit_tokens(tokens, config, vocab_size=vocab.vocab_size, bos_id=BOS, eos_id=EOS, unk_id=UNK), vocab


def score(model, vocab, text, start=True):
    """Base-10 log-probability of each word of a text that is one sequence, with or without the start before it."""
    ids = vocab.ids(split_words(text.encode("utf-8").replace(b"<s>", b"").replace(b"</s>", b"")))
    tokens = np.array([BOS] * start + ids.tolist() + [EOS] * text.endswith("</s>"))
    return (model.score(tokens)[int(start) :] / math.log(10)).tolist()


@pytest.mark.parametrize("options", [{}, {"order": 1}, {"prune": (0, 0, 1)}, {"smoothing": "ml"}])
def test_round_trip(tmp_path, options):
    model, vocab = fit(TEXT, **options)
    write_arpa(tmp_path / "a.arpa", model, vocab.words)
    again, words = read_arpa(tmp_path / "a.arpa")
    assert words.words == vocab.words
    assert again.order == model.order
    for n in range(1, model.order + 1):
        (ids, values), (ids_again, values_again) = model.grams(n), again.grams(n)
        np.testing.assert_array_equal(ids, ids_again)
        np.testing.assert_allclose(values_again, values, rtol=2e-7, atol=1e-12)
    assert again.config.smoothing == "imported"
    write_arpa(tmp_path / "b.arpa", again, words.words)
    assert (tmp_path / "b.arpa").read_bytes() == (tmp_path / "a.arpa").read_bytes()
    (tmp_path / "b.arpa").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["a.arpa"]
    text = (tmp_path / "a.arpa").read_text()
    assert "a\u00a0b" in text  # one word: only ASCII white space cuts
    assert text.startswith("\\data\\\nngram 1=13\n")


def test_minus_99_is_no_probability_at_all(tmp_path):
    """SRILM's log 0: of a word, of <s> (whatever its line says: KenLM writes 0) and of a back-off weight."""
    text = SMALL.replace("-99\t<s>", "0\t<s>").replace("-0.8\tb", "-99\tb").replace("a\t-0.25", "a\t-99")
    model, vocab = read(tmp_path, text)
    assert model.unigrams[BOS, 0] == -np.inf
    assert score(model, vocab, "b a a </s>") == pytest.approx([-np.inf, -0.7, -np.inf, -np.inf])
    for history in ([BOS], [BOS, 3], []):
        probs = np.exp(model.log_distribution(history))
        assert probs[BOS] == 0
        assert not np.isnan(probs).any()


def test_unk_in_capitals_is_unk_in_every_order(tmp_path):
    text = SMALL.replace("-1.5\t<unk>", "-1.5\t<UNK>\t-0.1").replace("-0.2\t<s> a", "-0.2\t<UNK> a")
    model, vocab = read(tmp_path, text)
    assert vocab.words[UNK] == b"<unk>"
    np.testing.assert_allclose(score(model, vocab, "nix a", start=False), [-1.5, -0.2], rtol=1e-6)


def test_smoothings_that_are_no_backoff_model_are_refused(tmp_path):
    for smoothing in ("add-k", "backoff"):
        model, vocab = fit(TEXT, smoothing=smoothing)
        with pytest.raises(UserError, match="no backoff model"):
            write_arpa(tmp_path / "a.arpa", model, vocab.words)
    assert not list(tmp_path.iterdir())


def read(tmp_path, text):
    path = tmp_path / "a.arpa"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_arpa(path)


def test_a_small_file_by_hand(tmp_path):
    model, vocab = read(tmp_path, SMALL)
    np.testing.assert_allclose(score(model, vocab, "a b b nix </s>"), [-0.2, -0.3, -0.8, -1.5, -0.6], rtol=1e-6)
    np.testing.assert_allclose(score(model, vocab, "b </s>"), [-1.3, -0.6], rtol=1e-6)
    np.testing.assert_allclose(score(model, vocab, "a a </s>"), [-0.2, -0.95, -0.85], rtol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-1.5\t<unk>", "-1.5\tc", "line 11: there is no <unk> among the 1-grams"),
        ("-0.6\t</s>", "-0.6\tc", "there is no </s>"),
        ("-0.8\tb\n", "-0.8\n", "line 11: a 1-gram is a log-probability, 1 words"),
        ("-0.8\tb\n", "-0.8\tb\t-1\t2\n", "line 11: .*not 4 fields"),
        ("-0.8\tb\n", "x\tb\n", "line 11: .*no number"),
        ("-0.8\tb\n", "nan\tb\n", "line 11: log-probability nan"),
        ("-0.8\tb\n", "0.8\tb\n", "line 11: log-probability 0.8 is above 0"),
        ("-0.8\tb\n", "-0.8\tb\tinf\n", "line 11: backoff inf"),
        ("-0.8\tb\n", "-0.8\tb\t1e39\n", r"line 11: backoff 1e\+39"),
        ("-0.8\tb\n", "-0_8\tb\n", "line 11: .*no number"),
        ("-0.8\tb\n", "-0.8\tb\t-0_1\n", "line 11: .*no number"),
        ("-0.8\tb\n", "-0.8\v\tb\n", "line 11: .*no number"),
        ("-0.8\tb\n", "-0.8\tb\vc\n", r"line 11: the word 'b\\x0bc' holds white space or a zero byte"),
        ("-0.8\tb\n", "-0.8\tb\fc\n", "line 11: the word .* holds white space or a zero byte"),
        ("-0.8\tb\n", "-0.8\tb\rc\n", "line 11: the word .* holds white space or a zero byte"),
        ("-0.8\tb\n", "-0.8\tb\0c\n", "line 11: the word .* holds white space or a zero byte"),
        ("-0.8\tb\n", "-0.8\ta\n", "line 11: the word 'a' stands here a second time"),
        ("-0.8\tb\n", "", r"line 12: section 1-grams ends after 4 of the 5 lines"),
        ("ngram 1=5", "ngram 1=4", "line 11: .*2-grams: should stand here, not '-0.8"),
        ("-0.3\ta b", "-0.3\ta c", "line 15: 'c' is not among the 1-grams"),
        ("-0.3\ta b", "-0.3\t<s> a", "line 15: this 2-gram stands here a second time"),
        ("-0.3\ta b", "-0.3\ta b\t-1", "line 15: a 2-gram, the longest here, has no backoff"),
        ("-0.3\ta b", "-0.3\ta\u00a0b", "line 15: a 2-gram is a log-probability, 2 words"),
        ("\\end\\\n", "", "should stand here, not the end of the file"),
        ("\\2-grams:", "\\3-grams:", "line 13: .*2-grams: should stand here"),
        ("ngram 2=2", "ngram 3=2", "line 4: 'ngram 2=COUNT' should stand here"),
        ("ngram 2=2", "ngram 2=1000000000000", "line 4: a file of .* bytes does not hold so many n-grams"),
        ("ngram 1=5", "ngram 1=" + "9" * 5000, "line 3: a file of .* does not hold so many"),
        ("\\data\\\n", "", r"line 2: \\data\\ should stand here, not 'ngram 1=5'"),
    ],
)
def test_refusals_name_the_line(tmp_path, old, new, message):
    assert old in SMALL
    with pytest.raises(UserError, match=message):
        read(tmp_path, SMALL.replace(old, new, 1))


def test_what_is_no_arpa_file(tmp_path):
    for text in ("", "hello\n", b"\xff\xfe\x00\n"):
        with pytest.raises(UserError, match="should stand here"):
            read(tmp_path, text)
    with pytest.raises(UserError, match="cannot read"):
        read_arpa(tmp_path / "nothing.arpa")
    many = "\n".join(f"ngram {n}=1" for n in range(1, 300))
    with pytest.raises(UserError, match="line 252: n-grams of an order above 250"):
        read(tmp_path, f"\\data\\\n{many}\n")


def test_places_where_no_file_can_be_written(tmp_path):
    model, vocab = fit(TEXT)
    (tmp_path / "file").write_text("mine")
    for path, message in (
        ("file/x", "file is no directory"),
        ("none/x", "is no directory"),
        (".", "it is a directory"),
    ):
        with pytest.raises(UserError, match=message):
            write_arpa(tmp_path / path, model, vocab.words)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_is_followed_and_a_pipe_left_alone(tmp_path):
    model, vocab = fit(TEXT)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "a.arpa")
    write_arpa(tmp_path / "link", model, vocab.words)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "a.arpa").read_bytes().startswith(b"\\data\\")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="it is a device or a pipe"):
        write_arpa(tmp_path / "pipe", model, vocab.words)
    assert (tmp_path / "pipe").is_fifo()


# The scores that KenLM documents for its test model (base 10), by history and word.
IN_ORDER = {
    "<s> looking on a little the biarritz not_found more . </s>": [
        -0.484652, -0.348837, -0.0155266, -0.00306122, -4.04005, -1.9889, -2.29666, -21.20632, -0.51363, -0.0191651,
    ],
    "<s> looking on a little more loin": [
        -0.484652, -0.348837, -0.0155266, -0.00306122, -0.00181395, -0.0432557
    ],
    "<s> ,": [-1.383514 - 0.4149733],
    "<s> this_is_not_found": [-1.995635 - 0.4149733],
    "also would consider higher looking": [-1.687872, -2, -3, -4, -5],
    "also would consider not_found": [-1.687872, -2, -3, -1.995635 - 7.0 - 0.30103],
    "higher looking not_found": [-1.509559, -1.285941 - 0.30103, -1.995635 - 0.4771212],
    "higher looking consider": [-1.509559, -1.285941 - 0.30103, -1.687872 - 0.4771212],
    "would consider higher looking": [-1.687872, -1.687872 - 0.30103, -1.509559 - 0.30103, -1.285941 - 0.30103],
    "not_found not_found2 not_found3": [-1.995635, -15.0, -15.0 - 2.0],
    "not_found however not_found3": [-1.995635, -4, -6],
    "baz": [-6.535897],
    "foo bar bar": [-3.141592, -6.0, -2.718281 + 3.0],
    "to look a": [-1.687872, -0.2922095, -7],
    "looking on": [-1.285941, -0.4638903],
    "a little": [-1.285941, -0.09132547],
    "on a little": [-1.509559, -0.1649931, -0.0283603],
}  # fmt: skip


def test_the_scores_that_kenlm_documents(shared_data):
    model, vocab = read_arpa(shared_data / "reference" / "kenlm" / "test.arpa")
    assert (model.vocab_size, model.order) == (37, 5)
    for text, expected in IN_ORDER.items():
        found = score(model, vocab, text, start=text.startswith("<s>"))
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=text)


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    model, vocab = fit(TEXT)
    with pytest.raises(UserError, match=r"cannot write .*a\.arpa: No space left on device: free space"):
        write_arpa(tmp_path / "a.arpa", model, vocab.words)
    assert not list(tmp_path.iterdir())


def test_missing_first_parts_change_no_score(shared_data, tmp_path):
    """A 3-gram without its first two words as a 2-gram: they are added with the score that they have anyway."""
    text = SMALL.replace("ngram 2=2\n", "ngram 2=2\nngram 3=1\n").replace(
        "-0.3\ta b\n", "-0.3\ta b\n\n\\3-grams:\n-0.1\tb a b\n"
    )
    model, vocab = read(tmp_path, text)
    assert model.num_rows_used(2) == 3
    np.testing.assert_allclose(score(model, vocab, "b a b </s>"), [-1.3, -0.7, -0.1, -0.6], rtol=1e-6)
