"""Rollouts on the mesh: answers are drawn, read by trainer and reference, judged, and learnt from."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.core.errors import UserError
from jaxlm.core.keys import Purpose
from jaxlm.core.types import Array, Batch, Params
from jaxlm.data.batches import DataState
from jaxlm.generate.decode import Generated
from jaxlm.generate.rollout import rollout_keys, sample_answers, training_rows
from jaxlm.io.agree import on_first_process
from jaxlm.io.loader import spread
from jaxlm.models.api import Model
from jaxlm.models.decoder_inference import inference_config, inference_params
from jaxlm.models.families import for_inference, for_platform, make_model
from jaxlm.models.heads import TaskModel
from jaxlm.run.align.judge import row_rewards
from jaxlm.run.align.ppo_data import Prepared, PromptRows
from jaxlm.run.align.reward_functions import Answer, answer_text, call_function
from jaxlm.run.align.reward_models import judge_on
from jaxlm.run.collector import Collected
from jaxlm.run.completion import fetch
from jaxlm.run.cpu_kernels import kernel_missing
from jaxlm.run.interval import Figures
from jaxlm.run.setup import batch_sharding, place_params
from jaxlm.sharding.mesh import batch_ways
from jaxlm.train.collapse import CollapseState, look
from jaxlm.train.policy_objectives import split_critic
from jaxlm.train.rollouts import learn_from, make_score_rows
from jaxlm.train.state import TrainState


class Judged(NamedTuple):
    """Answers with all that is known of them."""

    rows: Batch
    """Of `make_score_rows`, on the mesh."""
    answers: list[Answer]
    scores: dict[str, np.ndarray]
    """Component -> f32 [b]."""
    total_b: np.ndarray
    """Their weighted sum."""
    truncated_b: np.ndarray
    num_tokens: int
    seconds: float
    """Of drawing."""


class Actor:
    """Draws and judges answers, as many as a rollout has, by programs that are compiled once.

    Args:
      model: as it is trained on this mesh; ``critic`` likewise, or None.
      ref_params: of the reference, on the mesh.
    """

    def __init__(
        self, prepared: Prepared, mesh: Mesh, model: Model, critic: TaskModel | None, ref_params: Params
    ) -> None:
        config = prepared.config
        self.prepared, self.config, self.mesh, self.ref_params = prepared, config, mesh, ref_params
        shape = prepared.base.model
        platform, pad_id = mesh.devices.flat[0].platform, prepared.tokenizer.pad_id
        if mesh.devices.size == 1:
            self._lay_out = jax.jit(functools.partial(inference_params, shape))
            written = make_model(for_platform(inference_config(shape), platform, kernel_missing=kernel_missing))
        else:  # parameters are used as they lie
            self._lay_out = lambda params: params
            written = make_model(for_inference(shape, platform, kernel_missing=kernel_missing))

        def sample(
            params: Params, prompts: Batch, rollout: Array, row_b: Array, purpose: Purpose, heat: float, group: int
        ) -> Any:
            return sample_answers(
                written,
                params,
                prompts,
                rollout_keys(config.seed, rollout, row_b, purpose),
                max_new_tokens=config.rollout.max_new_tokens,
                temperature=heat,
                stop_ids=prepared.base.form.answer_ends,
                pad_id=pad_id,
                num_answers=group,
            )

        num_parts = config.num_rows // config.microbatch_size
        score = make_score_rows(model, critic, temperature=config.rollout.temperature, num_parts=num_parts)

        def read(params: Params, critic_params: Params, ref: Params, prompts: Batch, generated: Generated) -> Batch:
            return score(params, critic_params, ref, training_rows(prompts, generated, pad_id=pad_id))

        self._rows_sharding = batch_sharding(mesh)
        self._sample = jax.jit(sample, static_argnames=("purpose", "heat", "group"))
        self._read = jax.jit(read, out_shardings=self._rows_sharding)
        self._models: dict[str, tuple[Callable[..., Array], Params]] = {}
        everywhere = NamedSharding(mesh, PartitionSpec())
        for name, opened in prepared.reward_models.items():
            judge = judge_on(opened, mesh, config.mesh.activations)
            params = place_params(opened.params, judge.task.rules, mesh)
            self._models[name] = (jax.jit(row_rewards(judge), out_shardings=everywhere), params)

    def judge(
        self,
        params: Params,
        prompts: PromptRows,
        rows: np.ndarray,
        number: int,
        *,
        group: int = 1,
        purpose: Purpose = Purpose.ROLLOUT,
        temperature: float | None = None,
    ) -> Judged:
        """``group`` answers to each of the prompts ``rows`` (in all as many as a rollout has), those to one prompt side
        by side, drawn by the keys of ``number``.

        Raises UserError where a reward cannot be had.
        """
        config, actor_params = self.config, split_critic(params)
        heat = config.rollout.temperature if temperature is None else temperature
        arrays = prompts.arrays(rows)
        rows = np.repeat(rows, group)
        with jax.set_mesh(self.mesh):
            given = {name: spread(array.repeat(group, axis=0), self._rows_sharding) for name, array in arrays.items()}
            began = time.perf_counter()
            generated = self._draw(self._lay_out(actor_params[0]), arrays, number, purpose, heat, group)
            jax.block_until_ready(generated.tokens_bn)
            seconds = time.perf_counter() - began
            read = self._read(*actor_params, self.ref_params, given, generated)
            drawn = fetch(generated)
            by_model = {name: fn(weights, read) for name, (fn, weights) in self._models.items()}
        answers = self._texts(prompts, rows, drawn)
        scores = self._scores(answers, {name: np.asarray(values) for name, values in by_model.items()})
        weights = {reward.name: reward.weight for reward in config.rewards}
        total_b = sum((weights[name] * values.astype(np.float64) for name, values in scores.items()), start=0.0)
        total_b = np.asarray(total_b, np.float32)
        num_tokens = int(np.sum(drawn.lengths_b))
        return Judged(read, answers, scores, total_b, ~np.asarray(drawn.stopped_b), num_tokens, seconds)

    def _draw(
        self, params: Params, arrays: dict[str, np.ndarray], number: int, purpose: Purpose, heat: float, group: int
    ) -> Generated:
        """The answers, ``rows_at_once`` at a time."""
        size, parts = self.config.rows_at_once, []
        if size // group % batch_ways(self.mesh):  # too few prompts to share out: each answer reads its own
            arrays, group = {name: array.repeat(group, axis=0) for name, array in arrays.items()}, 1
        for first in range(0, self.config.num_rows, size):
            some = slice(first // group, (first + size) // group)
            part = {name: spread(array[some], self._rows_sharding) for name, array in arrays.items()}
            row_b = spread(np.arange(first, first + size, dtype=np.int32), self._rows_sharding)
            parts.append(self._sample(params, part, np.int32(number), row_b, purpose, heat, group))
        return parts[0] if len(parts) == 1 else jax.tree.map(lambda *each: jnp.concatenate(each), *parts)

    def _texts(self, prompts: PromptRows, rows: np.ndarray, drawn: Generated) -> list[Answer]:
        out = []
        for i, row in enumerate(rows):
            prompt, ids = prompts.prompts[row], prompts.ids[row]
            text = answer_text(self.prepared.base.form, ids, drawn.tokens_bn[i, : drawn.lengths_b[i]].tolist())
            out.append(Answer(prompt.messages[-1].content, text, prompt.record, prompt.where))
        return out

    def _scores(self, answers: Sequence[Answer], by_model: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every component, in the order of the config."""

        def by_function() -> dict[str, list[float]]:
            return {
                reward.name: call_function(
                    self.prepared.functions[reward.name], answers, name=reward.name, time_limit=reward.time_limit
                )
                for reward in self.config.rewards
                if reward.function is not None
            }

        called = on_first_process("rewards", by_function)
        out = {}
        for reward in self.config.rewards:
            values = by_model.get(reward.name, called.get(reward.name))
            out[reward.name] = np.asarray(values, np.float32)
            if not np.isfinite(out[reward.name]).all():
                at = int(np.argmin(np.isfinite(out[reward.name])))
                raise UserError(
                    f"reward {reward.name!r} ({reward.run}) is not finite for an answer to {answers[at].where}: "
                    "look at the reward model, or its compute_dtype"
                )
        return out


