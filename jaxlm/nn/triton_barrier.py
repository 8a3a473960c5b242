"""Barriers inside a Pallas kernel for NVIDIA GPUs whose programs all run at once (:mod:`jaxlm.nn.triton_decode`)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.types import Array

PATIENCE = 1 << 20
"""Looks at a barrier before a program gives up (half a second or more): programs that do not run at once would
otherwise wait for ever."""


class Barriers:
    """Of all programs of a kernel, each of so many ``threads``. ``count_ref``: int32, zero at first, that no one else
    writes. In Pallas's interpreter there is a single program, which waits for no one."""

    def __init__(self, count_ref: Any, zero: Array, programs: int, threads: int, *, interpret: bool):
        self.count_ref, self.zero, self.interpret = count_ref, zero, interpret
        self.programs, self.threads = programs, threads

    def join_warps(self) -> None:
        """Of this program alone: what its warps wrote is there for all of them."""
        if not self.interpret:
            plgpu.debug_barrier()

    def arrive(self) -> None:
        """What this program wrote until now is there for those who wait."""
        self.join_warps()
        plgpu.atomic_add(self.count_ref, (self.zero,), jnp.int32(1))

    def wait(self, barrier: Array, patience: Array) -> Array:
        """Until all have arrived ``barrier`` times; the patience left for the next: 0 once someone did not come."""
        if self.interpret:
            return patience
        target = barrier * self.programs

        def go_on(state: tuple[Array, Array]) -> Array:
            return (state[0] < target) & (state[1] > 0)

        def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
            return self._look(), state[1] - 1

        seen, _ = jax.lax.while_loop(go_on, again, (self._look(), patience))
        plgpu.debug_barrier()
        return jnp.where(seen < target, 0, jnp.int32(PATIENCE))

    def _look(self) -> Array:
        # A plain read is no fence, and need not be one: an arrival empties this multiprocessor's first cache, and
        # until the wait is over nothing is read that another program may still write. One thread of a program reads:
        # else all of its warps ask for the one place that arrivals are written to.
        thread_t = jnp.arange(self.threads, dtype=jnp.int32)
        count_t = plgpu.load(self.count_ref.at[self.zero + 0 * thread_t], mask=thread_t == 0, other=0, volatile=True)
        return jnp.max(count_t)
