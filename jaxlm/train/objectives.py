"""What a step minimises: cross-entropy of tokens, causal or masked, and of the labels of texts and tokens."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxlm.core.axes import free_axes
from jaxlm.core.types import CONTEXT_AXIS, Array, Batch, Params, PyTree, Term, Terms
from jaxlm.losses.tokens import chunked_token_nll, masked_sum, token_nll, z_loss
from jaxlm.models.api import Model
from jaxlm.models.heads import TaskModel
from jaxlm.train.step import Objective


def num_tokens(batch: Batch) -> Array:
    """Tokens of a batch that are not padding, f32 scalar."""
    segment_ids = batch.get("segment_ids")
    if segment_ids is None:
        return jnp.asarray(batch["tokens"].size, jnp.float32)
    return jnp.sum(segment_ids != 0, dtype=jnp.float32)


def model_counts(term_names: Sequence[str], batch: Batch) -> dict[str, Array]:
    """Counts of the terms that a model adds itself (``Model.term_names``): the tokens that are not padding."""
    return dict.fromkeys(term_names, num_tokens(batch))


def causal_objective(
    model: Model, *, z_loss_coef: float = 0.0, carried: bool = False, loss_chunk: int | None = None
) -> Objective:
    """Mean cross-entropy of the counted targets in nats, plus ``z_loss_coef`` times the mean squared log-normaliser,
    plus the terms that the model adds itself (a router's balance: a statistic of each microbatch, so accumulation
    alters it).

    The batch says what is predicted: the next token, or for an encoder the token itself at masked places
    (`data.masking`).

    ``carried``: the carry is the model's state after the batch before (``model.init_cache``), row by row; no gradient
    flows into it (truncated backpropagation through time).

    ``loss_chunk``: positions of each row whose logits exist at once; None = all.
    """

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        del frozen
        hidden = model.hidden(
            params,
            batch["tokens"],
            positions=batch.get("positions"),
            segment_ids=batch.get("segment_ids"),
            kv_cache=carry if carried else None,
            dropout_key=key,
        )
        short_way = model.token_nll(params, hidden.hidden_btd, batch["targets"]) if loss_chunk is None else None
        nll_bt, log_z_bt = short_way or chunked_token_nll(
            functools.partial(model.logits, params),
            hidden.hidden_btd,
            batch["targets"],
            loss_chunk,
            ways=free_axes().get(CONTEXT_AXIS, 1),
        )
        loss_mask = batch["loss_mask"]
        count = jnp.sum(loss_mask)
        out = {"nll": Term(masked_sum(nll_bt, loss_mask), count)}
        if z_loss_coef:
            out["z_loss"] = Term(masked_sum(z_loss(log_z_bt), loss_mask), count, z_loss_coef)
        return out | (hidden.terms or {}), hidden.kv_cache if carried else carry

    def counts(batch: Batch) -> dict[str, Array]:
        count = jnp.sum(batch["loss_mask"])
        out = {"nll": count, "z_loss": count} if z_loss_coef else {"nll": count}
        return out | model_counts(model.term_names, batch)

    return Objective(terms, counts, carry_rows=carried)


def task_objective(task: TaskModel) -> Objective:
    """What a task model learns from labels: mean cross-entropy in nats over texts (classify) or over words (tag), or
    mean squared error over texts (regress). ``loss_mask`` has the shape of ``labels``, [b] or [b, t]; 1 = counted."""

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        del frozen
        (outputs, own), labels = task.read_batch(params, batch, key), batch["labels"]
        if task.head.kind == "regress":
            name, losses = "squared_error", jnp.square(outputs - labels)
        else:
            name, losses = "nll", token_nll(outputs, labels)[0]
        return {name: Term(masked_sum(losses, batch["loss_mask"]), jnp.sum(batch["loss_mask"]))} | own, carry

    def counts(batch: Batch) -> dict[str, Array]:
        name = "squared_error" if task.head.kind == "regress" else "nll"
        return {name: jnp.sum(batch["loss_mask"])} | model_counts(task.term_names, batch)

    return Objective(terms, counts)


TEXT_TOKENS = "text_tokens"
"""Rows of plain text in a batch of something else, int32 [b, t + 1]."""


def with_text(objective: Objective, model: Model, coef: float, *, loss_chunk: int | None = None) -> Objective:
    """Another objective and ``coef`` times the cross-entropy of the plain text that stands beside in the batch
    (``TEXT_TOKENS``), term ``text``, with the terms that the model adds there (``text_router_z``...): what a model is
    tuned to must not cost it what it knows of text (PPO-ptx, Ouyang et al. 2022)."""
    of_text = causal_objective(model, loss_chunk=loss_chunk)

    def rows(batch: Batch) -> Batch:
        tokens = batch[TEXT_TOKENS]
        return {
            "tokens": tokens[:, :-1],
            "targets": tokens[:, 1:],
            "loss_mask": jnp.ones_like(tokens[:, 1:], jnp.float32),
        }

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        found, carry = objective.terms(params, frozen, carry, batch, key)
        text, _ = of_text.terms(params, frozen, None, rows(batch), jax.random.fold_in(key, 1))
        return found | {_named(name): term._replace(weight=coef * term.weight) for name, term in text.items()}, carry

    def counts(batch: Batch) -> dict[str, Array]:
        return objective.counts(batch) | {_named(name): count for name, count in of_text.counts(rows(batch)).items()}

    def _named(name: str) -> str:
        return "text" if name == "nll" else f"text_{name}"

    return Objective(terms, counts, objective.carry_rows)