class RolloutCollector:
    """Rollouts for the loop (`run.collector.Collector`)."""

    def __init__(self, actor: Actor, shardings: Any) -> None:
        """``shardings``: how the carry of the state lies."""
        self.actor, config = actor, actor.config
        learn = functools.partial(
            learn_from,
            algorithm=config.algorithm,
            group_size=config.group_size,
            config=config.advantages,
            kl=config.kl,
        )
        everywhere = NamedSharding(actor.mesh, PartitionSpec())
        self._everywhere = everywhere
        self._learn = jax.jit(learn, out_shardings=(shardings["rollout"], everywhere, everywhere))

    def due(self, data_state: DataState) -> bool:
        return data_state.cursor % self.actor.config.steps_per_rollout == 0

    def collect(self, state: TrainState, data_state: DataState) -> Collected:
        actor, config = self.actor, self.actor.config
        number, prompts = data_state.cursor // config.steps_per_rollout, actor.prepared.train
        chosen = prompts.chosen(number, config.rollout.num_prompts, config.seed)
        judged = actor.judge(state.params, prompts, chosen, number, group=config.group_size)
        sharding = batch_sharding(actor.mesh, 1)
        with jax.set_mesh(actor.mesh):
            buffer, kl_coef, on_device = self._learn(
                judged.rows,
                spread(judged.total_b, sharding),
                spread(judged.truncated_b, sharding),
                state.carry["kl_coef"],
            )
        found = {name: float(value) for name, value in jax.device_get(on_device).items()}
        watch, diagnosis = look(found, CollapseState.from_arrays(jax.device_get(state.carry["watch"])), config.collapse)
        carry = {
            "kl_coef": kl_coef,
            "rollout": buffer,
            "watch": {name: spread(np.asarray(value), self._everywhere) for name, value in watch.to_arrays().items()},
        }
        figures: Figures = {f"rollout/{name}": value for name, value in found.items()}
        figures |= {f"rollout/score/{name}": float(np.mean(values)) for name, values in judged.scores.items()}
        figures["perf/rollout_tokens_per_second"] = judged.num_tokens / judged.seconds
        state = dataclasses.replace(state, carry=carry)
        return Collected(state, figures, self._samples(judged, number), diagnosis)

    def _samples(self, judged: Judged, number: int) -> list[dict[str, Any]]:
        config = self.actor.config
        rows = range(0, config.num_rows, config.group_size)[: config.rollout.num_samples]
        return [
            {
                "prompt": judged.answers[row].prompt,
                "completion": judged.answers[row].text,
                "rollout": number,
                "reward": float(judged.total_b[row]),
                "scores": {name: float(values[row]) for name, values in judged.scores.items()},
                "truncated": bool(judged.truncated_b[row]),
            }
            for row in rows
        ]


