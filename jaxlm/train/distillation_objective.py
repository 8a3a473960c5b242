"""Learning from a teacher's distribution over each token, beside or in place of the token itself."""

from collections.abc import Callable

import jax.numpy as jnp

from jaxlm.core.types import Array, Batch, Params, PyTree, Term, Terms
from jaxlm.losses.distillation import Direction, distillation_loss
from jaxlm.losses.tokens import masked_sum, token_nll
from jaxlm.models.api import Model
from jaxlm.train.objectives import num_tokens
from jaxlm.train.step import Objective


def distillation_objective(
    model: Model, teacher: Model, *, coef: float = 1.0, direction: Direction = "forward", temperature: float = 1.0
) -> Objective:
    """``coef`` times the divergence from the teacher at the counted targets, nats a token, plus ``1 - coef`` times
    their cross-entropy (Hinton et al. 2015), plus the terms that the model adds itself.

    ``frozen`` are the teacher's parameters, an argument, sharded like parameters. Raises ValueError for a ``coef``
    outside 0 .. 1.
    """
    if not 0 <= coef <= 1:
        raise ValueError(f"distil.coef={coef} is outside 0 .. 1")

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        options = {name: batch.get(name) for name in ("positions", "segment_ids")}
        hidden = model.hidden(params, batch["tokens"], dropout_key=key, **options)
        logits_btv = model.logits(params, hidden.hidden_btd)
        said_btd = teacher.hidden(frozen, batch["tokens"], **options).hidden_btd
        kl_bt = distillation_loss(
            logits_btv, teacher.logits(frozen, said_btd), direction=direction, temperature=temperature
        )
        nll_bt, _ = token_nll(logits_btv, batch["targets"])
        loss_mask = batch["loss_mask"]
        count = jnp.sum(loss_mask)
        out = {
            "kl_teacher": Term(masked_sum(kl_bt, loss_mask), count, coef),
            "nll": Term(masked_sum(nll_bt, loss_mask), count, 1.0 - coef),
        }
        return out | (hidden.terms or {}), carry

    return Objective(terms, _counts(model))


def _counts(model: Model) -> Callable[[Batch], dict[str, Array]]:
    def counts(batch: Batch) -> dict[str, Array]:
        count = jnp.sum(batch["loss_mask"])
        return {"kl_teacher": count, "nll": count} | dict.fromkeys(model.term_names, num_tokens(batch))

    return counts
