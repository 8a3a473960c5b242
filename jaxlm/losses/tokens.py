"""Next-token cross-entropy and z-loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxlm.core.types import Array


def token_nll(logits_btv: Array, targets_bt: Array) -> tuple[Array, Array]:
    """Negative log-likelihood of each target and the log-normaliser, nats, both [b, t] in f32.

    The target's logit is picked by comparing with an iota rather than by a gather: the gradient then stays one fused
    softmax minus one-hot (no scatter), and a vocabulary sharded over the mesh needs no collective but the two sums.
    """
    logits_btv = logits_btv.astype(jnp.float32)
    log_z_bt = jax.nn.logsumexp(logits_btv, axis=-1)
    is_target_btv = jax.lax.broadcasted_iota(jnp.int32, logits_btv.shape, logits_btv.ndim - 1) == targets_bt[..., None]
    chosen_bt = jnp.sum(jnp.where(is_target_btv, logits_btv, 0.0), axis=-1)
    return log_z_bt - chosen_bt, log_z_bt


def chunked_token_nll(
    logits_fn: Callable[[Array], Array], hidden_btd: Array, targets_bt: Array, chunk: int | None, *, ways: int = 1
) -> tuple[Array, Array]:
    """``token_nll(logits_fn(hidden_btd), targets_bt)``, with the logits of ``chunk`` positions of each row at a time.

    The backward pass works each chunk's logits out again, so [b, t, v] is never held. Rows stay whole: a batch split
    over a mesh stays split. ``ways``: devices that each hold a part of every row; a chunk then takes as many positions
    from each part, so that none is idle. None, or a chunk of a whole row: all at once.
    """
    nll_bt, log_z_bt = in_chunks(
        lambda hidden, targets: token_nll(logits_fn(hidden), targets), (hidden_btd, targets_bt), chunk, ways=ways
    )
    return nll_bt, log_z_bt


def in_chunks(
    fn: Callable[..., tuple[Array, ...]], arrays: tuple[Array, ...], chunk: int | None, *, ways: int = 1
) -> tuple[Array, ...]:
    """``fn(*arrays)`` of arrays [b, t, ...], which gives arrays [b, t], by ``chunk`` positions of each row at a time;
    what lies between is worked out again in the backward pass. None, or a chunk of a whole row: all at once. ``ways``:
    see `chunked_token_nll`."""
    b, t = arrays[0].shape[:2]
    if chunk is None or chunk >= t:
        return fn(*arrays)
    if ways > 1 and t % ways == 0:
        return _of_parts(fn, arrays, -(-chunk // ways), ways)

    def cut(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, -t % chunk), *((0, 0),) * (x.ndim - 2)))
        return x.reshape(b, -1, chunk, *x.shape[2:]).swapaxes(0, 1)

    found = _by_chunks(fn, tuple(map(cut, arrays)))
    return tuple(x_cbt.swapaxes(0, 1).reshape(b, -1)[:, :t] for x_cbt in found)


def _of_parts(
    fn: Callable[..., tuple[Array, ...]], arrays: tuple[Array, ...], chunk: int, ways: int
) -> tuple[Array, ...]:
    """``chunk`` positions of each of the ``ways`` parts at a time: an axis of parts stays beside the one of rows."""
    b, t = arrays[0].shape[:2]

    def cut(x: Array) -> Array:
        x_bps = x.reshape(b, ways, -1, *x.shape[2:])
        x_bps = jnp.pad(x_bps, ((0, 0), (0, 0), (0, -(t // ways) % chunk), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x_bps.reshape(b, ways, -1, chunk, *x.shape[2:]), 2, 0)

    found = _by_chunks(fn, tuple(map(cut, arrays)))
    return tuple(jnp.moveaxis(x, 0, 2).reshape(b, ways, -1)[:, :, : t // ways].reshape(b, t) for x in found)


def _by_chunks(fn: Callable[..., tuple[Array, ...]], arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """``fn`` of each entry of the first axis in turn, what it holds worked out again in the backward pass."""
    of_chunk = jax.checkpoint(fn, prevent_cse=False)  # inside the loop nothing can be merged
    return jax.lax.map(lambda chunk: of_chunk(*chunk), arrays)


def masked_sum(values_bt: Array, loss_mask_bt: Array) -> Array:
    """Sum over counted positions. A masked position adds exactly 0, even if its value is not finite."""
    return jnp.sum(jnp.where(loss_mask_bt > 0, values_bt * loss_mask_bt, 0.0))


def z_loss(log_z_bt: Array) -> Array:
    """log(Z)^2 for each token, [b, t]: keeps logits from drifting (Chowdhery et al. 2022, PaLM, section 5)."""
    return jnp.square(log_z_bt)
