"""The compiled functions of a causal model, kept by config, and the forms that its parameters take for them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.core.errors import UserError
from jaxlm.core.types import Array, Params
from jaxlm.evals.perplexity import target_logprobs
from jaxlm.evals.shared_contexts import score_behind
from jaxlm.generate.decode import DecodeState, decode, prefill
from jaxlm.generate.decode_row import covers, decode_row
from jaxlm.models.api import Model
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.decoder_inference import Weights, inference_config, inference_params
from jaxlm.models.decoder_kernel import decode_kernel, kernel_weights, params_of_kernel
from jaxlm.models.families import ModelConfig, for_inference, for_platform, make_model
from jaxlm.nn.triton_decode import DecodeKernel
from jaxlm.run.cpu_kernels import kernel_missing


class Programs(NamedTuple):
    """A causal model's pure functions, jitted."""

    keep: Callable[[Params], Params]
    """Trained parameters as ``logits`` and ``logprobs`` take them."""
    prepare: Callable[[Params], Params]
    """Those as ``prefill`` and ``decode`` take them: worth making once, before many tokens."""
    logits: Callable[..., Array]
    """``(params, tokens_bt) -> f32 [b, t, v]``."""
    logprobs: Callable[..., Array]
    """``(params, tokens_bt, targets_bt) -> f32 [b, t]``."""
    first_choices: Callable[..., Array]
    """The same with, beside each log-probability, 1 where the target is the model's first choice, f32 [b, t, 2]."""
    behind: Callable[..., Array] | None
    """``(prepared params, contexts, continuations) -> f32 [n, s, 2]``, of a decoder (`evals.shared_contexts`)."""
    prefill: Callable[..., DecodeState]
    decode: Callable[..., DecodeState]


class _Form(NamedTuple):
    """How parameters are kept for generation."""

    model: Model
    lay_out: Callable[[Params], Any]
    """Trained parameters -> that form."""
    as_params: Callable[[Any], Params]
    """That form -> the parameters of ``model``."""
    decode: Callable[..., DecodeState]
    """``generate.decode.decode`` of that form, compiled."""


@functools.lru_cache(maxsize=8)
def programs(config: ModelConfig, weights: Weights = "trained", *, spread: bool = False) -> Programs:
    """The programs of a config, kept: opening another checkpoint of a run compiles nothing again.

    ``spread``: the parameters lie over several devices. They are used as they lie then; else a decoder's are laid out
    anew for generation. Raises UserError for weights in a form that the model is not made for.
    """
    trained = make_model(for_inference(config, jax.default_backend(), kernel_missing=kernel_missing))
    if isinstance(config, DecoderConfig) and not spread:
        form = _for_generation(config, weights)
    elif weights == "trained":
        form = _Form(trained, _as_it_is, _as_it_is, _loop(trained, _as_it_is))
    else:
        raise UserError(f"weights={weights!r} is for a decoder on one device: leave it out")
    keeps_trained = weights != "int8"
    reader = trained if keeps_trained else form.model

    def logprobs(params: Params, tokens_bt: Array, targets_bt: Array) -> Array:
        return target_logprobs(reader, params, {"tokens": tokens_bt, "targets": targets_bt})[0]

    def first_choices(params: Params, tokens_bt: Array, targets_bt: Array) -> Array:
        logprobs_bt, first_bt = target_logprobs(reader, params, {"tokens": tokens_bt, "targets": targets_bt})
        return jnp.stack([logprobs_bt, first_bt.astype(jnp.float32)], axis=-1)

    def behind(prepared: Any, *asked: Any) -> Array:
        return score_behind(form.model, form.as_params(prepared), *asked)

    def start(prepared: Any, *args: Any, **options: Any) -> DecodeState:
        return prefill(form.model, form.as_params(prepared), *args, **options)

    return Programs(
        keep=_as_it_is if keeps_trained else form.lay_out,
        prepare=form.lay_out if keeps_trained else _as_it_is,
        logits=jax.jit(reader.apply_fn),
        logprobs=jax.jit(logprobs),
        first_choices=jax.jit(first_choices),
        behind=jax.jit(behind) if isinstance(config, DecoderConfig) else None,
        prefill=jax.jit(start, static_argnames=("max_new_tokens", "sampling", "stop_ids", "pad_id")),
        decode=form.decode,
    )


def _for_generation(config: DecoderConfig, weights: Weights) -> _Form:
    """Of a decoder on one device."""
    written = for_platform(inference_config(config), jax.default_backend(), kernel_missing=kernel_missing)
    model = make_model(written)
    if weights != "row":
        lay_out = jax.jit(functools.partial(inference_params, config, weights=weights))
        return _Form(model, lay_out, _as_it_is, _loop(model, _as_it_is))
    assert isinstance(written, DecoderConfig)
    as_params = functools.partial(params_of_kernel, config)
    by_loop = _loop(model, as_params)
    in_one = functools.partial(decode_row, kernel_of_row(written), config)
    by_kernel = jax.jit(in_one, static_argnames="stop_ids", donate_argnames="state")

    def decode_either(prepared: Any, *, state: DecodeState, sampling: Any, **options: Any) -> DecodeState:
        if covers(state, sampling):
            return by_kernel(prepared, state=state, **options)
        return by_loop(prepared, state=state, sampling=sampling, **options)

    lay_out = jax.jit(lambda params: kernel_weights(config, inference_params(config, params)))
    return _Form(model, lay_out, as_params, decode_either)


def _loop(model: Model, as_params: Callable[[Any], Params]) -> Callable[..., DecodeState]:
    """XLA's."""

    def go_on(prepared: Any, **options: Any) -> DecodeState:
        return decode(model, as_params(prepared), **options)

    return jax.jit(go_on, static_argnames=("sampling", "stop_ids"), donate_argnames="state")


def kernel_of_row(config: DecoderConfig) -> DecodeKernel:
    """The kernel that decodes one row of a decoder of ``inference_config``. Raises UserError where there is none."""
    if config.kernels not in ("triton", "triton_interpret"):
        raise UserError('weights="row" is for our kernel on one NVIDIA GPU, here are XLA\'s alone: leave it out')
    interpret = config.kernels == "triton_interpret"
    # Fewer multiprocessors than programs would hang: all must run at once.
    cut = {"warps": 1, "slots": 16} if interpret else {"programs": getattr(jax.devices()[0], "core_count", 132)}
    try:
        return decode_kernel(config, interpret=interpret, **cut)
    except ValueError as error:
        raise UserError(f'weights="row": {error}; leave it out') from error


def _as_it_is(params: Params) -> Params:
    return params
