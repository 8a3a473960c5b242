"""What stands before and behind the layers inside the decoding kernel (:mod:`jaxlm.nn.triton_decode`): the row of the
table, and the choice of the most likely token."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxlm.core.types import Array
from jaxlm.nn.triton_matvec import Product, Share, Vector
from jaxlm.nn.triton_slots import MASKED

BLOCKS = 4
"""Rows for each warp in one turn of the head: they share what is read of the vector."""


class Best(NamedTuple):
    """Of some tokens: the largest logit, the first token that has it, and the sum of exp(logit - largest)."""

    top: Any
    token: Any
    total: Any

    def joined(self) -> "Best":
        """Of all its elements, scalars."""
        top = jnp.max(self.top)
        token = jnp.min(jnp.where(self.top == top, self.token, jnp.int32(2**31 - 1)))
        return Best(top, token, jnp.sum(self.total * jnp.exp(self.top - top)))


def embed(share: Share, table_ref: Any, token: Array, x_ref: Any, width: int) -> None:
    """This program's part of the stream, from the row of ``token`` [d], words as `triton_matvec.pack` has them."""
    words = width // share.packed
    own = pl.cdiv(words, share.programs)
    i = jnp.arange(pl.next_power_of_2(own), dtype=jnp.int32)
    at = share.program * own + i
    mask = (i < own) & (at < words)
    none = jnp.zeros((), table_ref.dtype)
    word = plgpu.load(table_ref.at[token, at], mask=mask, other=none)
    for half, x in enumerate(share.numbers(word)):
        plgpu.store(x_ref.at[half * words + at], x, mask=mask)


def begin_head(share: Share, head_ref: Any, vocab_size: int, *, ahead: int, early: int) -> list[Any]:
    """The first weights of the head, asked for."""
    first = Product(share, head_ref, share.program * 0, vocab_size, ahead=ahead, turn=(0, BLOCKS))
    first.ask(early)
    return first.loaded


def best_of_head(
    share: Share,
    head_ref: Any,
    vocab_size: int,
    asked: list[Any],
    vector: Callable[[], Vector],
    *,
    ahead: int,
    rounded_to: Any,
) -> Best:
    """Of this program's part of the vocabulary. ``vector``: the normalised stream, made anew for each turn;
    ``rounded_to``: the dtype of logits."""
    turns = pl.cdiv(pl.cdiv(vocab_size, share.programs), share.tile[0] * BLOCKS)

    def turn(i: Array, state: tuple[list[Any], Best]) -> tuple[list[Any], Best]:
        loaded, best = state
        this, following = (
            Product(share, head_ref, share.program * 0, vocab_size, ahead=ahead, turn=(i + more, BLOCKS))
            for more in (0, 1)
        )
        this.loaded = list(loaded)
        found = [best]

        def use(row_r: Array, mask_r: Array, sums: list[Array]) -> None:
            old = found[0]
            logit_r = jnp.where(mask_r, sums[0].astype(rounded_to).astype(jnp.float32), MASKED)
            top_r = jnp.maximum(old.top, logit_r)
            total_r = old.total * jnp.exp(old.top - top_r) + jnp.where(mask_r, jnp.exp(logit_r - top_r), 0.0)
            found[0] = Best(top_r, jnp.where(logit_r > old.top, row_r, old.token), total_r)

        this.run(vector(), use, following=following, early=len(loaded))
        return following.loaded, found[0]

    rows = (share.tile[0],)
    none = Best(jnp.full(rows, MASKED), jnp.zeros(rows, jnp.int32), jnp.zeros(rows))
    return jax.lax.fori_loop(0, turns, turn, (asked, none))[1].joined()
