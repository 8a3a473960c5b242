"""LSTM layers by cuDNN, on an NVIDIA GPU: products and gates of all steps in one call, in place of a scan.

A scan of XLA's starts a handful of programs a step and layer, which on a GPU take longer than what they compute.
"""

import jax.numpy as jnp

from jaxlm.core.types import Array

State = dict[str, Array]


def cudnn_missing() -> str | None:
    """None where JAX has cuDNN's recurrent layers, else why it has not."""
    try:
        from jax.experimental import rnn
    except ImportError as error:
        return str(error)
    has = hasattr(rnn.gpu_rnn, "compute_rnn_workspace_reserve_space_sizes")  # set where a plugin brings them
    return None if has else "this JAX has no plugin with cuDNN's recurrent layers"


def pack_lstm(input_dg: Array, bias_g: Array, kernel_dg: Array) -> Array:
    """A layer's weights as cuDNN reads them, f32 [n]: W and U with outputs first, then the biases of both; the gates
    i f g o lie as ours do. ``h U`` has no bias of its own."""
    parts = (input_dg.T, kernel_dg.T, bias_g, jnp.zeros_like(bias_g))
    return jnp.concatenate([part.astype(jnp.float32).ravel() for part in parts])


def cudnn_lstm(x_tbd: Array, input_dg: Array, bias_g: Array, kernel_dg: Array, state: State) -> tuple[Array, State]:
    """``h`` at every step, f32 [t, b, d], and the state after the last: `nn.recurrent.unroll` of ``x W + b``.

    No resets inside. Operands are widened to f32; cuDNN multiplies them in TF32, which holds bfloat16's without loss,
    or in f32 where ``jax_default_matmul_precision`` asks for it.
    """
    from jax.experimental import rnn  # needed where it is chosen alone

    t, b, d = x_tbd.shape
    width = kernel_dg.shape[0]
    weights = pack_lstm(input_dg, bias_g, kernel_dg)
    rows = x_tbd.swapaxes(0, 1).astype(jnp.float32)
    lengths = jnp.full(b, t, jnp.int32)
    h_btd, h, c = rnn.lstm(rows, state["h"][None], state["c"][None], weights, lengths, d, width, 1, 0.0, False)
    return h_btd.swapaxes(0, 1), {"h": h[0], "c": c[0]}
