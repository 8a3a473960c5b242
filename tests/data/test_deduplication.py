"""The config of copies: what cannot work is refused at birth, the bands follow from the threshold."""

import pytest

from jaxlm.data.deduplication import DecontaminationConfig, DeduplicationConfig, RepeatsConfig
from jaxlm.text.minhash import hit_probability


def test_bands_follow_from_the_threshold():
    config = DeduplicationConfig()
    minhash = config.minhash
    assert minhash.bands * minhash.rows <= config.max_hashes
    assert hit_probability(config.threshold, minhash.bands, minhash.rows) >= config.recall
    assert DeduplicationConfig(threshold=0.8).minhash.rows > minhash.rows


def test_overlap_is_that_of_the_config():
    overlap = DecontaminationConfig(width=8, share=0.5, matched_words=9, min_words=6).overlap
    assert (overlap.width, overlap.share, overlap.matched_words, overlap.min_words) == (8, 0.5, 9, 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeduplicationConfig(threshold=1.0), "threshold=1.0 is outside"),
        (lambda: DeduplicationConfig(recall=0.0), "recall=0.0 is outside"),
        (lambda: DeduplicationConfig(width=0), "width=0 is below 1"),
        (lambda: DeduplicationConfig(seed=-1), "seed=-1 is below 0"),
        (lambda: DeduplicationConfig(threshold=0.01), "max_hashes=256 cannot find pairs"),
        (lambda: RepeatsConfig(unit="page"), "unit='page' is none of"),  # pyright: ignore[reportArgumentType]
        (lambda: RepeatsConfig(max_documents=0), "max_documents=0 is below 1"),
        (lambda: DecontaminationConfig(share=2.0), "share=2.0 is outside"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
