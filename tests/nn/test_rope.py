"""RoPE against formulas written out in float64 NumPy, from the papers and independent of jaxlm.nn.rope."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.nn.rope import MAX_CONSTANT, RopeConfig, apply_rope, rope_frequencies, rope_tables

LLAMA3 = RopeConfig(theta=500000.0, scaling="llama3", factor=8.0, original_max_seq_len=8192)
YARN = RopeConfig(theta=10000.0, scaling="yarn", factor=16.0, original_max_seq_len=4096)


def rotate(x: np.ndarray, positions: np.ndarray, inv_freq: np.ndarray) -> np.ndarray:
    """Each pair (i, i + h/2) as a complex number, turned by exp(i position freq) (Su et al. 2021, eq. 34). x [t, h]."""
    half = x.shape[-1] // 2
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * positions[:, None] * inv_freq)
    return np.concatenate([z.real, z.imag], axis=-1)


def llama3_by_cases(head_dim: int) -> np.ndarray:
    """Llama 3.1's rule, pair by pair, in wavelengths as in Meta's release."""
    out = []
    for i in range(head_dim // 2):
        freq = 500000.0 ** (-2 * i / head_dim)
        wavelength = 2 * np.pi / freq
        if wavelength < 8192 / 4:
            out.append(freq)
        elif wavelength > 8192 / 1:
            out.append(freq / 8)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            out.append((1 - smooth) * freq / 8 + smooth * freq)
    return np.array(out)


def yarn_by_cases(head_dim: int) -> np.ndarray:
    """YaRN's (Peng et al. 2023): pairs that turn over 32 times are kept, under once divided, between them a ramp in
    i."""
    first = np.floor(head_dim * np.log(4096 / (32 * 2 * np.pi)) / (2 * np.log(10000.0)))
    last = np.ceil(head_dim * np.log(4096 / (1 * 2 * np.pi)) / (2 * np.log(10000.0)))
    out = []
    for i in range(head_dim // 2):
        freq = 10000.0 ** (-2 * i / head_dim)
        divided = min(max((i - first) / (last - first), 0), 1)
        out.append(freq / 16 * divided + freq * (1 - divided))
    return np.array(out)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RopeConfig(), lambda h: 10000.0 ** (-2 * np.arange(h // 2) / h)),
        (LLAMA3, llama3_by_cases),
        (YARN, yarn_by_cases),
    ],
    ids=["plain", "llama3", "yarn"],
)
@pytest.mark.parametrize("head_dim", [8, 64, 128])
def test_frequencies(config: RopeConfig, expected, head_dim: int) -> None:
    inv_freq, _ = rope_frequencies(config, head_dim)
    np.testing.assert_allclose(inv_freq, expected(head_dim), rtol=1e-12)


def test_yarn_temperature() -> None:
    """1/sqrt(t) = 0.1 ln(s) + 1 on queries and keys both (eq. 22): scores grow by its square."""
    assert rope_frequencies(YARN, 64)[1] == pytest.approx(0.1 * np.log(16) + 1, rel=1e-12)
    assert rope_frequencies(RopeConfig(scaling="yarn", factor=16.0, attention_factor=1.5), 64)[1] == 1.5
    assert rope_frequencies(LLAMA3, 64)[1] == 1.0


@pytest.mark.parametrize("config", [RopeConfig(), LLAMA3, YARN], ids=["plain", "llama3", "yarn"])
def test_rotation(config: RopeConfig, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 20, 3, 16)).astype(np.float32)
    positions = np.stack([np.arange(20), np.arange(20) * 7 + 100])
    inv_freq, factor = rope_frequencies(config, 16)
    out = apply_rope(jnp.asarray(x), rope_tables(jnp.asarray(positions, jnp.int32), config, 16))
    for b in range(2):
        for n in range(3):
            expected = rotate(x[b, :, n].astype(np.float64), positions[b], inv_freq) * factor
            np.testing.assert_allclose(out[b, :, n], expected, atol=2e-4 if b else 1e-5)


def test_constant_tables_equal_traced_ones() -> None:
    for t in (64, 2 * MAX_CONSTANT // 16):
        constant = rope_tables(t, YARN, 16)
        traced = rope_tables(jnp.arange(t, dtype=jnp.int32), YARN, 16)
        for a, b in zip(constant, traced, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_scores_depend_on_distance_alone(rng: np.random.Generator) -> None:
    q, k = (jnp.asarray(rng.normal(size=(1, 1, 1, 16)), jnp.float32) for _ in range(2))

    def score(i: int, j: int) -> float:
        at = [rope_tables(jnp.full((1, 1), p, jnp.int32), RopeConfig(), 16) for p in (i, j)]
        return float(jnp.sum(apply_rope(q, at[0]) * apply_rope(k, at[1])))

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)


def test_bfloat16_keeps_its_dtype() -> None:
    x = jnp.ones((1, 4, 1, 8), jnp.bfloat16)
    assert apply_rope(x, rope_tables(4, RopeConfig(), 8)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scaling": "ntk"}, "rope.scaling='ntk' is unknown"),
        ({"theta": 0.5}, "rope.theta=0.5"),
        ({"factor": 2.0}, "does nothing"),
        ({"scaling": "yarn", "factor": 0.5}, "rope.factor=0.5"),
        ({"scaling": "llama3", "low_freq_factor": 4.0}, "rope.low_freq_factor=4.0"),
        ({"scaling": "yarn", "beta_fast": 0.5}, "rope.beta_slow=1.0"),
        ({"original_max_seq_len": 0}, "rope.original_max_seq_len=0"),
        ({"attention_factor": 0.0}, "rope.attention_factor=0.0"),
    ],
)
def test_bad_values(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RopeConfig(**kwargs)
