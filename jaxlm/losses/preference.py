"""Losses of preferences: rankings for a reward model, and pairs or labels for a policy without one.

Each function gives one number for each pair, list or answer, in f32; ``masked_sum`` over them and their count make a
`core.types.Term`. Names: chosen and rejected are the better and the worse answer to one prompt; a log-probability of an
answer is the sum over its tokens (`sequence_logprobs`), a mean log-probability their mean.
"""

import jax
import jax.numpy as jnp

from jaxlm.core.types import Array


def _f32(*arrays: Array) -> tuple[Array, ...]:
    return tuple(jnp.asarray(x).astype(jnp.float32) for x in arrays)


def sequence_logprobs(logprobs_bt: Array, loss_mask_bt: Array, *, mean: bool = False) -> Array:
    """Log-probability of each row's counted tokens, nats, [b]: their sum, or their ``mean`` (0 for a row without any).

    A masked position adds exactly 0, even if its value is not finite.
    """
    logprobs_bt, loss_mask_bt = _f32(logprobs_bt, loss_mask_bt)
    total_b = jnp.sum(jnp.where(loss_mask_bt > 0, logprobs_bt * loss_mask_bt, 0.0), axis=-1)
    return total_b / jnp.maximum(jnp.sum(loss_mask_bt, axis=-1), 1.0) if mean else total_b


# --- reward models


def bradley_terry_loss(chosen_b: Array, rejected_b: Array, margin_b: Array | None = None) -> Array:
    """``-log sigmoid(r_chosen - r_rejected - margin)``, nats a pair, [b] (Bradley & Terry 1952; the margin of a pair
    that is far apart: Touvron et al. 2023, Llama 2, eq. 2). log 2 where the rewards are equal and there is no margin.
    """
    chosen_b, rejected_b = _f32(chosen_b, rejected_b)
    difference_b = chosen_b - rejected_b
    return -jax.nn.log_sigmoid(difference_b if margin_b is None else difference_b - margin_b)


def plackett_luce_loss(rewards_bk: Array, mask_bk: Array) -> Array:
    """Minus the log-probability of a whole ranking, best answer first, nats a list, [b].

    ``-sum over places i of log (exp r_i / sum over j >= i of exp r_j)`` (Plackett 1975; Luce 1959). ``mask_bk``: 1 =
    an answer; padding stands at the end. A list of one answer costs 0, of two Bradley-Terry's loss, and K equal
    rewards cost log K!. This is the likelihood of one ranking, so it is what a list should cost where the order is
    complete; it has no place for ties (`all_pairs_loss`).
    """
    rewards_bk, mask_bk = _f32(rewards_bk, mask_bk)
    place = jnp.arange(rewards_bk.shape[-1], dtype=jnp.int32)
    rest_bij = (place[None, :] > place[:, None]) & (mask_bk[:, None, :] > 0)
    open_bi = jnp.any(rest_bij, axis=-1) & (mask_bk > 0)
    # -log of the choice's probability is softplus(log of the others' sum - its own reward): no digit is lost near 0. A
    # place with no others is given itself, and left out.
    rest_bij = rest_bij | (place[:, None] == place[None, :]) & ~open_bi[:, :, None]
    others_bi = jax.nn.logsumexp(jnp.broadcast_to(rewards_bk[:, None, :], rest_bij.shape), axis=-1, where=rest_bij)
    return jnp.sum(jnp.where(open_bi, jax.nn.softplus(others_bi - rewards_bk), 0.0), axis=-1)


def all_pairs_loss(rewards_bk: Array, ranks_bk: Array, mask_bk: Array) -> Array:
    """Mean of Bradley-Terry's loss over the pairs of a list whose ranks differ, nats a list, [b] (Ouyang et al. 2022,
    eq. 1). ``ranks_bk``: 0 = best, equal ranks are ties and make no pair; any order; ``mask_bk``: 1 = an answer.

    The pairs of a list are not independent, so that this is no likelihood, but it takes ties and partial orders. A list
    without a pair costs 0: leave it out of the count (`num_pairs`).
    """
    rewards_bk, mask_bk = _f32(rewards_bk, mask_bk)
    better_bij = _better(ranks_bk, mask_bk)
    loss_bij = -jax.nn.log_sigmoid(rewards_bk[:, :, None] - rewards_bk[:, None, :])
    total_b = jnp.sum(jnp.where(better_bij, loss_bij, 0.0), axis=(1, 2))
    return total_b / jnp.maximum(num_pairs(ranks_bk, mask_bk), 1.0)


