"""The position-wise MLP: gated (SwiGLU, GeGLU) or plain (GELU and its tanh form, ReLU^2)."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.core.types import Array
from jaxlm.nn.kernels import Kernels, uses_triton
from jaxlm.nn.linear import Linear, apply_together
from jaxlm.nn.quantized import Quantization
from jaxlm.nn.triton_gates import elementwise, gelu_by_erf, gelu_on_gpu

MlpKind = Literal["swiglu", "geglu", "gelu", "gelu_exact", "relu2", "none"]
"""``none``: layers of attention alone, without an MLP."""
GATED: tuple[MlpKind, ...] = ("swiglu", "geglu")


def gelu_tanh(x: Array) -> Array:
    """GELU by its tanh approximation (Hendrycks & Gimpel 2016), the form GPT-2 and Gemma were trained with."""
    return jax.nn.gelu(x, approximate=True)


def gelu_exact(x: Array) -> Array:
    """``x Phi(x)`` with the normal distribution function itself, as BERT was trained with."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


def relu_squared(x: Array) -> Array:
    """max(x, 0)^2 (So et al. 2021, Primer)."""
    return jnp.square(jax.nn.relu(x))


ACTIVATIONS = {"swiglu": jax.nn.silu, "geglu": gelu_tanh, "gelu": gelu_tanh}
ACTIVATIONS |= {"gelu_exact": gelu_exact, "relu2": relu_squared}


@functools.cache
def _inner(kind: MlpKind, interpret: bool) -> Callable[..., Array]:
    """``act(gate) * up`` or ``act(up)`` for a kernel; one object for each kind."""
    exact = gelu_by_erf if interpret else gelu_on_gpu
    act = exact if kind == "gelu_exact" else ACTIVATIONS[kind]
    return (lambda gate, up: act(gate) * up) if kind in GATED else act


class MLP(nn.Module):
    """``down(act(gate x) * up x)`` for the gated kinds (Shazeer 2020), ``down(act(up x))`` for the others."""

    kind: MlpKind
    width: int
    init_std: float
    down_init_std: float
    use_bias: bool
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    quantization: Quantization = "none"
    kernels: Kernels = "xla"

    @nn.compact
    def __call__(self, x_btd: Array) -> Array:
        def linear(name: str, features: int, std: float) -> Linear:
            return Linear(features, std, self.use_bias, self.dtype, self.param_dtype, self.quantization, name=name)

        act = ACTIVATIONS[self.kind]
        ours = uses_triton(self.kernels) and x_btd.shape[1] > 1  # one token: XLA reads parts of a joined product
        names = ("up", "gate") if self.kind in GATED else ("up",)
        up_btf, *gates = apply_together(
            [linear(name, self.width, self.init_std) for name in names], x_btd, join=not ours
        )
        if ours:
            interpret = self.kernels == "triton_interpret"
            inner_btf: Any = elementwise(_inner(self.kind, interpret), interpret, *gates, up_btf)
        else:
            inner_btf = act(gates[0]) * up_btf if gates else act(up_btf)
        return linear("down", x_btd.shape[-1], self.down_init_std)(inner_btf)
