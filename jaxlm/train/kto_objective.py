"""KTO: a policy from single answers that were found good or bad, against a reference."""

import jax
import jax.numpy as jnp

from jaxlm.core.types import Array, Batch, Params, PyTree, Term, Terms
from jaxlm.losses import preference
from jaxlm.losses.tokens import masked_sum
from jaxlm.models.api import Model
from jaxlm.train.objectives import model_counts
from jaxlm.train.preference_objectives import PairConfig, answer_logprobs
from jaxlm.train.step import Objective


def kto_objective(model: Model, config: PairConfig, *, loss_chunk: int | None = None) -> Objective:
    """The mean of KTO's loss over answers (Ethayarajh et al. 2024, eq. 8). Batches are those of
    `data.preferences.judged_rows` with ``ref_logprobs`` [b, 2]; the answers in second place give the reference point,
    without a gradient.

    That point is a statistic of the microbatch: accumulation alters it. ``accuracy`` (is the implicit reward of a good
    answer above the point, of a bad one below), ``reward_margin`` (twice its mean, signed by the judgement) and
    ``kl`` (the point itself) are only watched.
    """

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        del frozen
        logprobs_bk, own = answer_logprobs(model, params, batch, key, loss_chunk=loss_chunk)
        ref_bk, mask_bk, good_b = batch["ref_logprobs"], batch["answer_mask"], batch["desirable"]
        point = preference.kto_reference_point(
            jax.lax.stop_gradient(logprobs_bk[:, 1]), ref_bk[:, 1], mask_bk[:, 1] * mask_bk[:, 0]
        )
        loss_b = preference.kto_loss(
            logprobs_bk[:, 0],
            ref_bk[:, 0],
            good_b,
            point,
            beta=config.beta,
            desirable_weight=config.desirable_weight,
            undesirable_weight=config.undesirable_weight,
        )
        mask_b = mask_bk[:, 0]
        count = jnp.sum(mask_b)
        reward_b = jax.lax.stop_gradient(config.beta * (logprobs_bk[:, 0] - ref_bk[:, 0] - point))
        signed_b = jnp.where(good_b > 0, reward_b, -reward_b)
        return {
            "kto": Term(masked_sum(loss_b, mask_b), count),
            "accuracy": Term(masked_sum((signed_b > 0).astype(jnp.float32), mask_b), count, 0.0),
            "reward_margin": Term(2.0 * masked_sum(signed_b, mask_b), count, 0.0),
            "kl": Term(point * count, count, 0.0),
        } | own, carry

    def counts(batch: Batch) -> dict[str, Array]:
        count = jnp.sum(batch["answer_mask"][:, 0])
        found = dict.fromkeys(("kto", "accuracy", "reward_margin", "kl"), count)
        return found | model_counts(model.term_names, batch)

    return Objective(terms, counts)
