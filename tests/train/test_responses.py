"""What is done about spikes: where to go back to, what to leave out and to lower, when to give up, who remembers."""

import pytest

from jaxlm.train.responses import (
    Adjustment,
    adjustment_at,
    after_rollback,
    at_start,
    choose_target,
    describe_response,
    diagnose,
    respond,
    skipped_batches,
)
from jaxlm.train.spikes import Limits, Seen, Spike, SpikeConfig

CONFIG = SpikeConfig(skip_ahead=2, rate_factor=0.1, adjust_steps=50, max_rollbacks=2)


def spike(onset, *, loss: float | None = 9.0, batch=None):
    batch = onset - 1 if batch is None else batch
    bad = tuple(Seen(onset + i, batch + i, loss, 1.0) for i in range(3))
    before = tuple((onset - i, batch - i) for i in (2, 1))
    return Spike(bad, before, Limits(2.0, 3.0, 1.0, 10.0), True)


@pytest.mark.parametrize(
    ("steps", "target"), [([50, 97, 100], 97), ([50, 98, 100], 50), ([98, 99], 99), ([100, 150], 0), ([], 0)]
)
def test_back_to_the_newest_checkpoint_before_the_spike(steps, target):
    assert choose_target(spike(100), steps) == target


def test_dropped_updates_that_lie_apart_cost_what_came_after_the_last_of_them():
    apart = Spike(tuple(Seen(step, step, None, None) for step in (101, 131, 166, 201, 202)), (), None, True)
    assert apart.onset == 101
    assert choose_target(apart, [150, 175, 200]) == 200
    assert choose_target(apart, [100, 150, 201]) == 150
    assert choose_target(apart, []) == 0


def test_a_first_spike_costs_its_batches_and_one_that_comes_back_the_rate():
    first = respond(spike(100), 75, [], CONFIG)
    assert first["response"] == {"rolled_back_to": 75, "skipped_batches": [97, 98, 99, 100, 101, 102, 103]}
    again = respond(spike(102, batch=110), 75, [first], CONFIG)
    assert again["response"] | {"skipped_batches": []} == {
        "rolled_back_to": 75,
        "skipped_batches": [],
        "from_step": 100,
        "until_step": 152,
        "rate_factor": 0.1,
        "b2": None,
    }
    far = respond(spike(400), 375, [first, again], CONFIG)
    assert "rate_factor" not in far["response"]
    assert "rate x 0.1 from step 100 to 152" in describe_response(again)


def test_adjustments_multiply_where_they_meet():
    def one(first, until, factor, b2):
        return {"response": {"from_step": first, "until_step": until, "rate_factor": factor, "b2": b2}}

    incidents = [{"kind": "not_finite"}, one(10, 20, 0.5, None), one(15, None, 0.1, 0.99)]
    assert [adjustment_at(step, incidents) for step in (9, 10, 15, 20, 21)] == [
        Adjustment(),
        Adjustment(0.5, None),
        Adjustment(0.05, 0.99),
        Adjustment(0.05, 0.99),
        Adjustment(0.1, 0.99),
    ]


def test_spikes_that_come_back_are_the_rate_and_those_apart_the_data():
    def diagnosis(onsets, targets, loss: float | None = 9.0):
        incidents, text = [], None
        for onset, target in zip(onsets, targets, strict=True):
            incident = respond(spike(onset, loss=loss), target, incidents, SpikeConfig(max_rollbacks=2))
            text = diagnose(incident, incidents, SpikeConfig(max_rollbacks=2))
            incidents.append(incident)
        return text

    assert diagnosis([100, 101], [75, 75]) is None
    assert "rate is too high" in str(diagnosis([100, 101, 102], [75, 75, 75]))
    assert "something overflows" in str(diagnosis([100, 101, 102], [75, 75, 75], None))
    assert "bad data" in str(diagnosis([100, 400, 900], [75, 375, 875]))
    assert diagnosis([100, 400, 2000], [75, 375, 1975]) is None
    assert "3 spikes, begun at steps 100, 2000, 5000" in str(diagnosis([100, 2000, 5000], [0, 0, 0]))


def test_a_run_started_again_after_a_stop_has_new_tries():
    config = SpikeConfig(max_rollbacks=1)
    first = respond(spike(100), 75, [], config)
    again = respond(spike(101), 75, [first], config)
    stopped = {"step": 103, "kind": "stopped", "diagnosis": str(diagnose(again, [first], config))}
    assert diagnose(again, [first, again, stopped], config) is None


def test_whoever_starts_again_knows_what_was_done_at_that_checkpoint():
    saved = [{"kind": "not_finite", "step": 5, "batch_id": 4}]
    first = respond(spike(100), 75, [], CONFIG)
    seen = {"kind": "not_finite", "step": 90, "batch_id": 95}
    second = respond(spike(110, batch=130), 75, [first], CONFIG)
    now = after_rollback(saved, [*saved, first, seen], second)
    assert now == [*saved, first, second]  # what was only seen comes again
    assert at_start(saved, [*now, seen], 75) == now
    assert skipped_batches(now) == first["response"]["skipped_batches"] + second["response"]["skipped_batches"]
    # Of another checkpoint, of another run, or lost: the spike is met again.
    assert at_start(saved, [*saved, respond(spike(200), 175, [], CONFIG)], 75) == saved
    assert at_start(saved, [first], 75) == saved
    assert at_start(saved, [], 75) == saved
    stopped = {"step": 103, "kind": "stopped", "diagnosis": "?"}
    assert at_start(saved, [*now, stopped, seen], 75) == [*now, stopped]
