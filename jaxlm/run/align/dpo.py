"""``jaxlm dpo CONFIG``: a model that answers is fitted to what people prefer. The same command resumes it.

The loop, the step, checkpoints and the run directory are those of pretraining (`jaxlm.run.training`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm.core.types import Batch, Params
from jaxlm.data.batches import DataState
from jaxlm.data.examples import ExamplePlan
from jaxlm.io.agree import on_first_process, say
from jaxlm.io.loader import example_batches
from jaxlm.io.run_dir import RunDir
from jaxlm.run.align.answers import answers_of
from jaxlm.run.align.assembled import AlignRun, example_shapes, make_terms_evaluator, rows_sharding
from jaxlm.run.align.base import open_chat_base
from jaxlm.run.align.dpo_config import DpoConfig
from jaxlm.run.align.dpo_data import Preferences, prepare_preferences
from jaxlm.run.align.policy import Policy, in_int8, make_policy_model
from jaxlm.run.align.records import open_fields
from jaxlm.run.align.reference import compute_logprobs, keep_logprobs, read_logprobs, reference_key
from jaxlm.run.interval import Figures
from jaxlm.run.setup import place_params
from jaxlm.run.training import Sample
from jaxlm.run.tuning import tune, tuning_command
from jaxlm.train.kto_objective import kto_objective
from jaxlm.train.objectives import TEXT_TOKENS, with_text
from jaxlm.train.preference_objectives import WITH_REFERENCE, pair_objective
from jaxlm.train.step import Objective


def main(argv: list[str]) -> int:
    """`run.tuning.tuning_command` of this config."""
    return tuning_command(argv, DpoConfig, dpo, "dpo")


def dpo(
    config: DpoConfig,
    run_dir: str | Path,
    *,
    profile_steps: tuple[int, int] | None = None,
    dry_run: bool = False,
    may_change: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Train as ``config`` says in ``run_dir``, from its last checkpoint if it has one; returns the final figures:
    ``eval/loss``, ``eval/accuracy`` and ``eval/reward_margin`` on held-out pairs.

    Raises UserError for bad input, before anything expensive has run. ``dry_run`` stops there. ``may_change``: further
    fields in which a run that has begun may differ.
    """
    unsaid = [] if config.reference_step is not None else ["reference_step"]
    return tune(
        config,
        run_dir,
        Dpo,
        prepare=prepare_preferences,
        open_fields=[*open_fields(config), *unsaid],
        may_change=(*may_change, "data.train", "data.validation"),  # what is in them is compared, not where they lie
        profile_steps=profile_steps,
        dry_run=dry_run,
    )


class Dpo(AlignRun):
    """The parts of one run (`run.tuning.TuningRun`). Making it compiles nothing."""

    def __init__(self, data: Preferences, mesh: Mesh):
        config: DpoConfig = data.config
        assert config.num_steps is not None
        self.data, arrays = data, data.train.arrays
        self.model = make_policy_model(config.model, config, mesh)
        policy = Policy(self.model, data.base.params, config, config.num_steps, mesh)
        width = arrays["tokens"].shape[1] * arrays["tokens"].shape[2]
        width += arrays[TEXT_TOKENS].shape[1] - 1 if TEXT_TOKENS in arrays else 0
        super().__init__(config, data.base, policy, mesh, width)
        self.referred = config.pairs.loss in WITH_REFERENCE
        self.parts = {"train": dict(arrays), "validation": dict(data.validation.arrays)}
        if self.referred:  # numbers come with make_ready; the shapes are known
            for part in self.parts.values():
                part["ref_logprobs"] = np.zeros(part["answer_mask"].shape, np.float32)
        self.plan = ExamplePlan(self.parts["train"], config.global_batch_size, config.seed)
        self.eval_plan = ExamplePlan(self.parts["validation"], self.eval_rows, shuffle=False, num_epochs=1)

    def describe(self) -> str:
        """One line: loss, parameters, where they come from, steps."""
        config = self.config
        epochs = self.num_steps * config.global_batch_size / self.plan.num_rows
        return (
            f"{config.pairs.loss}: {self.policy.describe()}; {self.num_steps} steps of {config.global_batch_size} "
            f"prompts ({epochs:.1f} epochs)"
        )

    def make_ready(self, directory: RunDir) -> None:
        """The template, and the reference's log-probabilities: computed unless the run directory has them."""
        super().make_ready(directory)
        if not self.referred:
            return
        config = self.config
        run, step = (
            (config.base, config.base_step) if config.reference is None else (config.reference, config.reference_step)
        )
        key = reference_key(self.data.fingerprint, run, step, int8=self._refers_in_int8)
        found = read_logprobs(directory.path, key)
        if found is None:
            say(f"log-probabilities of the reference {run} ...")
            found = self._refer()
            on_first_process("reference", lambda: keep_logprobs(directory.path, key, found))
        for name, part in self.parts.items():
            part["ref_logprobs"][:] = found[name]

    @property
    def _refers_in_int8(self) -> bool:
        """The reference is the base beside the adapters, as the policy computes with it."""
        return self.config.reference is None and self.config.tune == "lora_int8"

    def _refer(self) -> dict[str, np.ndarray]:
        """The reference's log-probabilities of all answers."""
        config = self.config
        if config.reference is not None:
            base = open_chat_base(config.reference, config.reference_step)
        else:
            base = self.base
            if base.params is None:  # the run goes on, and its file is gone
                base = open_chat_base(config.base, config.base_step)
        model = make_policy_model(base.model, config, self.mesh)
        assert base.params is not None
        params = place_params(base.params, model.rules, self.mesh)
        if self._refers_in_int8:
            params = in_int8(params, model.rules, self.mesh)
        return {
            name: compute_logprobs(
                model, params, self.data_arrays(name), self.eval_rows, self.mesh, loss_chunk=config.loss_chunk
            )
            for name in self.parts
        }

    def data_arrays(self, name: str) -> dict[str, np.ndarray]:
        """The rows of ``train`` or ``validation`` as they are read by a model."""
        return {key: self.parts[name][key] for key in ("tokens", "targets", "segment_ids", "loss_mask")}

    def objective(self) -> Objective:
        """The loss of pairs, or of judged answers, and that of the text beside."""
        config, text = self.config, self.config.text
        found = self.preferences()
        return with_text(found, self.model, text.coef, loss_chunk=config.loss_chunk) if text.coef else found

    def preferences(self) -> Objective:
        """The loss of pairs, or of judged answers."""
        make = kto_objective if self.config.pairs.loss == "kto" else pair_objective
        return make(self.model, self.config.pairs, loss_chunk=self.config.loss_chunk)

    def abstract_batch(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of a batch, sharded over the mesh."""
        return example_shapes(self.plan, rows, self.mesh)

    @contextmanager
    def batches(self, state: DataState) -> Iterator[Iterator[tuple[int, Batch]]]:
        """The training batches from where ``state`` stands."""
        yield example_batches(self.plan, state, rows_sharding(self.mesh, 1))

    def sampler(self) -> Callable[[Params], list[Sample]]:
        """Answers to held-out prompts, or to those of the config."""
        return answers_of(self.policy, self.base, self.data.prompts, self.config)

    def evaluator(self) -> Callable[[Params], Figures]:
        """All terms of the loss over the held-out pairs; KTO's reference point is that of an evaluation batch."""
        return make_terms_evaluator(self, self.preferences(), self.eval_plan)
