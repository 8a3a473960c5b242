"""Distillation by tokens: the divergence between a teacher's and a student's next-token distributions."""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxlm.core.types import Array

Direction = Literal["forward", "reverse"]
"""forward: KL(teacher || student), which covers all that the teacher may say. reverse: KL(student || teacher), which
keeps to what the teacher finds likely (Gu et al. 2023; Agarwal et al. 2023)."""


def distillation_loss(
    student_logits_btv: Array, teacher_logits_btv: Array, *, direction: Direction = "forward", temperature: float = 1.0
) -> Array:
    """``T^2 KL`` between the two softmaxes at temperature T, nats, [b, t] (Hinton et al. 2015, section 2: T^2 keeps the
    gradient's size as T changes). 0 where both agree. The teacher gets no gradient.

    Raises ValueError where the vocabularies differ in size.
    """
    if student_logits_btv.shape[-1] != teacher_logits_btv.shape[-1]:
        raise ValueError(
            f"the student has {student_logits_btv.shape[-1]} symbols and the teacher {teacher_logits_btv.shape[-1]}: "
            "distil between models of one tokenizer"
        )
    teacher_logits_btv = jax.lax.stop_gradient(teacher_logits_btv)
    student_btv, teacher_btv = (
        jax.nn.log_softmax(x.astype(jnp.float32) / temperature, axis=-1)
        for x in (student_logits_btv, teacher_logits_btv)
    )
    p_btv, q_btv = (teacher_btv, student_btv) if direction == "forward" else (student_btv, teacher_btv)
    # p = 0 adds 0, also where a symbol was ruled out with -inf in both.
    terms_btv = jnp.where(p_btv > -jnp.inf, jnp.exp(p_btv) * (p_btv - q_btv), 0.0)
    return temperature**2 * jnp.sum(terms_btv, axis=-1)
