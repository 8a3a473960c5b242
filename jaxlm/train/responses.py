"""What is done about a spike: pure rules over the list of incidents, which says all that was done before.

An incident is a JSON object. One that went back has a ``response``:

    {"rolled_back_to": 300, "skipped_batches": [321, 322], "from_step": 318, "until_step": 522, "rate_factor": 0.5}

The steps of a run are a function of its config, its place and this list: whoever starts it again takes the same steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxlm.train.spikes import Spike, SpikeConfig

Incident = dict[str, Any]


class Adjustment(NamedTuple):
    """How the optimiser of a step differs from the config's."""

    rate_factor: float = 1.0
    b2: float | None = None


UNCHANGED = Adjustment()


def adjustment_at(step: int, incidents: Sequence[Mapping[str, Any]]) -> Adjustment:
    """Of step number ``step`` (the first is 1): factors multiply, and the largest beta counts."""
    factor, betas = 1.0, []
    for incident in incidents:
        response = incident.get("response") or {}
        until = response.get("until_step")
        if step >= response.get("from_step", step + 1) and (until is None or step <= until):
            factor *= response.get("rate_factor", 1.0)
            betas += [response["b2"]] if response.get("b2") is not None else []
    return Adjustment(factor, max(betas, default=None))


def rollbacks(incidents: Sequence[Incident]) -> list[Incident]:
    """The incidents that went back."""
    return [incident for incident in incidents if went_back(incident)]


def _since_stop(incidents: Sequence[Incident]) -> list[Incident]:
    """The rollbacks since the run last stopped for them."""
    stops = [index for index, one in enumerate(incidents) if one["kind"] == "stopped"]
    return rollbacks(incidents[stops[-1] + 1 :] if stops else incidents)


def went_back(incident: Mapping[str, Any]) -> bool:
    """Whether the run went back to an earlier step for it."""
    return bool(incident.get("response"))


def describe_spike(spike: Spike) -> Incident:
    """A spike as an incident, before anything is done about it."""
    last = spike.bad[-1]
    all_finite = all(seen.finite for seen in spike.bad)
    kind = "outlier" if not spike.confirmed else "spike" if all_finite else "spike_not_finite"
    return {
        "step": last.step,
        "kind": kind,
        "onset": spike.onset,
        "batch_ids": [seen.batch_id for seen in spike.bad],
        "losses": [seen.loss for seen in spike.bad],
        "grad_norms": [seen.grad_norm for seen in spike.bad],
        "statistics": None if spike.limits is None else spike.limits._asdict(),
    }


def respond(spike: Spike, target: int, incidents: Sequence[Incident], config: SpikeConfig) -> Incident:
    """The incident of a spike for which the run goes back to step ``target``; ``incidents`` are those before it.

    Its batches are left out, with those around it. Where a spike comes back in the same place, and so was no fault of
    the batches, the optimiser is adjusted too.
    """
    ahead = spike.bad[-1].batch_id + 1
    skipped = sorted({*spike.batch_ids, *range(ahead, ahead + config.skip_ahead)})
    response: dict[str, Any] = {"rolled_back_to": target, "skipped_batches": skipped}
    found = describe_spike(spike)
    if (config.rate_factor != 1.0 or config.b2 is not None) and recurs(found, _since_stop(incidents), config):
        until = None if config.adjust_steps is None else spike.onset + config.adjust_steps
        response |= {"from_step": spike.first, "until_step": until, "rate_factor": config.rate_factor, "b2": config.b2}
    return found | {"response": response}


def describe_response(incident: Mapping[str, Any]) -> str:
    """What was done: ``back to step 300 without 7 batches, rate x 0.1 for steps 318 to 522``."""
    response = incident.get("response")
    if not response:
        return "update dropped" if incident["kind"] == "not_finite" else "nothing done"
    done = f"back to step {response['rolled_back_to']} without {len(response['skipped_batches'])} batches"
    changes = []
    if response.get("rate_factor", 1.0) != 1.0:
        changes.append(f"rate x {response['rate_factor']:g}")
    if response.get("b2") is not None:
        changes.append(f"b2 {response['b2']:g}")
    if not changes:
        return done
    until = "on" if response["until_step"] is None else f"to {response['until_step']}"
    return f"{done}, {' and '.join(changes)} from step {response['from_step']} {until}"


