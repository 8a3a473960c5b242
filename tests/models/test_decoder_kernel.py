"""Decoding a row by one kernel, in Pallas's interpreter: what the loop over the model's own cached steps gives."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.generate.decode import decode, left_pad, prefill
from jaxlm.generate.decode_row import covers, decode_row
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.models.decoder import DecoderConfig, MoeConfig, make_decoder
from jaxlm.models.decoder_inference import inference_config, inference_params
from jaxlm.models.decoder_kernel import decode_kernel, kernel_weights, params_of_kernel, stack_cache, unstack_cache
from jaxlm.nn.triton_decode import decode_greedily
from tests.drawn import drawn_params
from tests.quick import quick_ones

LLAMA = DecoderConfig(
    vocab_size=61,
    max_seq_len=64,
    num_layers=2,
    model_dim=64,
    num_heads=4,
    num_kv_heads=2,
    mlp_dim=90,
    qk_norm=False,
    init_std=0.1,
)
"""Heads in groups of two; an MLP and a vocabulary that are no multiples of a tile's rows."""
GREEDY = SamplingConfig(temperature=0.0)
NEW = 8


class Setting:
    """A model, its parameters in both forms, a prompt that is read, and the two ways on from it."""

    def __init__(self, config: DecoderConfig):
        self.config = inference_config(config)
        self.model = make_decoder(self.config)
        self.params = inference_params(config, drawn_params(make_decoder(config)))
        self.weights = kernel_weights(self.config, self.params)
        prompt: Any = left_pad([list(range(3, 14))], 0, length=16)  # five slots of padding
        self.state = prefill(
            self.model, self.params, *prompt, max_new_tokens=NEW, sampling=GREEDY, key=jax.random.key(1)
        )
        kernel = decode_kernel(config, interpret=True, warps=2, slots=8, splits=3, ahead=3, early=2)
        self.by_kernel = jax.jit(
            functools.partial(decode_row, kernel, self.config, self.weights), static_argnames="stop_ids"
        )

    def by_loop(self, state: Any, until: int, stop_ids: tuple[int, ...] = ()) -> Any:
        return decode(self.model, self.params, state, until=until, sampling=GREEDY, stop_ids=stop_ids)


@functools.cache
def setting(tied: bool, dtype: str) -> Setting:
    return Setting(dataclasses.replace(LLAMA, tie_embeddings=tied, compute_dtype=dtype, logits_dtype=dtype))


def assert_alike(ours: Any, theirs: Any, tolerance: float) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            continue
        one, other = (np.asarray(x, np.float32) for x in (one, other))
        assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)


@pytest.mark.slow  # the interpreter's program is large: most of the time is its compilation
@pytest.mark.parametrize("tied", [False, True])
def test_the_kernel_gives_what_the_loop_gives(tied):
    """The whole state: tokens, log-probabilities, cache, counts. In two calls, then past the end, then after it."""
    setup = setting(tied, "float32")
    ours, theirs = setup.state, setup.state
    for until in (4, NEW + 5, NEW):
        ours, theirs = setup.by_kernel(ours, until=until), setup.by_loop(theirs, until)
        assert int(ours.num_sampled) == min(until, NEW)
        assert_alike(ours, theirs, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("index", [1, 5])
def test_a_stop_token_ends_the_row(index):
    setup = setting(False, "float32")
    drawn = np.asarray(setup.by_loop(setup.state, NEW).generated.tokens_bn[0])
    stop = (60, int(drawn[index]), 59)
    ours, theirs = setup.by_kernel(setup.state, until=NEW, stop_ids=stop), setup.by_loop(setup.state, NEW, stop)
    assert bool(ours.done_b[0])
    assert_alike(ours, theirs, 1e-5)
    assert_alike(setup.by_kernel(ours, until=NEW, stop_ids=stop), ours, 0.0)


@pytest.mark.slow
def test_in_bfloat16_the_kernel_rounds_where_the_loop_does():
    """One token, whose log-probability and cache differ by roundings of sums alone."""
    setup = setting(False, "bfloat16")
    ours, theirs = setup.by_kernel(setup.state, until=2), setup.by_loop(setup.state, 2)
    assert_alike(ours.kv_cache, theirs.kv_cache, 0.02)
    logprobs = [float(state.generated.logprobs_bn[0, 1]) for state in (ours, theirs)]
    assert logprobs[0] == pytest.approx(logprobs[1], abs=0.05)


@pytest.mark.parametrize("dtype", quick_ones(["float32", "bfloat16"], "bfloat16"))
@pytest.mark.parametrize("tied", [False, True])
def test_the_kernels_form_gives_the_parameters_back(tied, dtype):
    setup = setting(tied, dtype)
    back = params_of_kernel(setup.config, setup.weights)
    assert jax.tree.structure(back) == jax.tree.structure(setup.params)
    assert all(
        jax.tree.leaves(jax.tree.map(lambda a, b: a.dtype == b.dtype and bool((a == b).all()), back, setup.params))
    )
    layers = setup.state.kv_cache.layers
    assert_alike(unstack_cache(stack_cache(setup.config, layers)), layers, 0.0)


def test_what_it_serves():
    state = setting(False, "float32").state
    assert covers(state, GREEDY)
    assert not covers(state, SamplingConfig())
    assert not covers(state._replace(token_b=jnp.zeros(2, jnp.int32)), GREEDY)
    assert not covers(state._replace(seen_bv=jnp.zeros((1, 61), bool)), GREEDY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("moe", MoeConfig()),
        ("mlp", "gelu"),
        ("bias", True),
        ("qk_norm", True),
        ("window_pattern", (8, None)),
        ("logit_softcap", 30.0),
        ("compute_dtype", "float16"),
        ("head_dim", 24),
    ],
)
def test_what_the_kernel_does_not_compute_is_refused(field, value):
    config = dataclasses.replace(LLAMA, **{field: value})
    with pytest.raises(ValueError, match=field.removeprefix("compute_")):
        decode_of(config)


def decode_of(config):
    """As far as shapes go."""
    cache = jnp.zeros((1, config.kv_heads, 8, config.head_width), config.compute_dtype)
    decode_greedily(decode_kernel(config), None, (cache, cache), None)  # pyright: ignore[reportArgumentType]


def test_weights_in_another_form_are_refused():
    params = inference_params(LLAMA, drawn_params(make_decoder(LLAMA)), weights="int8")
    with pytest.raises(ValueError, match="attn/q"):
        kernel_weights(LLAMA, params)