def num_pairs(ranks_bk: Array, mask_bk: Array) -> Array:
    """How many pairs of each list have a better and a worse answer, f32 [b]."""
    return jnp.sum(_better(ranks_bk, mask_bk), axis=(1, 2), dtype=jnp.float32)


def _better(ranks_bk: Array, mask_bk: Array) -> Array:
    """Whether answer i is ranked before answer j, [b, i, j]."""
    both_bij = (mask_bk[:, :, None] > 0) & (mask_bk[:, None, :] > 0)
    return both_bij & (ranks_bk[:, :, None] < ranks_bk[:, None, :])


def reward_centre_penalty(chosen_b: Array, rejected_b: Array) -> Array:
    """``(r_chosen + r_rejected)^2``, [b]: a ranking leaves the rewards' level free, this holds it near 0 (Eisenstein et
    al. 2023, eq. 4)."""
    chosen_b, rejected_b = _f32(chosen_b, rejected_b)
    return jnp.square(chosen_b + rejected_b)


def step_reward_loss(logits_bt: Array, labels_bt: Array) -> Array:
    """Cross-entropy of whether a step is right, nats a step, [b, t], for process-reward models (Lightman et al. 2023).

    ``labels_bt``: 1 = right, 0 = wrong, at the last token of each step; the caller's mask leaves out the rest.
    """
    logits_bt, labels_bt = _f32(logits_bt, labels_bt)
    return -labels_bt * jax.nn.log_sigmoid(logits_bt) - (1.0 - labels_bt) * jax.nn.log_sigmoid(-logits_bt)


# --- pairs, against a reference


def dpo_loss(policy_logratio_b: Array, ref_logratio_b: Array, *, beta: float) -> Array:
    """``-log sigmoid(beta (h_policy - h_ref))`` with ``h = log p(chosen) - log p(rejected)``, nats a pair, [b]
    (Rafailov et al. 2023, eq. 7). log 2 where policy and reference agree."""
    policy_logratio_b, ref_logratio_b = _f32(policy_logratio_b, ref_logratio_b)
    return -jax.nn.log_sigmoid(beta * (policy_logratio_b - ref_logratio_b))


def cdpo_loss(policy_logratio_b: Array, ref_logratio_b: Array, *, beta: float, label_noise: float) -> Array:
    """Conservative DPO: ``(1 - e) L(h) + e L(-h)``, the cross-entropy with labels that are wrong with probability
    ``label_noise`` = e, [b] (Mitchell 2023, eq. 3). Least at a finite margin, ``log((1 - e) / e) / beta``."""
    right_b = dpo_loss(policy_logratio_b, ref_logratio_b, beta=beta)
    wrong_b = dpo_loss(-policy_logratio_b, -ref_logratio_b, beta=beta)
    return (1.0 - label_noise) * right_b + label_noise * wrong_b


def robust_dpo_loss(policy_logratio_b: Array, ref_logratio_b: Array, *, beta: float, label_noise: float) -> Array:
    """``((1 - e) L(h) - e L(-h)) / (1 - 2e)``, [b]: where labels are wrong with probability ``label_noise`` = e, its
    mean is DPO's loss on right ones (Chowdhury et al. 2024, eq. 12). Raises ValueError from e = 1/2 on, where labels
    say nothing."""
    if not 0.0 <= label_noise < 0.5:
        raise ValueError(f"label_noise={label_noise} is outside 0 .. 0.5 (0.5 excluded)")
    right_b = dpo_loss(policy_logratio_b, ref_logratio_b, beta=beta)
    wrong_b = dpo_loss(-policy_logratio_b, -ref_logratio_b, beta=beta)
    return ((1.0 - label_noise) * right_b - label_noise * wrong_b) / (1.0 - 2.0 * label_noise)


def ipo_loss(policy_logratio_b: Array, ref_logratio_b: Array, *, beta: float) -> Array:
    """``(h_policy - h_ref - 1 / (2 beta))^2``, [b]: a margin to reach and not to pass (Azar et al. 2023, eq. 17, whose
    tau is beta). Sums of log-probabilities make it grow with length; means over tokens are what its authors used."""
    policy_logratio_b, ref_logratio_b = _f32(policy_logratio_b, ref_logratio_b)
    return jnp.square(policy_logratio_b - ref_logratio_b - 1.0 / (2.0 * beta))