def choose_target(spike: Spike, steps: Sequence[int]) -> int:
    """The step to go back to: the newest saved one before the rewound steps, else before the spike, else step 0. Of
    dropped updates that lie apart the last alone is gone back for."""
    for first in (spike.first, spike.onset) if spike.stretch == spike.onset else (spike.stretch,):
        before = [step for step in steps if step < first]
        if before:
            return max(before)
    return 0


def diagnose(incident: Incident, incidents: Sequence[Incident], config: SpikeConfig) -> str | None:
    """Why the run should stop at this incident rather than go on after it; None where it should go on.

    ``incidents`` are those before it. What came before the last stop does not count: whoever starts the run again
    gives it new tries.
    """
    past = _since_stop(incidents)
    target = incident["response"]["rolled_back_to"]
    near = [one for one in past if incident["onset"] - one["onset"] < config.within_steps]
    same = [one for one in past if one["response"]["rolled_back_to"] == target]
    if max(len(near), len(same)) < config.max_rollbacks:
        return None
    found = [*(same if len(same) >= len(near) else near), incident]
    return f"{_what(found)}: {_cause(found, config)}"


def _what(found: Sequence[Incident]) -> str:
    onsets = ", ".join(str(one["onset"]) for one in found)
    left_out = len({batch for one in found for batch in one["response"]["skipped_batches"]})
    loss = found[-1]["losses"][-1]
    shown = "not finite" if loss is None else f"{loss:.4g}"
    median = (found[-1]["statistics"] or {}).get("loss_median")
    usual = "" if median is None else f" (usual {median:.4g})"
    return (
        f"{len(found)} spikes, begun at steps {onsets}, the last with loss {shown}{usual}; {left_out} batches left out"
    )


def _cause(found: Sequence[Incident], config: SpikeConfig) -> str:
    """Spikes that come back in the same place though their batches are gone are no fault of the data."""
    lowered = found[-1]["response"].get("rate_factor", 1.0) != 1.0
    rate = "lower optimizer.peak_lr or raise optimizer.warmup_steps in another run directory"
    here = "" if lowered else ", or set spikes.rate_factor (0.1) and start the same command again"
    again = [one for one in found if recurs(one, found, config)]
    if 2 * len(again) > len(found) and all(one["kind"] == "spike_not_finite" for one in found):
        return (
            "losses or gradients stay not finite though other batches were fed: something overflows (the rate, the "
            f"dtype, attention logits): {rate}{here}, or look at model.qk_norm, z_loss_coef and compute_dtype"
        )
    if 2 * len(again) > len(found):
        return (
            f"they come back though other batches were fed: the rate is too high rather than the data bad: {rate}{here}"
        )
    return (
        "they lie apart, each with batches of its own: bad data rather than a rate too high: look at the batches named "
        "in incidents.json (jaxlm inspect) and clean the corpus, or raise spikes.threshold or spikes.max_rollbacks and "
        "start the same command again"
    )


def recurs(incident: Incident, others: Sequence[Incident], config: SpikeConfig) -> bool:
    """Whether another rollback among ``others`` was for a spike in the same place."""
    return any(one is not incident and abs(one["onset"] - incident["onset"]) <= config.window for one in others)


def after_rollback(saved: Sequence[Incident], now: Sequence[Incident], found: Incident) -> list[Incident]:
    """The incidents of a run that went back to a checkpoint that holds ``saved``: what was done about earlier spikes
    since then still holds; what else was seen since comes again."""
    return [*saved, *(one for one in now[len(saved) :] if _still_holds(one)), found]


def at_start(saved: Sequence[Incident], recorded: Sequence[Incident], step: int) -> list[Incident]:
    """The incidents that a run starts with at the checkpoint of ``step``, which holds ``saved``.

    ``recorded`` is what the run directory's list says. A run that was killed after it went back to this checkpoint, and
    before its next save, goes on as it would have. Whatever else was recorded comes again.
    """
    if list(recorded[: len(saved)]) != list(saved):
        return list(saved)
    later: list[Incident] = []
    kept = 0
    for one in recorded[len(saved) :]:
        if not _still_holds(one):
            break
        later.append(one)
        if one["kind"] == "stopped" or one["response"]["rolled_back_to"] == step:
            kept = len(later)
    return [*saved, *later[:kept]]


def skipped_batches(incidents: Sequence[Incident]) -> list[int]:
    """The batches that the responses of these incidents leave out."""
    return [batch_id for one in rollbacks(incidents) for batch_id in one["response"]["skipped_batches"]]


def _still_holds(incident: Mapping[str, Any]) -> bool:
    return went_back(incident) or incident["kind"] == "stopped"
