"""What to spend compute on, by each law: sizes, tokens, the loss to expect, the bill."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.scaling import embeddings, inference, kaplan, repeated
from jaxlm.scaling.chinchilla import FLOPS_PER_PARAM_TOKEN, ChinchillaFit, allocate, flops_for
from jaxlm.scaling.fitting import interval
from jaxlm.scaling.kaplan import KaplanFit
from jaxlm.scaling.published import (
    APPROACH_1,
    APPROACH_2,
    HOFFMANN,
    HOFFMANN_UNROUNDED,
    PERCENTILES,
    besiroglu,
)

Ends = tuple[float, float] | None
_SERVED = 300
_LEAST_SIZE = 1000.0
"""Parameters, and tokens to train them on: less is no model."""


ANCHORED = {"Chinchilla 1: envelope": APPROACH_1, "Chinchilla 2: IsoFLOP": APPROACH_2}


class Row(NamedTuple):
    """One law's answer. Intervals are 95 %, None where nothing is known of it."""

    law: str
    embeddings: bool
    """Whether its N counts them."""
    num_params: float
    num_params_interval: Ends
    num_tokens: float
    num_tokens_interval: Ends
    loss: float | None
    loss_interval: Ends
    doubling: float | None
    """What the loss falls by where the budget is doubled, nats."""
    flops: float

    @property
    def tokens_per_param(self) -> float:
        return self.num_tokens / self.num_params


LEAST_FLOPS = 1e6
"""Of a budget."""


OWN, OWN_KAPLAN = "your runs", "your runs, Kaplan's form"


def laws_at(flops: float, own: ChinchillaFit | None = None, other: KaplanFit | None = None) -> list[Row]:
    """The best N and D at C = 6ND by each law: one's own first, where there is one, in both forms where Kaplan's is
    given too, then those published."""
    if not (np.isfinite(flops) and flops >= LEAST_FLOPS):
        raise UserError(f"flops={flops:g} is no budget: give FLOPs, as in 5.76e23")
    rows = [] if own is None else [_fitted(OWN, own, flops)]
    rows += [] if other is None else [_fitted(OWN_KAPLAN, other, flops)]
    rows.append(_fitted("Chinchilla, fitted again (Besiroglu 2024)", besiroglu(), flops))
    for name, law in ANCHORED.items():
        n, d = law.at(flops)
        rows.append(Row(name, True, n, None, d, None, None, None, None, flops))
    for name, constants in (("rounded", HOFFMANN), ("unrounded", HOFFMANN_UNROUNDED)):
        best, twice = allocate(constants, flops), allocate(constants, 2 * flops)
        name = f"Chinchilla 3: parametric, {name}"
        loss = float(best.loss)
        rows.append(
            Row(name, True, float(best.num_params), None, float(best.num_tokens), None, loss, None,
                loss - float(twice.loss), flops)
        )  # fmt: skip
    n, d = float(kaplan.optimal_params(flops)), float(flops / FLOPS_PER_PARAM_TOKEN / kaplan.optimal_params(flops))
    loss = float(kaplan.loss_of_compute(flops))
    gain = loss - float(kaplan.loss_of_compute(2 * flops))
    rows.append(Row("Kaplan (2020)", False, n, None, d, None, loss, None, gain, flops))
    return rows


def by_exponents_alone(flops: float) -> dict[str, dict[str, Any]]:
    """Of laws that print the spread of their exponent and not that of their line: N and D at its ends. That is no
    interval of N, whose spread where the line is tied down nobody knows."""
    found = {}
    for name, law in ANCHORED.items():
        ends_n, ends_d = law.ends(flops)
        found[name] = {
            "exponent": law.interval_n,
            "percentiles": PERCENTILES,
            "num_params": ends_n,
            "num_tokens": ends_d,
        }
    return found


def _fitted(name: str, fit: ChinchillaFit | KaplanFit, flops: float) -> Row:
    best, ends = fit.optimal(flops), fit.optimal_intervals(flops)
    gain = best.loss - fit.optimal(2 * flops).loss
    return Row(
        name, fit.embeddings, best.num_params, ends.num_params, best.num_tokens, ends.num_tokens, best.loss, ends.loss,
        gain, flops,
    )  # fmt: skip


def flops_for_loss(loss: float, own: ChinchillaFit | None = None) -> tuple[float, Ends]:
    """Compute that reaches a loss, with its interval, by one's own law or Besiroglu's.

    An end is infinite where the loss may be below what any budget reaches. Raises UserError where it surely is.
    """
    fit = besiroglu() if own is None else own
    try:
        flops = fit.flops_for(loss)
    except ValueError as error:
        raise UserError(str(error)) from None
    low, high = interval(np.minimum(flops_for(fit.draws, loss), 1e300))
    return flops, (low, high if high < 1e299 else float("inf"))


