"""A fine-tuned model behind the handle: labels of texts, pairs or words."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.core.types import Array
from jaxlm.io.config_json import decode_config
from jaxlm.models.families import for_inference, make_model
from jaxlm.models.heads import HeadConfig, TaskModel, make_task_model
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.run.finetune_config import TaskConfig
from jaxlm.run.finetune_data import encode_examples, head_config
from jaxlm.run.language_model import LanguageModel, check_counts
from jaxlm.run.opening import Opened
from jaxlm.text.tokenizer import Tokenizer


class Prediction(NamedTuple):
    """What the model says of one text, pair or word."""

    label: str | float
    """The likeliest class; where the task is to regress, the number."""
    probabilities: dict[str, float]
    """Of every class; empty for a number."""


@functools.lru_cache(maxsize=8)
def _outputs_fn(model_config: Any, head: HeadConfig) -> Any:
    task: TaskModel = make_task_model(
        make_model(for_inference(model_config, jax.default_backend(), kernel_missing=kernel_missing)),
        head,
    )
    return jax.jit(task.outputs)


class TunedModel(LanguageModel):
    """A task model with its tokenizer. It has labels to give, and neither likelihoods nor text."""

    def __init__(self, opened: Opened, tokenizer: Tokenizer, run_config: dict[str, Any]):
        self.config, self.params, self.step, self.is_ema = opened
        self.tokenizer, self.run_config = tokenizer, run_config
        self.task: TaskConfig = decode_config(TaskConfig, run_config["task"], where="config.task")
        self.family, self.context = f"fine-tuned {self.config.family}", self.task.seq_len

    def predict(self, texts: Sequence[Any], *, batch_size: int = 32) -> list[Any]:
        """A `Prediction` for each text, for each pair ``(text, text)``, or a list of them for each list of words.

        Texts longer than the task's ``seq_len`` are cut as in training. Raises UserError for what is no such text, and
        for words that do not fit.
        """
        check_counts(batch_size=batch_size)
        if isinstance(texts, str):
            raise UserError(f"texts={texts[:40]!r} is one string: pass a list of them")
        examples = [self._parts(text, number) for number, text in enumerate(texts)]
        out: list[Any] = []
        for first in range(0, len(examples), batch_size):
            part = examples[first : first + batch_size]
            rows = encode_examples(self.tokenizer, self.config, self.task, part)
            if self.task.kind == "tag" and rows.num_cut:
                raise UserError(f"a sentence has more than the {self.context} tokens that the model reads: cut it")
            outputs = np.asarray(self._run(rows.arrays, batch_size))[: len(part)]
            if self.task.kind == "tag":
                out += [self._predictions(row[at]) for row, at in zip(outputs, rows.first_token, strict=True)]
            else:
                out += self._predictions(outputs)
        return out

    def _parts(self, text: Any, number: int) -> tuple[str, ...]:
        parts = (text,) if isinstance(text, str) else tuple(text) if isinstance(text, list | tuple) else ()
        if self.task.kind == "tag":
            what, fits = "a list of words", bool(parts) and not isinstance(text, str)
        elif self.task.text_b is not None:
            what, fits = "a pair of texts", len(parts) == 2
        else:
            what, fits = "one text", isinstance(text, str)
        if not fits or not all(isinstance(part, str) for part in parts):
            raise UserError(f"texts[{number}] is not {what}, which this model was tuned on")
        return parts

    def _run(self, arrays: dict[str, np.ndarray], batch_size: int) -> Array:
        """One shape for all batches: padded to the task's length and the full batch."""
        rows, width = arrays["tokens"].shape
        pad = ((0, batch_size - rows), (0, self.task.seq_len - width))
        padded = {name: np.pad(array, pad) for name, array in arrays.items()}
        return _outputs_fn(self.config, head_config(self.config, self.task))(self.params, padded)

    def _predictions(self, outputs: np.ndarray) -> list[Prediction]:
        if self.task.kind == "regress":
            return [Prediction(float(value), {}) for value in outputs]
        odds = np.exp(outputs.astype(np.float64) - outputs.max(axis=-1, keepdims=True))
        shares = odds / odds.sum(axis=-1, keepdims=True)
        labels = self.task.labels
        return [Prediction(labels[int(p.argmax())], dict(zip(labels, p.tolist(), strict=True))) for p in shares]
