"""Learning from a teacher's distribution over each token, beside or in place of the token itself."""

from collections.abc import Callable

import jax.numpy as jnp

from jaxlm.core.types import Array, Batch, Params, PyTree, Term, Terms
from jaxlm.losses.distillation import Direction, distillation_loss
from jaxlm.losses.tokens import in_chunks, masked_sum, token_nll
from jaxlm.models.api import Model
from jaxlm.train.objectives import model_counts
from jaxlm.train.step import Objective


def distillation_objective(
    model: Model,
    teacher: Model,
    *,
    coef: float = 1.0,
    direction: Direction = "forward",
    temperature: float = 1.0,
    loss_chunk: int | None = None,
) -> Objective:
    """``coef`` times the divergence from the teacher at the counted targets, nats a token, plus ``1 - coef`` times
    their cross-entropy (Hinton et al. 2015), plus the terms that the model adds itself.

    ``frozen`` are the teacher's parameters, an argument, sharded like parameters. ``loss_chunk``: positions of a row
    whose logits, of both, exist at once. Raises ValueError for a ``coef`` outside 0 .. 1.
    """
    if not 0 <= coef <= 1:
        raise ValueError(f"distil.coef={coef} is outside 0 .. 1")

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        options = {name: batch.get(name) for name in ("positions", "segment_ids")}
        hidden = model.hidden(params, batch["tokens"], dropout_key=key, **options)
        said_btd = teacher.hidden(frozen, batch["tokens"], **options).hidden_btd

        def losses(hidden_btd: Array, said_btd: Array, targets_bt: Array) -> tuple[Array, Array]:
            logits_btv, said_btv = model.logits(params, hidden_btd), teacher.logits(frozen, said_btd)
            kl_bt = distillation_loss(logits_btv, said_btv, direction=direction, temperature=temperature)
            return kl_bt, token_nll(logits_btv, targets_bt)[0]

        kl_bt, nll_bt = in_chunks(losses, (hidden.hidden_btd, said_btd, batch["targets"]), loss_chunk)
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
        return {"kl_teacher": count, "nll": count} | model_counts(model.term_names, batch)

    return counts
