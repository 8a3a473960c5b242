"""A mixture of experts in place of the MLP: each token goes to its ``top_k`` experts, and none is ever dropped.

Tokens are sorted by expert, and ``jax.lax.ragged_dot`` multiplies each run of them with its expert's kernels. On a mesh
with an ``expert`` axis each device holds some experts: the tokens of its expert group (of its own positions, where
``context`` splits rows) are gathered, and what its experts add to each is summed back over the group. Shapes stay
static: a device has room for all tokens of its group.
"""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxlm.core.axes import free_axes, taken_axes, taken_row_axes
from jaxlm.core.types import BATCH_AXES, CONTEXT_AXIS, Array
from jaxlm.nn.linear import KERNEL_SCALE, Linear, dequantize, is_unsharded, normal_init
from jaxlm.nn.mlp import ACTIVATIONS, GATED, MLP, MlpKind

EXPERT_AXIS, MODEL_AXIS = "expert", "model"


@dataclasses.dataclass(frozen=True)
class MoeConfig:
    """Experts and their router; each expert is an MLP of width ``mlp_dim``, without biases."""

    num_experts: int = 8
    top_k: int = 2
    """Experts that each token goes to."""
    renormalize: bool = True
    """Weights of a token's experts are a softmax over their logits alone (Mixtral; Qwen3-MoE's norm_topk_prob, which is
    the same number); False = their shares of the softmax over all experts."""
    shared_dim: int | None = None
    """Width of an MLP that every token goes through as well (DeepSeek-MoE); None = none."""
    balance_coef: float = 0.01
    """Weight of the load-balance loss (Fedus et al. 2021, eq. 4); 0 = off."""
    router_z_coef: float = 0.001
    """Weight of the router z-loss (Zoph et al. 2022, eq. 5); 0 = off."""

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(f"moe.top_k={self.top_k} must be from 1 to moe.num_experts={self.num_experts}")
        if self.shared_dim is not None and self.shared_dim < 1:
            raise ValueError(f"moe.shared_dim={self.shared_dim} must be at least 1: use None for no shared expert")
        for name in ("balance_coef", "router_z_coef"):
            if getattr(self, name) < 0:
                raise ValueError(f"moe.{name}={getattr(self, name)} is negative: give 0 or more")

    @property
    def coefs(self) -> dict[str, float]:
        """Name -> weight of each term that the router adds to the loss."""
        coefs = {"router_balance": self.balance_coef, "router_z": self.router_z_coef}
        return {name: coef for name, coef in coefs.items() if coef}


def router_sums(logits_bte: Array, chosen_btc: Array, counted_bt: Array | None) -> dict[str, Array]:
    """What the router's losses sum over tokens, f32 scalars; ``counted_bt`` None = every token counts.

    ``router_balance``: e times the sum over experts of (share of the assignments) x (mean probability), which is 1
    where both are even; times the number of tokens. A statistic of the whole group of tokens that is given.
    ``router_z``: log(Z)^2 of each token.
    """
    num_experts, top_k = logits_bte.shape[-1], chosen_btc.shape[-1]
    counted_bt = jnp.ones(logits_bte.shape[:2], jnp.float32) if counted_bt is None else counted_bt.astype(jnp.float32)
    tokens = jnp.sum(counted_bt)
    is_chosen_btce = chosen_btc[..., None] == jnp.arange(num_experts, dtype=chosen_btc.dtype)
    share_e = jnp.sum(jnp.where(is_chosen_btce, counted_bt[..., None, None], 0.0), axis=(0, 1, 2)) / top_k
    mean_e = jnp.sum(jax.nn.softmax(logits_bte, axis=-1) * counted_bt[..., None], axis=(0, 1))
    if taken_row_axes():  # other devices have other rows of the group; what is added here is the part of these
        share_e, tokens = jax.lax.psum((share_e, tokens), taken_row_axes())
    z_bt = jnp.square(jax.nn.logsumexp(logits_bte, axis=-1))
    return {
        "router_balance": num_experts * jnp.sum(share_e * mean_e) / jnp.maximum(tokens, 1.0),
        "router_z": jnp.sum(z_bt * counted_bt),
    }


