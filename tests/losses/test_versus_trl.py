"""Our losses against TRL's, value and gradient, on random batches with masks. TRL 1.x and torch are no dependency:
in an environment that has both them and jaxlm, ``python -m pytest tests/losses/test_versus_trl.py``; else skipped.

TRL's trainers compute a loss inside a method that takes a model: the model given here returns the log-probabilities of
the batch, and the rest is TRL's own code.
"""

import warnings
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.losses import policy, preference
from jaxlm.losses.distillation import distillation_loss
from jaxlm.losses.tokens import masked_sum

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch: Any = pytest.importorskip("torch", reason="TRL runs on torch: install trl and torch beside jaxlm to compare")
    trl: Any = pytest.importorskip("trl", reason="the losses to compare with: install trl beside jaxlm")
    CPOTrainer: Any = pytest.importorskip("trl.experimental.cpo").CPOTrainer
    GKDTrainer: Any = pytest.importorskip("trl.experimental.gkd").GKDTrainer
    ORPOTrainer: Any = pytest.importorskip("trl.experimental.orpo").ORPOTrainer

pytestmark = pytest.mark.filterwarnings("ignore")

B, T = 6, 5
LENGTHS = np.array([5, 3, 1, 4, 2, 5])
MASK = (np.arange(T) < LENGTHS[:, None]).astype(np.float64)


class Outputs(SimpleNamespace):
    """What TRL reads of a model's output, all [rows, t]."""


def trainer(**fields: Any) -> Any:
    """The fields that the loss methods read, as on one process without accumulation."""
    alone = SimpleNamespace(
        device="cpu", num_processes=1, gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, **_: x
    )

    class Anything(dict):
        def __missing__(self, key: str) -> Any:
            self[key] = Anything() if key in ("train", "eval") else []
            return self[key]

    common = {
        "accelerator": alone,
        "model": SimpleNamespace(training=True),
        "aux_loss_enabled": False,
        "_metrics": Anything(),
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return SimpleNamespace(**(common | fields))


def tensors(*arrays: np.ndarray) -> list[Any]:
    return [torch.tensor(np.float32(x), dtype=torch.float64, requires_grad=True) for x in arrays]


def compare(ours: Any, theirs: Any, *arrays: np.ndarray) -> None:
    """Value and gradient by each array, ours in f32 and theirs in f64."""
    given = tensors(*arrays)
    loss = theirs(*given)
    loss.backward()
    value, grads = jax.value_and_grad(ours, argnums=tuple(range(len(arrays))))(
        *(jnp.asarray(np.float32(x)) for x in arrays)
    )
    np.testing.assert_allclose(value, loss.detach().numpy(), rtol=1e-5)
    for found, x in zip(grads, given, strict=True):
        wanted = np.zeros(x.shape) if x.grad is None else x.grad.numpy()
        assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted)


@pytest.fixture
def logprobs():
    rng = np.random.default_rng(0)
    return [-rng.exponential(size=(B, T)) for _ in range(4)]


def mean(losses: jax.Array) -> jax.Array:
    return masked_sum(losses, jnp.ones(losses.shape)) / losses.size


@pytest.mark.parametrize("kind", ["sigmoid", "robust", "ipo"])
def test_pairs_with_a_reference(kind, logprobs):
    mask = jnp.asarray(MASK, jnp.float32)
    average = kind == "ipo"  # TRL takes means over the completion's tokens there, counted before the shift
    counts = LENGTHS + 1

    def ours(chosen, rejected, ref_chosen, ref_rejected):
        sums = [preference.sequence_logprobs(x, mask) for x in (chosen, rejected, ref_chosen, ref_rejected)]
        c, r, ref_c, ref_r = [x / jnp.asarray(counts, jnp.float32) if average else x for x in sums]
        if kind == "sigmoid":
            return mean(preference.dpo_loss(c - r, ref_c - ref_r, beta=0.3))
        if kind == "robust":
            return mean(preference.robust_dpo_loss(c - r, ref_c - ref_r, beta=0.3, label_noise=0.2))
        return mean(preference.ipo_loss(c - r, ref_c - ref_r, beta=0.3))

    def theirs(chosen, rejected, ref_chosen, ref_rejected):
        mask = torch.tensor(np.concatenate([MASK, MASK]))
        completion = torch.cat([torch.ones(2 * B, 1), mask], dim=1)

        def model(**_):
            rows = torch.cat([chosen, rejected]) * mask
            flat = torch.zeros_like(rows)
            return Outputs(log_probs=rows, entropy=flat, mean_logits=flat, is_top1=flat.bool())

        own = trainer(
            ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=[kind],
            loss_weights=[1.0], beta=0.3, label_smoothing=0.2, use_weighting=False,
        )  # fmt: skip
        refs = [(x * torch.tensor(MASK)).sum(1) for x in (ref_chosen, ref_rejected)]
        inputs = {
            "input_ids": torch.zeros(2 * B, T + 1, dtype=torch.long),
            "attention_mask": torch.ones(2 * B, T + 1),
            "completion_mask": completion,
            "ref_chosen_logps": refs[0],
            "ref_rejected_logps": refs[1],
        }
        return trl.DPOTrainer._compute_loss(own, model, inputs, False)

    compare(ours, theirs, *logprobs)


