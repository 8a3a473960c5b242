"""Objectives over ranked answers: from records to a loss whose parts sum to the whole, and that learns the order."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.examples import ExamplePlan
from jaxlm.data.preferences import ranked_rows
from jaxlm.io.tokenizers import ByteTokenizer
from jaxlm.losses import preference
from jaxlm.models.decoder import DecoderConfig, MoeConfig, make_decoder
from jaxlm.models.heads import HeadConfig, make_task_model
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import Message, Ranking
from jaxlm.text.chat.template import ChatTemplate
from jaxlm.text.chat.templates import TEMPLATES
from jaxlm.train.kto_objective import kto_objective
from jaxlm.train.objectives import TEXT_TOKENS, causal_objective, task_objective, with_text
from jaxlm.train.preference_objectives import (
    PairConfig,
    answer_logprobs,
    answer_rewards,
    pair_objective,
    reward_objective,
)
from jaxlm.train.state import create_state
from jaxlm.train.step import make_train_step
from jaxlm.train.step_reward_objective import step_reward_objective
from tests.drawn import drawn_params
from tests.quick import quick_ones

FORM = ChatFormat(TEMPLATES["chatml"], ByteTokenizer())
PROMPT = (Message("user", "a?"),)


def ranking(*answers, ranks=None, prompt=PROMPT, margins=()):
    return Ranking(prompt, answers, tuple(range(len(answers))) if ranks is None else ranks, margins, where="f line 1")


PAIRS = [ranking("good " + "x" * i, "bad " + "y" * (7 - i), margins=(i / 4, 0.0)) for i in range(8)]
LISTS = [ranking("aa", "b", "cccc"), ranking("d", "eee"), ranking("f", "g", "h", ranks=(2, 0, 1)), ranking("i", "j")]


@functools.cache
def decoder():
    sizes: dict[str, Any] = {"num_layers": 1, "model_dim": 16, "num_heads": 2, "mlp_dim": 16, "max_seq_len": 96}
    model = make_decoder(DecoderConfig(vocab_size=281, compute_dtype="float32", **sizes))
    return model, drawn_params(model)


def batch_of(rankings, seq_len=80):
    arrays = ranked_rows(FORM, rankings, seq_len=seq_len).arrays
    return {name: jnp.asarray(array) for name, array in arrays.items()}


def test_rows_count_the_answer_alone_and_the_best_comes_first():
    earlier = (Message("user", "a?"), Message("assistant", "b."), Message("user", "c?"))
    made = ranked_rows(FORM, [ranking("worst", "best", "mid", ranks=(2, 0, 1), prompt=earlier)], seq_len=200)
    stop = FORM.stop_ids[0]
    for j, answer in enumerate(("best", "mid", "worst")):
        said = made.arrays["targets"][0, j][made.arrays["loss_mask"][0, j] == 1]
        assert FORM.tokenizer.decode(said).strip() == answer
        assert (said == stop).sum() == 1
    assert made.arrays["ranks"].tolist() == [[0, 1, 2]]
    assert made.arrays["margins"].tolist() == [[0, 0, 0]]


def test_an_answer_counts_whole_whatever_the_template_has_the_model_begin_with():
    source = TEMPLATES["chatml"].source.replace("assistant\\n' }}{% endif %}", "assistant\\n<think>\\n' }}{% endif %}")
    form = ChatFormat(ChatTemplate("thinking", source), ByteTokenizer())
    assert form.tokenizer.decode(form.prompt(PROMPT)).endswith("<think>\n")
    earlier = (*PROMPT, Message("assistant", "\nb."), Message("user", "c?"))
    for prompt in (PROMPT, earlier):
        made = ranked_rows(form, [ranking("yes", "no", prompt=prompt)], seq_len=200).arrays
        for j, answer in enumerate(("yes", "no")):
            said = made["targets"][0, j][made["loss_mask"][0, j] == 1]
            assert said.tolist() == [*form.tokenizer.encode(answer), *form.stop_ids]


def test_margins_lower_the_rewards_that_the_loss_sees():
    margins = (0.0, 3.0, 1.0)
    made = ranked_rows(FORM, [ranking("c", "a", "b", ranks=(2, 0, 1), margins=margins)], seq_len=80).arrays
    assert made["margins"].tolist() == [[3, 1, 0]]
    rewards = jnp.array([[2.0, 1.5, -1.0]])
    batch = {name: jnp.asarray(array) for name, array in made.items()}
    lowered, mask = rewards - jnp.array([[3.0, 1.0, 0.0]]), jnp.ones((1, 3))
    wanted = {
        False: preference.plackett_luce_loss(lowered, mask),
        True: preference.all_pairs_loss(lowered, batch["ranks"], mask),
    }
    for ties, want in wanted.items():
        objective = reward_objective(lambda params, batch, key: (rewards, {}), ties=ties)
        found = objective.terms({}, None, None, batch, jax.random.key(0))[0]
        np.testing.assert_allclose(found["ranking"].total, want[0], rtol=1e-6)
        assert found["accuracy"].total == 3, "of the rewards themselves"


def test_prompts_without_room_and_long_answers():
    with pytest.raises(UserError, match=r"f line 1: the prompt has .* leaves no room to answer"):
        ranked_rows(FORM, PAIRS, seq_len=10)
    made = ranked_rows(FORM, [ranking("x" * 100, "y", "z"), ranking("x" * 100, "y")], seq_len=40)
    assert (made.num_left_out, made.num_answers_left_out, len(made.sources)) == (1, 2, 1)
    with pytest.raises(UserError, match="none of 1 rankings fits"):
        ranked_rows(FORM, [ranking("x" * 100, "y")], seq_len=40)


def test_batches_are_a_function_of_seed_and_number():
    plan = ExamplePlan(ranked_rows(FORM, PAIRS, seq_len=80).arrays, global_batch_size=4, seed=3)
    again = ExamplePlan(ranked_rows(FORM, PAIRS, seq_len=80).arrays, global_batch_size=4, seed=3)
    [plan.batch(i) for i in range(5)]
    for name, array in plan.batch(5).items():
        np.testing.assert_array_equal(array, again.batch(5)[name])


def test_answer_logprobs_are_those_of_each_answer_alone():
    model, params = decoder()
    batch = batch_of(LISTS)
    found = jax.jit(lambda p, b: answer_logprobs(model, p, b)[0])(params, batch)
    log_probs = jax.nn.log_softmax(jax.jit(model.apply_fn)(params, batch["tokens"][0]))
    for j in range(3):
        places = np.flatnonzero(batch["loss_mask"][0, j])
        wanted = sum(float(log_probs[j, t, batch["targets"][0, j, t]]) for t in places)
        np.testing.assert_allclose(found[0, j], wanted, rtol=1e-5)


def step_of(objective, params, batch, accum):
    tx = optax.chain(optax.trace(decay=0.0), optax.scale(-1.0))  # the state is the gradient, to the last bit
    step = make_train_step(objective, tx, schedule=lambda s: 1.0, grad_accum_steps=accum)
    state = create_state(jax.tree.map(jnp.array, params), tx)
    after, metrics = jax.jit(step)(state, None, batch, jax.random.key(0))
    return metrics, after.opt_state[0].trace


@pytest.mark.parametrize("loss", ["dpo", "orpo"])
def test_pairs_in_parts_sum_to_the_whole(loss):
    model, params = decoder()
    batch = batch_of(PAIRS)
    batch["answer_mask"] = batch["answer_mask"].at[0].set(0)  # a row of padding: parts of unequal count
    ref = jax.jit(lambda p, b: answer_logprobs(model, p, b)[0])(params, batch)
    objective = pair_objective(model, PairConfig(loss, nll_coef=0.5))
    whole, parts = (step_of(objective, params, batch | {"ref_logprobs": ref}, accum) for accum in (1, 8))
    np.testing.assert_allclose(parts[0]["loss"], whole[0]["loss"], rtol=1e-5)
    for found, wanted in zip(jax.tree.leaves(parts[1]), jax.tree.leaves(whole[1]), strict=True):
        assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted)
    if loss == "dpo":
        np.testing.assert_allclose(whole[0]["term/dpo"], np.log(2), rtol=1e-5)  # the policy is the reference


@pytest.mark.parametrize("loss", ["dpo", "cdpo", "robust", "ipo", "orpo", "simpo"])
def test_each_loss_is_the_one_it_names(loss):
    model, params = decoder()
    batch = batch_of(PAIRS)
    own = np.asarray(jax.jit(lambda p, b: answer_logprobs(model, p, b)[0])(params, batch))
    lengths = np.asarray(batch["loss_mask"].sum(-1))
    batch["ref_logprobs"] = jnp.asarray(own + np.random.default_rng(0).normal(size=own.shape), jnp.float32)
    config = PairConfig(loss, beta=0.3)
    terms, _ = jax.jit(lambda p, b: pair_objective(model, config).terms(p, None, None, b, jax.random.key(0)))(
        params, batch
    )
    scale = lengths if loss in ("ipo", "orpo", "simpo") else 1.0
    c, r = (own / scale).T
    refs = (np.asarray(batch["ref_logprobs"]) / scale).T
    h, ref_h = jnp.asarray(c - r), jnp.asarray(refs[0] - refs[1])
    wanted = {
        "dpo": lambda: preference.dpo_loss(h, ref_h, beta=0.3),
        "cdpo": lambda: preference.cdpo_loss(h, ref_h, beta=0.3, label_noise=0.1),
        "robust": lambda: preference.robust_dpo_loss(h, ref_h, beta=0.3, label_noise=0.1),
        "ipo": lambda: preference.ipo_loss(h, ref_h, beta=0.3),
        "orpo": lambda: preference.orpo_loss(jnp.asarray(c), jnp.asarray(r)),
        "simpo": lambda: preference.simpo_loss(jnp.asarray(c), jnp.asarray(r), beta=0.3, margin=0.5),
    }[loss]()
    np.testing.assert_allclose(terms[loss].total, wanted.sum(), rtol=1e-4)
    assert ("nll" in terms) == (loss == "orpo")


def test_rewards_read_the_last_token_of_each_answer():
    model, _ = decoder()
    task = make_task_model(model, HeadConfig("regress", pooling="last"))
    params = drawn_params(task)
    batch = batch_of(LISTS)
    found = jax.jit(lambda p, b: answer_rewards(task, p, b)[0])(params, batch)
    for j, answer in enumerate(("aa", "b", "cccc")):
        ids = [*FORM.prompt(PROMPT), *FORM.tokenizer.encode(answer), *FORM.stop_ids]
        alone = {"tokens": jnp.asarray([ids], jnp.int32), "segment_ids": jnp.ones((1, len(ids)), jnp.int32)}
        np.testing.assert_allclose(found[0, j], task.outputs(params, alone)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_a_reward_model_learns_the_order(ties):
    model, _ = decoder()
    task = make_task_model(model, HeadConfig("regress", pooling="last"))
    objective = reward_objective(functools.partial(answer_rewards, task), ties=ties, centre_coef=0.01)
    batch = batch_of([ranking("good", "bad", "awful"), ranking("good!", "bad!")] * 4)
    config = OptimizerConfig(peak_lr=1e-2, schedule="constant")
    tx = make_optimizer(config, 40)
    step = jax.jit(make_train_step(objective, tx, schedule=config.schedule_fn(40), grad_accum_steps=2))
    state = create_state(drawn_params(task), tx)
    metrics: dict[str, Any] = {}
    for _ in range(40):
        state, metrics = step(state, None, batch, jax.random.key(0))
    assert metrics["term/accuracy"] == 1
    assert metrics["term/ranking"] < 0.2


@functools.cache
def experts():
    moe = MoeConfig(num_experts=4, top_k=2, balance_coef=0.5, router_z_coef=0.1)
    sizes: dict[str, Any] = {"num_layers": 1, "model_dim": 16, "num_heads": 2, "mlp_dim": 16, "max_seq_len": 96}
    return make_decoder(DecoderConfig(vocab_size=281, compute_dtype="float32", moe=moe, **sizes))


def tuning_objectives():
    model = experts()
    whole = make_task_model(model, HeadConfig("regress", pooling="last"))
    steps = make_task_model(model, HeadConfig("tag"))
    rewards = functools.partial(answer_rewards, whole)
    return {
        "dpo": (model, pair_objective(model, PairConfig("dpo"))),
        "kto": (model, kto_objective(model, PairConfig("kto"))),
        "reward": (whole, reward_objective(rewards, term_names=whole.term_names)),
        "steps": (steps, step_reward_objective(steps)),
        "task": (whole, task_objective(whole)),
    }


@pytest.mark.parametrize("name", quick_ones(["dpo", "kto", "reward", "steps", "task"], "dpo", "task"))
def test_the_router_of_experts_is_kept_even_in_tuning(name):
    """Its terms are those of the tokens that were read, whatever is learnt from them, and in parts as in one."""
    model, objective = tuning_objectives()[name]
    params, batch = drawn_params(model), batch_of(PAIRS)
    batch |= {"ref_logprobs": jnp.zeros((8, 2)), "desirable": jnp.ones(8)}
    if name in ("steps", "task"):
        rows = {"tokens": batch["tokens"][:, 0], "segment_ids": batch["segment_ids"][:, 0]}
        labels = jnp.ones(rows["tokens"].shape if name == "steps" else 8)
        batch = rows | {"labels": labels, "loss_mask": jnp.ones_like(labels)}
    (whole, _), (parts, _) = (step_of(objective, params, batch, accum) for accum in (1, 4))
    tokens = int(np.sum(np.asarray(batch["segment_ids"]) > 0))
    tokens += 16 if name == "reward" else 0  # there the end is read too
    counts = objective.counts(batch)
    for term, weight in (("router_balance", 0.5), ("router_z", 0.1)):
        assert counts[term] == tokens
        assert whole[f"term/{term}"] > 0
        found = objective.terms(params, None, None, batch, jax.random.key(0))[0][term]
        assert (float(found.weight), float(found.count)) == (pytest.approx(weight), tokens)
    np.testing.assert_allclose(parts["term/router_z"], whole["term/router_z"], rtol=1e-5)


def test_the_router_reads_the_text_beside_the_pairs_too():
    model = experts()
    objective = with_text(pair_objective(model, PairConfig("dpo")), model, 0.25)
    params, batch = drawn_params(model), batch_of(PAIRS)
    batch |= {"ref_logprobs": jnp.zeros((8, 2)), TEXT_TOKENS: batch["tokens"][:, 0, :33]}
    alone = {"tokens": batch[TEXT_TOKENS][:, :-1], "targets": batch[TEXT_TOKENS][:, 1:], "loss_mask": jnp.ones((8, 32))}
    found, _ = objective.terms(params, None, None, batch, jax.random.key(0))
    expected, _ = causal_objective(model).terms(params, None, None, alone, jax.random.key(0))
    names = {"nll": "text", "router_balance": "text_router_balance", "router_z": "text_router_z"}
    assert expected.keys() == names.keys()
    for own, name in names.items():
        assert found[name].weight == pytest.approx(0.25 * expected[own].weight)
        np.testing.assert_allclose(found[name].total, expected[own].total, rtol=1e-5)
        assert objective.counts(batch)[name] == found[name].count == 256
    (whole, _), (parts, _) = (step_of(objective, params, batch, accum) for accum in (1, 4))
    np.testing.assert_allclose(parts["term/text_router_z"], whole["term/text_router_z"], rtol=1e-5)


def test_bad_settings_are_refused():
    bad: list[dict[str, Any]] = [{"loss": "ppo"}, {"beta": 0.0}, {"label_noise": 0.5}, {"nll_coef": -1.0}]
    for options in bad:
        with pytest.raises(ValueError, match="pairs"):
            PairConfig(**options)
