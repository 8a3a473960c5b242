"""Bits per byte as a score: what the handle says, for all texts at once."""

import numpy as np
import pytest

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.models.ngram_estimate import NgramConfig
from jaxlm.run.text_scores import BitsPerByte, fit_ngram_run
from jaxlm.text.tokenizer import TokenizerConfig

TEXTS = [f"to be, or not to be: that is question {i} of {i * i} that are asked here\n" for i in range(60)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "ngram"
    figures = fit_ngram_run(TEXTS, path, tokenizer=TokenizerConfig(kind="bpe", vocab_size=310))
    assert figures["vocab_size"] == 310
    return path


def test_it_is_the_handles_bits_per_byte(run):
    texts = [*TEXTS[:3], "something else entirely", "", "是"]
    found = BitsPerByte(str(run))(texts)
    meant = [score.bits_per_byte for score in jaxlm.load(run).score(texts)]
    assert found.dtype == np.float32
    assert np.isnan(found[4])
    assert meant[4] is None
    for ours, theirs in zip(found.tolist(), meant, strict=True):
        assert theirs is None or ours == pytest.approx(theirs, rel=1e-5)
    assert found[0] < found[3]
    assert BitsPerByte(str(run))([]).shape == (0,)


def test_a_decoder_scores_too(make_run, tmp_path):
    make_run(tmp_path / "decoder")
    assert (BitsPerByte(str(tmp_path / "decoder"))(TEXTS[:2]) > 0).all()


def test_another_fit_under_the_name_has_another_fingerprint(tmp_path):
    path, kind = tmp_path / "run", TokenizerConfig(kind="byte")
    fit_ngram_run(TEXTS, path, tokenizer=kind)
    first = BitsPerByte(str(path)).fingerprint
    assert BitsPerByte(str(path)).fingerprint == first
    fit_ngram_run(TEXTS[::-1], path, tokenizer=kind, overwrite=True)
    assert BitsPerByte(str(path)).fingerprint != first


def test_what_has_no_bits_per_byte_is_refused(make_run, tmp_path, run):
    make_run(tmp_path / "closed", kind="char")
    fit_ngram_run(TEXTS, tmp_path / "backoff", tokenizer=TokenizerConfig(kind="byte"), ngram=NgramConfig(2, "backoff"))
    for name in ("closed", "backoff"):
        with pytest.raises(UserError, match="has no bits per byte"):
            BitsPerByte(str(tmp_path / name))(TEXTS[:1])
    with pytest.raises(UserError, match="exists already"):
        fit_ngram_run(TEXTS, run)