def costs(loss: float, own: ChinchillaFit | None = None, other: KaplanFit | None = None) -> dict[str, float | None]:
    """Compute that reaches a loss by each law that says what loss is reached; None where it says none does. By one's
    own laws alone, where there are any: those published count the loss of other tokens."""
    if own is not None:
        found: dict[str, float | None] = {OWN: _cost(own.constants, loss)}
        return found if other is None else found | {OWN_KAPLAN: other.flops_for(loss)}
    found = {"Chinchilla, fitted again (Besiroglu 2024)": _cost(besiroglu().constants, loss)}
    found["Chinchilla 3: parametric, rounded"] = _cost(HOFFMANN, loss)
    found["Chinchilla 3: parametric, unrounded"] = _cost(HOFFMANN_UNROUNDED, loss)
    found["Kaplan (2020)"] = float(kaplan.flops_for_loss(loss))
    return found


def _cost(constants: Any, loss: float) -> float | None:
    try:
        return float(flops_for(constants, loss))
    except ValueError:
        return None


def serving(flops: float, served_tokens: float, own: ChinchillaFit | None = None) -> dict[str, Any]:
    """The same loss as the training-optimal model's with the least training and use together, and the best loss where
    both must fit into the budget (Sardana et al. 2023). Raises UserError where that leaves no model."""
    fit = besiroglu() if own is None else own
    best = fit.optimal(flops)
    same = inference.for_loss(fit.constants, best.loss, served_tokens)
    within = inference.for_budget(fit.constants, flops, served_tokens)
    if not min(within.num_params, within.num_tokens) >= _LEAST_SIZE:
        raise UserError(
            f"{flops:.3g} FLOPs do not train a model and have it read or write {served_tokens:.3g} tokens: within them "
            f"N would be {within.num_params:.3g}: raise the budget or serve fewer"
        )
    plain = flops + inference.FLOPS_PER_SERVED_TOKEN * best.num_params * served_tokens
    draws = fit.draws
    # Each takes a search of its own; some hundreds are enough for two ends.
    drawn = [{name: float(values[i]) for name, values in draws.items()} for i in range(min(len(fit.draws_bp), _SERVED))]
    ends = np.array([inference.for_budget(one, flops, served_tokens)[:3] for one in drawn])
    alike = np.array([inference.for_loss(one, float(allocate(one, flops).loss), served_tokens)[:2] for one in drawn])
    names = ("num_params_interval", "num_tokens_interval", "loss_interval")
    return {
        "served_tokens": served_tokens,
        "same_loss": same._asdict(),
        "same_loss_intervals": {name: interval(alike[:, i]) for i, name in enumerate(same._fields[:2])},
        "saved": 1 - (same.training_flops + same.inference_flops) / plain,
        "within_budget": within._asdict(),
        **{name: interval(ends[:, i]) for i, name in enumerate(names)},
    }


def overtraining(flops: float, ratios: Sequence[float], own: ChinchillaFit | None = None) -> list[dict[str, Any]]:
    """Loss at C, with its interval, where a token count a parameter is given (Gadre et al. 2024)."""
    fit = besiroglu() if own is None else own
    rows = []
    for ratio in ratios:
        n, d, loss = inference.overtrained(fit.constants, flops, ratio)
        row = {"tokens_per_param": ratio, "num_params": n, "num_tokens": d, "loss": loss}
        rows.append(row | {"loss_interval": fit.predict_interval(n, d)})
    return rows


def with_unique_tokens(flops: float, unique_tokens: float, own: ChinchillaFit | None = None) -> dict[str, Any]:
    """N, epochs and loss where only so much text is there: the half lives of Muennighoff et al. (2023), and one's own
    law of fresh text, or theirs. Raises UserError for less text than any run reads."""
    if unique_tokens < _LEAST_SIZE:
        raise UserError(f"{unique_tokens:g} unique tokens are below {_LEAST_SIZE:g}: give single tokens, no billions")
    if own is None:
        law, constants = "C4 (Muennighoff 2023)", repeated.CONSTANTS
    else:
        law, constants = "your runs, half lives of Muennighoff (2023)", {**own.constants, "beta": own.beta}
    n, epochs, loss = repeated.best_epochs(flops, unique_tokens, constants=constants)
    return {"law": law, "unique_tokens": unique_tokens, "num_params": n, "epochs": epochs, "loss": loss}


def kaplan_explained() -> dict[str, Any]:
    """Kaplan's exponent out of Chinchilla's laws, by leaving out embeddings in small models."""
    laws = {"Hoffmann 3, rounded": HOFFMANN, "Besiroglu": besiroglu().constants}
    found = {name: embeddings.exponents(constants)._asdict() for name, constants in laws.items()}
    return {"kaplan": embeddings.KAPLAN_EXPONENT, **found}
