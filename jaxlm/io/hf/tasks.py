"""A fine-tuned run's head as one of Hugging Face's, where there is the same one: BERT's, for texts and for tokens."""

from typing import Any, NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.io.hf.families import BERT_CLASSIFY, BERT_TAG, Family
from jaxlm.models.families import ModelConfig
from jaxlm.models.heads import HeadConfig

_INSTEAD = "export the base, or predict with jaxlm.load"


class TaskForm(NamedTuple):
    """How a task is written there."""

    head: HeadConfig
    """Ours."""
    family: Family
    settings: dict[str, Any]
    """What config.json says of it."""


def write_task(task: dict[str, Any], config: ModelConfig) -> TaskForm:
    """The form of a run's task, ``config.task`` as it was written down.

    Raises UserError, with what can be done instead, where their models have no such head.
    """
    labels = task.get("labels") or []
    try:
        head = HeadConfig(task["kind"], max(1, len(labels)), task.get("pooling") or "first")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"config.task of the run cannot be read: {error}") from error
    if config.family != "encoder":
        raise UserError(
            f"a {config.family} fine-tuned for a task is not written: its head has a bias, and those of Hugging Face's "
            f"have none: {_INSTEAD}"
        )
    names = [str(label) for label in labels] or ["LABEL_0"]
    settings = {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
        "classifier_dropout": task.get("head_dropout"),
    }
    if head.kind == "tag":
        return TaskForm(head, BERT_TAG, settings)
    if head.pooling != "first" or not getattr(config, "pooler", False):
        raise UserError(
            f"{BERT_CLASSIFY.architecture} reads the first token through a pooler, and this head reads "
            f"{'the first token' if head.pooling == 'first' else f'the {head.pooling}'} without one: fine-tune with "
            f"task.pooling='first' a model with pooler=True, or {_INSTEAD}"
        )
    kind = "regression" if head.kind == "regress" else "single_label_classification"
    return TaskForm(head, BERT_CLASSIFY, settings | {"problem_type": kind})