def apply_experts(
    x_td: Array, chosen_tc: Array, weights_tc: Array, kernels: dict[str, Array], *, kind: MlpKind, partial: bool
) -> Array:
    """``sum over a token's experts of weight * expert(x)``, [t, d], for the experts 0 to e - 1 in ``kernels``.

    ``kernels``: up and, for gated kinds, gate [e, d, f]; down [e, f, d]. ``partial``: other numbers in ``chosen_tc``
    are experts elsewhere, which add nothing here.
    """
    (t, top_k), num_experts = chosen_tc.shape, kernels["down"].shape[0]
    expert_a = chosen_tc.reshape(-1)  # one entry an assignment
    if partial:
        expert_a = jnp.where((expert_a >= 0) & (expert_a < num_experts), expert_a, num_experts)
    order_a = jnp.argsort(expert_a, stable=True)
    sizes_e = jnp.sum(expert_a[:, None] == jnp.arange(num_experts, dtype=expert_a.dtype), axis=0, dtype=jnp.int32)

    def own(y: Array) -> Array:
        """Zero where no expert is: there ragged_dot need not write, and its gradient neither."""
        if not partial:
            return y
        return jnp.where(jnp.arange(t * top_k, dtype=jnp.int32)[:, None] < jnp.sum(sizes_e), y, jnp.zeros((), y.dtype))

    def product(y: Array, name: str) -> Array:
        return jax.lax.ragged_dot(y, kernels[name], sizes_e)

    act = ACTIVATIONS[kind]
    x_ad = own(x_td[order_a // top_k])
    up_af = product(x_ad, "up")
    inner_af = act(product(x_ad, "gate")) * up_af if kind in GATED else act(up_af)
    out_ad = own(product(own(inner_af), "down"))
    # Back into the order of the tokens, where a token's experts stand side by side.
    out_tcd = out_ad[jnp.argsort(order_a)].reshape(t, top_k, -1)
    return jnp.einsum("tcd,tc->td", out_tcd, weights_tc.astype(out_tcd.dtype))


def _on_mesh(x_btd: Array, chosen_btc: Array, weights_btc: Array, kernels: dict[str, Array], kind: MlpKind) -> Array:
    """``apply_experts`` with rows, experts and expert widths split over the mesh, each where it divides."""
    sizes = free_axes()
    num_experts, width, _ = kernels["down"].shape
    batch_axes = tuple(axis for axis in BATCH_AXES if sizes.get(axis, 1) > 1)
    batch_axes = batch_axes if x_btd.shape[0] % math.prod(sizes[axis] for axis in batch_axes) == 0 else ()

    def axis_for(axis: str, size: int) -> str | None:
        return axis if sizes.get(axis, 1) > 1 and size % sizes[axis] == 0 else None

    expert_axis, model_axis = axis_for(EXPERT_AXIS, num_experts), axis_for(MODEL_AXIS, width)
    gathered = expert_axis is not None and expert_axis in batch_axes

    def local(x_btd: Array, chosen_btc: Array, weights_btc: Array, kernels: dict[str, Array]) -> Array:
        if expert_axis is not None:
            if gathered:
                x_btd, chosen_btc, weights_btc = (
                    jax.lax.all_gather(y, expert_axis, axis=0, tiled=True) for y in (x_btd, chosen_btc, weights_btc)
                )
            chosen_btc = chosen_btc - jax.lax.axis_index(expert_axis) * kernels["down"].shape[0]
        b, t, d = x_btd.shape
        out_td = apply_experts(
            x_btd.reshape(b * t, d),
            chosen_btc.reshape(b * t, -1),
            weights_btc.reshape(b * t, -1),
            kernels,
            kind=kind,
            partial=expert_axis is not None,
        )
        out_btd = out_td.reshape(b, t, d)
        if model_axis is not None:
            out_btd = jax.lax.psum(out_btd, model_axis)
        if gathered:
            return jax.lax.psum_scatter(out_btd, expert_axis, scatter_dimension=0, tiled=True)
        return out_btd if expert_axis is None else jax.lax.psum(out_btd, expert_axis)

    rows = PartitionSpec(batch_axes or None, axis_for(CONTEXT_AXIS, x_btd.shape[1]), None)
    wide = PartitionSpec(expert_axis, None, model_axis)
    specs = {name: PartitionSpec(expert_axis, model_axis, None) if name == "down" else wide for name in kernels}
    sharded: Callable[..., Array] = jax.shard_map(
        local,
        in_specs=(rows, rows, rows, specs),
        out_specs=rows,
        axis_names=set(sizes),
        check_vma=not taken_axes(),  # a map within another one has no gradient with it (jax 0.10)
    )
    return sharded(x_btd, chosen_btc, weights_btc, kernels)


class Experts(nn.Module):
    """One kernel [in, out] for each of e experts, as one array [e, in, out]."""

    num_experts: int
    features: int
    init_std: float
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, in_features: int) -> Array:
        shape = (self.num_experts, in_features, self.features)
        kernel = self.param("kernel", normal_init(self.init_std), shape, self.param_dtype)
        return dequantize(kernel, self.get_variable("params", KERNEL_SCALE), self.dtype)


class MoE(nn.Module):
    """Router and experts, and an MLP for all tokens beside them if there is a shared one. Router in f32."""

    config: MoeConfig
    kind: MlpKind
    width: int
    init_std: float
    down_init_std: float
    shared_down_init_std: float
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_btd: Array, counted_bt: Array | None) -> tuple[Array, dict[str, Array]]:
        """[b, t, d], and the sums of the router's losses (those that count) over the tokens of ``counted_bt``."""
        c, (b, t, d) = self.config, x_btd.shape
        x_btd = x_btd.astype(self.dtype)
        f32 = jnp.dtype(jnp.float32)
        router = Linear(c.num_experts, self.init_std, False, f32, self.param_dtype, name="router")
        logits_bte = router(x_btd)
        top_btc, chosen_btc = jax.lax.top_k(logits_bte, c.top_k)
        log_z_bt1 = jax.nn.logsumexp(top_btc if c.renormalize else logits_bte, axis=-1, keepdims=True)
        weights_btc = jnp.exp(top_btc - log_z_bt1)

        def kernel(name: str, fan_in: int, width: int, std: float) -> Array:
            return Experts(c.num_experts, width, std, self.dtype, self.param_dtype, name=name)(fan_in)

        kernels = {"up": kernel("up", d, self.width, self.init_std)}
        if self.kind in GATED:
            kernels["gate"] = kernel("gate", d, self.width, self.init_std)
        kernels["down"] = kernel("down", self.width, d, self.down_init_std)
        if is_unsharded():
            out_td = apply_experts(
                x_btd.reshape(b * t, d),
                chosen_btc.reshape(b * t, -1),
                weights_btc.reshape(b * t, -1),
                kernels,
                kind=self.kind,
                partial=False,
            )
            out_btd = out_td.reshape(b, t, d)
        else:
            out_btd = _on_mesh(x_btd, chosen_btc, weights_btc, kernels, self.kind)
        if c.shared_dim is not None:
            out_btd = out_btd + MLP(
                self.kind,
                c.shared_dim,
                self.init_std,
                self.shared_down_init_std,
                False,
                self.dtype,
                self.param_dtype,
                name="shared",
            )(x_btd)
        sums = router_sums(logits_bte, chosen_btc, counted_bt) if c.coefs else {}
        return out_btd, {name: sums[name] for name in c.coefs}
