"""A process-reward model: is each step of an answer right?"""

import jax.numpy as jnp

from jaxlm.core.types import Array, Batch, Params, PyTree, Term, Terms
from jaxlm.losses.preference import step_reward_loss
from jaxlm.losses.tokens import masked_sum
from jaxlm.models.heads import TaskModel
from jaxlm.train.objectives import model_counts
from jaxlm.train.step import Objective


def step_reward_objective(task: TaskModel) -> Objective:
    """The mean cross-entropy of "this step is right" over steps, nats (Lightman et al. 2023). Batches are those of
    `data.step_labels`. ``task``: a model with a head of kind "tag" and one output. ``accuracy`` is only watched."""

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        del frozen
        outputs, own = task.read_batch(params, batch, key)
        logits_bt, labels_bt, mask_bt = outputs[..., 0], batch["labels"], batch["loss_mask"]
        count = jnp.sum(mask_bt)
        right_bt = ((logits_bt > 0) == (labels_bt > 0)).astype(jnp.float32)
        return {
            "steps": Term(masked_sum(step_reward_loss(logits_bt, labels_bt), mask_bt), count),
            "accuracy": Term(masked_sum(right_bt, mask_bt), count, 0.0),
        } | own, carry

    def counts(batch: Batch) -> dict[str, Array]:
        found = dict.fromkeys(("steps", "accuracy"), jnp.sum(batch["loss_mask"]))
        return found | model_counts(task.term_names, batch)

    return Objective(terms, counts)
