"""Pictures of health from logged lines."""

import math

from jaxlm.io.health_report import draw_health
from jaxlm.run.health import by_name


def lines_of(num_layers, steps=(5, 10, 15)):
    return [
        {"step": step, **by_name({"stream_rms": [1.0 + i + step for i in range(num_layers)], "logit_max": 3.0 * step})}
        for step in steps
    ]


def test_few_layers_are_curves_and_many_are_colours():
    few, many = (dict(draw_health([*lines_of(n), {"step": 15, "train/loss": 2.0}])) for n in (2, 12))
    assert set(few) == set(many) == {"residual stream (RMS)", "logits"}
    assert "layer 1" in few["residual stream (RMS)"]
    assert "layer 11" not in many["residual stream (RMS)"]
    assert all(svg.startswith("<svg") for svg in (*few.values(), *many.values()))


def test_names_sort_by_layer_and_one_look_or_a_gap_is_drawn():
    assert list(by_name({"x": [0.0] * 11}))[2] == "health/x/layer_02"
    assert len(draw_health(lines_of(12, steps=(5,)))) == 2
    gap = lines_of(8)
    gap[1] = {"step": 10, **{name: None for name in gap[1] if name != "step"}}
    assert len(draw_health(gap)) == 2
    assert draw_health([{"step": 1, "train/loss": math.nan}]) == []