def test_kto(logprobs):
    good = np.array([1, 0, 1, 1, 0, 0])
    mask = jnp.asarray(MASK, jnp.float32)

    def ours(logprobs, ref, kl_logprobs, kl_ref):
        sums = [preference.sequence_logprobs(x, mask) for x in (logprobs, ref, kl_logprobs, kl_ref)]
        point = preference.kto_reference_point(sums[2], sums[3])
        options = {"beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.7}
        return mean(preference.kto_loss(sums[0], sums[1], jnp.asarray(good), point, **options))

    def theirs(logprobs, ref, kl_logprobs, kl_ref):
        mask = torch.tensor(MASK)
        flat = torch.zeros(B, T, dtype=torch.float64)

        def model(**_):
            return Outputs(log_probs=logprobs * mask, entropy=flat, mean_logits=flat, is_top1=flat.bool())

        own = trainer(
            precompute_ref_logps=True, calculate_KL=True, loss_type="kto", beta=0.3, desirable_weight=1.3,
            undesirable_weight=0.7, _compute_kl_logps=lambda *_: (kl_logprobs * mask).sum(1).detach(),
        )  # fmt: skip
        inputs = {
            "input_ids": torch.zeros(B, T + 1, dtype=torch.long),
            "attention_mask": torch.ones(B, T + 1),
            "completion_mask": torch.cat([torch.zeros(B, 1), mask], dim=1),
            "label": torch.tensor(good, dtype=torch.bool),
            "ref_logps": (ref * mask).sum(1),
            "ref_KL_logps": (kl_ref * mask).sum(1).detach(),
        }
        return trl.KTOTrainer._compute_loss(own, model, inputs, False)

    raised = [logprobs[0], logprobs[1], logprobs[2] + 2, logprobs[3]]  # so that the reference point is above 0
    compare(ours, theirs, *raised)


def test_orpo_and_simpo(logprobs):
    chosen, rejected = (-np.abs(x[:, 0]) - 0.01 for x in logprobs[:2])

    def orpo(c, r):
        return -ORPOTrainer.odds_ratio_loss(trainer(beta=1.0), c, r)[0].mean()

    own = trainer(alpha=0.0, beta=2.0, simpo_gamma=0.5, loss_type="simpo", label_smoothing=0.0)
    compare(lambda c, r: mean(preference.orpo_loss(c, r)), orpo, chosen, rejected)
    compare(
        lambda c, r: mean(preference.simpo_loss(c, r, beta=2.0, margin=0.5)),
        lambda c, r: CPOTrainer.cpo_loss(own, c, r)[0].mean(),
        chosen,
        rejected,
    )


@pytest.mark.parametrize("with_margin", [False, True])
def test_reward_model(with_margin):
    rng = np.random.default_rng(1)
    margin = np.abs(rng.normal(size=B))

    def ours(c, r):
        loss = preference.bradley_terry_loss(c, r, jnp.asarray(margin, jnp.float32) if with_margin else None)
        return mean(loss) + 0.01 * mean(preference.reward_centre_penalty(c, r))

    def theirs(c, r):
        own = trainer(args=SimpleNamespace(center_rewards_coefficient=0.01))
        inputs = {"attention_mask": torch.ones(2 * B, T)}
        if with_margin:
            inputs["margin"] = torch.tensor(np.float32(margin), dtype=torch.float64)

        def model(**_):
            return SimpleNamespace(logits=torch.cat([c, r])[:, None])

        return trl.RewardTrainer.compute_loss(own, model, inputs)

    compare(ours, theirs, rng.normal(size=B) * 2, rng.normal(size=B) * 2)


@pytest.mark.parametrize(("kind", "reduction"), [("grpo", "sequence"), ("dapo", "token"), ("dr_grpo", "constant")])
def test_grpo(kind, reduction, logprobs):
    advantage = np.random.default_rng(2).normal(size=B)
    mask = jnp.asarray(MASK, jnp.float32)

    def ours(new, old, ref):
        loss = policy.ppo_policy_loss(
            new,
            jax.lax.stop_gradient(old),
            jnp.asarray(advantage, jnp.float32)[:, None],
            clip_eps=0.2,
            clip_eps_high=0.3,
        ).loss_bt
        values = loss + 0.04 * policy.kl_estimate(new, jax.lax.stop_gradient(ref), "k3")
        term = policy.reduced_term(values, mask, reduction, max_length=9)
        return term.total / term.count

    def theirs(new, old, ref):
        own = trainer(
            loss_type=kind, beta=0.04, epsilon_low=0.2, epsilon_high=0.3, importance_sampling_level="token",
            top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False, _entropy_bonus_enabled=False,
            current_gradient_accumulation_steps=1, max_completion_length=9,
            args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
            _get_per_token_logps_and_entropies=lambda *_, **__: (new, torch.zeros_like(new), None),
        )  # fmt: skip
        inputs = {
            "prompt_ids": torch.zeros(B, 2), "prompt_mask": torch.ones(B, 2), "completion_ids": torch.zeros(B, T),
            "completion_mask": torch.tensor(MASK), "num_items_in_batch": torch.tensor(MASK.sum()),
            "advantages": torch.tensor(np.float32(advantage), dtype=torch.float64),
            "old_per_token_logps": old.detach(), "ref_per_token_logps": ref.detach(),
        }  # fmt: skip
        return trl.GRPOTrainer._compute_loss(own, None, inputs)

    compare(ours, theirs, *logprobs[:3])


@pytest.mark.parametrize(("beta", "direction"), [(0, "forward"), (1, "reverse")])
def test_distillation(beta, direction):
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(size=(2, B, T, 11)) * 2
    mask = jnp.asarray(MASK, jnp.float32)

    def ours(student):
        loss = distillation_loss(student, jnp.asarray(teacher, jnp.float32), direction=direction, temperature=2.0)
        return masked_sum(loss, mask) / jnp.sum(mask) / 4  # TRL leaves out T^2

    def theirs(student):
        labels = torch.tensor(np.where(MASK > 0, 1, -100))
        given = torch.tensor(np.float32(teacher), dtype=torch.float64)
        return GKDTrainer.generalized_jsd_loss(student, given, labels, beta=beta, temperature=2.0)

    compare(ours, theirs, student)