# --- single answers, good or bad, against a reference


def kto_reference_point(policy_logprob_b: Array, ref_logprob_b: Array, mask_b: Array | None = None) -> Array:
    """``z_0 = max(0, mean of log p_policy(y' | x) - log p_ref(y' | x))``, scalar without gradient (Ethayarajh et al.
    2024, section 4.1).

    ``y'`` is the answer of another row to this row's prompt: an estimate of the KL divergence. A statistic of the
    microbatch it is given: with accumulation each microbatch has its own, and a loss that uses it changes with it.
    """
    policy_logprob_b, ref_logprob_b = _f32(policy_logprob_b, ref_logprob_b)
    mask_b = jnp.ones_like(policy_logprob_b) if mask_b is None else mask_b.astype(jnp.float32)
    total = jnp.sum(jnp.where(mask_b > 0, policy_logprob_b - ref_logprob_b, 0.0))
    return jax.lax.stop_gradient(jnp.maximum(total / jnp.maximum(jnp.sum(mask_b), 1.0), 0.0))


def kto_loss(
    policy_logprob_b: Array,
    ref_logprob_b: Array,
    desirable_b: Array,
    reference_point: Array | float,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Array:
    """``w_y (1 - sigmoid(+-beta (log p_policy - log p_ref - z_0)))``, + for desirable answers and - for the others, [b]
    (Ethayarajh et al. 2024, eq. 8, where the weights are lambda_D and lambda_U). Half the weight where policy and
    reference agree and z_0 = 0.

    ``reference_point``: `kto_reference_point` of this microbatch.
    """
    policy_logprob_b, ref_logprob_b = _f32(policy_logprob_b, ref_logprob_b)
    advantage_b = beta * (policy_logprob_b - ref_logprob_b - reference_point)
    good_b = desirable_weight * jax.nn.sigmoid(-advantage_b)
    bad_b = undesirable_weight * jax.nn.sigmoid(advantage_b)
    return jnp.where(desirable_b > 0, good_b, bad_b)


# --- pairs, without a reference


def orpo_loss(chosen_mean_logprob_b: Array, rejected_mean_logprob_b: Array) -> Array:
    """``-log sigmoid(log odds(chosen) - log odds(rejected))``, ``odds = p / (1 - p)``, p the geometric mean of an
    answer's token probabilities, nats a pair, [b] (Hong et al. 2024, eq. 4 and 7).

    The whole of ORPO is the cross-entropy of the chosen answers plus lambda times this. log 2 for equal answers. A mean
    log-probability above -2^-20, where f32 has no odds left, counts as that and has no gradient.
    """
    chosen_b, rejected_b = _f32(chosen_mean_logprob_b, rejected_mean_logprob_b)
    return -jax.nn.log_sigmoid(_log_odds(chosen_b) - _log_odds(rejected_b))


def _log_odds(logprob: Array) -> Array:
    """``log p - log(1 - p)`` from log p, without loss of digits near p = 0 and p = 1 (Maechler 2012)."""
    logprob = jnp.minimum(logprob, -(2.0**-20))
    near_one = logprob > -jnp.log(2.0)
    # Each branch is given a harmless number where the other holds: its gradient is multiplied by 0, not NaN.
    high = jnp.log(-jnp.expm1(jnp.where(near_one, logprob, -0.5)))
    low = jnp.log1p(-jnp.exp(jnp.where(near_one, -1.0, logprob)))
    return logprob - jnp.where(near_one, high, low)


def simpo_loss(chosen_mean_logprob_b: Array, rejected_mean_logprob_b: Array, *, beta: float, margin: float) -> Array:
    """``-log sigmoid(beta (m_chosen - m_rejected) - margin)``, m an answer's mean log-probability a token, nats a pair,
    [b] (Meng et al. 2024, eq. 6, whose gamma is the margin)."""
    chosen_b, rejected_b = _f32(chosen_mean_logprob_b, rejected_mean_logprob_b)
    return -jax.nn.log_sigmoid(beta * (chosen_b - rejected_b) - margin)
