"""Spikes are told where they are, once, by the figures alone; what a run does nearly always is none."""

import json

import numpy as np
import pytest

from jaxlm.train.spikes import Rolling, SpikeConfig, SpikeMonitor


def figures(rng, num_steps=400):
    """(loss, gradient norm) of a run without spikes: a falling loss, both noisy."""
    steps = np.arange(num_steps)
    loss = 1.5 + 3.0 * np.exp(-steps / 80) + 0.05 * rng.standard_normal(num_steps)
    return [tuple(pair) for pair in np.stack([loss, np.exp(0.3 * rng.standard_normal(num_steps))], 1).tolist()]


def look(monitor, run, *, first=0):
    """The spikes of steps numbered from ``first`` + 1, fed with the batches from ``first`` on."""
    return [monitor.look(i + 1, i, *run[i]) for i in range(first, len(run))]


def found(spikes):
    """(onset, last step, confirmed) of those there are."""
    return [(one.onset, one.bad[-1].step, one.confirmed) for one in spikes if one is not None]


@pytest.mark.parametrize("seed", range(5))
def test_a_usual_run_has_none(seed):
    assert not found(look(SpikeMonitor(SpikeConfig()), figures(np.random.default_rng(seed))))


def test_rolling_median_and_deviation_are_those_of_numpy(rng):
    rolling, values = Rolling(31), rng.standard_normal(100)
    for at, value in enumerate(values.tolist(), 1):
        rolling.add(value)
        last = values[max(0, at - 31) : at]
        assert rolling.median() == pytest.approx(np.median(last))
        if at > 1:
            low, high = np.quantile(np.diff(last), [0.25, 0.75])
            assert rolling.deviation() == pytest.approx((high - low) / 1.349 / np.sqrt(2))


def test_a_trend_is_no_noise(rng):
    rolling, values = Rolling(128), 0.1 * rng.standard_normal(128)
    for value in (values - np.arange(128)).tolist():
        rolling.add(value)
    assert rolling.deviation() == pytest.approx(0.1, rel=0.3)


def test_a_spike_is_confirmed_after_patience_and_told_once(rng):
    run = figures(rng)
    for step in range(200, 206):
        run[step] = (4.0, 1.0)
    spikes = look(SpikeMonitor(SpikeConfig(rewind_steps=2)), run)
    assert found(spikes) == [(201, 203, True)]
    (spike,) = [one for one in spikes if one is not None]
    assert spike.batch_ids == [198, 199, 200, 201, 202]
    assert spike.first == 199
    assert spike.limits is not None
    assert 1.4 < spike.limits.loss_median < spike.limits.loss_limit < 4.0


def test_the_gradient_norm_counts_too(rng):
    run = figures(rng)
    run[300:304] = [(loss, 40.0) for loss, _ in run[300:304]]
    assert found(look(SpikeMonitor(SpikeConfig()), run)) == [(301, 303, True)]


def test_one_odd_step_is_told_and_not_confirmed(rng):
    run = figures(rng)
    run[250] = (6.0, 1.0)
    assert found(look(SpikeMonitor(SpikeConfig()), run)) == [(251, 251, False)]
    assert found(look(SpikeMonitor(SpikeConfig(patience=1)), run)) == [(251, 251, True)]


@pytest.mark.parametrize(("where", "expected"), [([100, 101, 102], [(101, 103, True)]), ([100, 200, 300], [])])
def test_steps_that_are_not_finite_count(rng, where, expected):
    run = figures(rng)
    for step in where:
        run[step] = (float("nan"), 1.0)
    assert found(look(SpikeMonitor(SpikeConfig()), run)) == expected


def test_four_that_are_not_finite_within_a_window_are_a_spike(rng):
    run = figures(rng)
    for step in (100, 120, 140, 160, 180):
        run[step] = (1.0, float("inf"))
    spikes = look(SpikeMonitor(SpikeConfig()), run)
    assert found(spikes)[0] == (101, 161, True)
    assert next(one for one in spikes if one is not None).batch_ids[-4:] == [100, 120, 140, 160]


def test_a_level_that_stays_becomes_the_usual_one(rng):
    run = figures(rng, 400)
    run = run[:200] + [(loss + 3.0, norm) for loss, norm in run[200:]]
    monitor = SpikeMonitor(SpikeConfig(response="note", window=64))
    assert found(look(monitor, run)) == [(201, 203, True)]
    assert monitor.limits() is not None


def test_memory_survives_json_at_any_step(rng):
    run = figures(rng, 300)
    run[200:204] = [(5.0, 1.0)] * 4
    run[90], run[150] = (float("nan"), 1.0), (7.0, 1.0)
    whole = SpikeMonitor(SpikeConfig())
    spikes = look(whole, run)
    for cut in (1, 91, 151, 201, 202, 203, 250):
        before = SpikeMonitor(SpikeConfig())
        look(before, run[:cut])
        after = SpikeMonitor(SpikeConfig(), json.loads(json.dumps(before.to_json())))
        assert look(after, run, first=cut) == spikes[cut:]
        assert after.to_json() == whole.to_json()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"response": "panic"}, "neither 'note' nor 'rollback'"),
        ({"window": 3}, "window=3 must be at least 16"),
        ({"patience": 0}, "patience=0"),
        ({"rate_factor": 2.0}, "rate_factor=2.0"),
        ({"b2": 1.0}, "b2=1.0"),
        ({"skip_ahead": -1}, "skip_ahead=-1"),
    ],
)
def test_bad_values_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        SpikeConfig(**fields)
