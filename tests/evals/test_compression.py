"""The compressor baseline."""

import random

import pytest

from jaxlm.evals.compression import primed_xz_bits_per_byte


def test_text_seen_in_training_costs_almost_nothing_and_noise_costs_eight_bits():
    rng = random.Random(0)
    noise = ["".join(chr(rng.randrange(1, 128)) for _ in range(2000)) for _ in range(8)]
    assert primed_xz_bits_per_byte(noise, noise[3:5]) < 0.2
    assert primed_xz_bits_per_byte(noise[:4], noise[4:]) == pytest.approx(7.0, abs=0.3)  # 7-bit noise


def test_nothing_held_out_is_an_error():
    with pytest.raises(ValueError, match="no held-out text"):
        primed_xz_bits_per_byte(["a"], [])
