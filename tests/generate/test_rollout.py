"""Answers and the rows that come of them: the sampler's probabilities are those of the trainer's forward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.core.keys import Purpose, fold_key
from jaxlm.generate.decode import left_pad
from jaxlm.generate.rollout import rollout_keys, sample_answers, training_rows
from jaxlm.models.decoder import DecoderConfig, MlaConfig, make_decoder
from jaxlm.models.decoder_inference import inference_config, inference_params
from jaxlm.train.rollouts import make_score_rows
from tests.drawn import drawn_params
from tests.quick import quick_ones

PROMPTS = [[5, 9, 13, 2, 7, 30, 31, 8, 1], [40, 3], [17], [50, 51, 52, 53, 54]]
STOP = 11
FORMS = {
    "gqa_rope": {"num_kv_heads": 2, "window_pattern": (4, None)},
    "learned": {"position": "learned", "norm": "layernorm", "mlp": "gelu"},
}


@functools.cache
def answered(form="gqa_rope", temperature=0.7):
    config = DecoderConfig(
        vocab_size=61, max_seq_len=40, num_layers=2, model_dim=32, num_heads=4, init_std=0.3, **FORMS[form]
    )
    model, written = make_decoder(config), make_decoder(inference_config(config))
    params = drawn_params(model)
    names = ("tokens", "segment_ids", "positions")
    given = dict(zip(names, left_pad(PROMPTS * 4, 0, length=12), strict=True))
    sample = functools.partial(
        sample_answers, written, max_new_tokens=20, temperature=temperature, stop_ids=(STOP,), pad_id=0
    )
    answers = jax.jit(sample)(inference_params(config, params), given, rollout_keys(1, 2, jnp.arange(16)))
    rows = jax.jit(functools.partial(training_rows, pad_id=0))(given, answers)
    score = jax.jit(make_score_rows(model, None, temperature=temperature, num_parts=2))
    return jax.device_get(answers), jax.device_get(score(params, None, params, rows))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("temperature", quick_ones([1.0, 0.7], 0.7))
def test_the_sampler_and_the_trainer_give_each_token_one_probability(form, temperature):
    answers, rows = answered(form, temperature)
    drawn = rows["loss_mask"] > 0
    assert drawn.sum() == answers.lengths_b.sum()
    np.testing.assert_allclose(rows["sampler_logprobs"][drawn], rows["old_logprobs"][drawn], atol=1e-5)
    np.testing.assert_allclose(rows["ref_logprobs"], rows["old_logprobs"], atol=1e-6)
    same = np.allclose(answers.logprobs_bn, answers.tempered_logprobs_bn, atol=1e-3)
    assert same == (temperature == 1)


def test_rows_hold_prompt_and_answer_and_count_the_answer_alone():
    answers, rows = answered()
    assert 0 < answers.stopped_b.sum() < 16, "both kinds of ends are wanted here"
    for i, prompt in enumerate(PROMPTS * 4):
        length = answers.lengths_b[i]
        said = prompt + answers.tokens_bn[i, :length].tolist()
        n = len(said) - 1
        assert rows["tokens"][i, :n].tolist() == said[:-1]
        assert rows["targets"][i, :n].tolist() == said[1:]
        assert (rows["segment_ids"][i] == (np.arange(31) < n)).all()
        counted = np.zeros(31)
        counted[len(prompt) - 1 : n] = 1
        np.testing.assert_array_equal(rows["loss_mask"][i], counted)
        assert (said[-1] == STOP) == answers.stopped_b[i]
        assert (rows["tokens"][i, n:] == 0).all()


@pytest.mark.parametrize(
    ("prompts", "mla"),
    [
        (PROMPTS, False),
        (PROMPTS[:1], True),
        pytest.param(PROMPTS, True, marks=pytest.mark.slow),
        pytest.param(PROMPTS[:1], False, marks=pytest.mark.slow),
    ],
)
def test_several_answers_to_a_prompt_read_once_are_those_to_it_repeated(prompts, mla):
    widths = MlaConfig(kv_lora_rank=16, q_lora_rank=None, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8)
    fields = {"mla": widths, "qk_norm": False} if mla else {}
    config = DecoderConfig(
        vocab_size=61, max_seq_len=40, num_layers=3, model_dim=32, num_heads=4, init_std=0.3, **fields
    )
    for shape in (config, inference_config(config)):  # stacked layers, and each on its own
        model = make_decoder(shape)
        params = drawn_params(make_decoder(config))
        params = params if shape is config else inference_params(config, params)
        names, options = ("tokens", "segment_ids", "positions"), {"max_new_tokens": 6, "temperature": 1.0}
        sample = functools.partial(sample_answers, model, stop_ids=(STOP,), pad_id=0, **options)
        keys = rollout_keys(0, 0, jnp.arange(3 * len(prompts)))
        once = dict(zip(names, left_pad(prompts, 0, length=12), strict=True))
        repeated = {name: array.repeat(3, axis=0) for name, array in once.items()}
        ours = jax.jit(functools.partial(sample, num_answers=3))(params, once, keys)
        theirs = jax.jit(sample)(params, repeated, keys)
        np.testing.assert_array_equal(ours.tokens_bn, theirs.tokens_bn)
        np.testing.assert_allclose(ours.logprobs_bn, theirs.logprobs_bn, atol=1e-5)


def test_keys_are_a_function_of_seed_purpose_rollout_and_row():
    keys = jax.random.key_data(rollout_keys(3, 5, jnp.array([7, 1])))
    np.testing.assert_array_equal(keys[0], jax.random.key_data(fold_key(3, Purpose.ROLLOUT, 5, 7)))
    other = jax.random.key_data(rollout_keys(3, 5, jnp.array([7, 1]), Purpose.SAMPLE))
    assert len({tuple(key.tolist()) for key in (*keys, *other)}) == 4


def test_answers_of_one_prompt_differ():
    answers, _ = answered()
    firsts = {tuple(answers.tokens_bn[i].tolist()) for i in range(0, 16, 4)}
    assert len(firsts) == 4