def make_evaluator(actor: Actor) -> Callable[[Params], Figures]:
    """Every held-out prompt answered once: rewards by component, length, and the KL where answers are the policy's own
    draws. Nothing without held-out prompts."""
    config, prompts = actor.config, actor.prepared.validation
    if prompts is None:
        return lambda params: {}

    def evaluate(params: Params) -> Figures:
        count, size = len(prompts.prompts), config.num_rows
        of_rows: dict[str, list[np.ndarray]] = {}
        for number, first in enumerate(range(0, count, size)):
            rows = np.arange(first, first + size)
            kept = rows < count  # the last rollout is filled up with prompts that are not counted
            judged = actor.judge(
                params,
                prompts,
                np.minimum(rows, count - 1),
                number,
                purpose=Purpose.SAMPLE,
                temperature=config.eval_temperature,
            )
            host = fetch({name: judged.rows[name] for name in ("old_logprobs", "ref_logprobs", "loss_mask")})
            own = {
                "reward": judged.total_b,
                "truncated": judged.truncated_b.astype(np.float32),
                "length": host["loss_mask"].sum(axis=1),
                "kl": ((host["old_logprobs"] - host["ref_logprobs"]) * host["loss_mask"]).sum(axis=1),
            } | {f"score/{name}": values for name, values in judged.scores.items()}
            for name, values in own.items():
                of_rows.setdefault(name, []).append(values[kept])
        found: Figures = {
            f"eval/{name}": float(np.mean(np.concatenate(parts), dtype=np.float64)) for name, parts in of_rows.items()
        }
        if config.eval_temperature not in (None, config.rollout.temperature):
            del found["eval/kl"]  # a mean over other answers than the policy's own is no KL
        return found

    return evaluate
