"""Verdicts on ladders whose truth is known, and on Pythia's published scores."""

import json

import numpy as np
import pytest

from jaxlm.evals.edit_distance import edit_distance, token_edit_distance
from jaxlm.evals.emergence import Scores, emergence, emergence_of_items, share_errors
from jaxlm.evals.emergence_simulated import KINDS, late_power, step
from jaxlm.evals.ladder_metrics import as_scores
from tools.emergence import main

LADDERS = 8


@pytest.mark.parametrize("kind", list(KINDS))
def test_simulated_ladders_are_judged_right(kind: str):
    generate, right = KINDS[kind]
    said = []
    for seed in range(LADDERS):
        ladder = generate(np.random.default_rng(seed))
        said.append(emergence(ladder.sizes, ladder.exact_match, {"nats": ladder.nats}, resamples=0).verdict)
    assert said.count(right) >= LADDERS - 1
    if right == "smooth once measured continuously":
        assert "sharp" not in said
    if right == "sharp":
        assert not [verdict for verdict in said if verdict.startswith("smooth")]


def test_without_a_continuous_metric_a_late_curve_stays_sharp_and_rungs_may_come_in_any_order():
    ladder = late_power(np.random.default_rng(0))
    assert emergence(ladder.sizes, ladder.exact_match, {}, resamples=0).verdict == "sharp"
    whole = emergence(ladder.sizes, ladder.exact_match, {"nats": ladder.nats}, resamples=30)
    assert whole.stability is not None
    assert whole.stability > 0.8
    assert whole.place is not None
    back = [Scores(one.values[::-1], one.errors[::-1]) for one in (ladder.exact_match, ladder.nats)]
    assert emergence(ladder.sizes[::-1], back[0], {"nats": back[1]}, resamples=30) == whole


def test_items_give_the_verdict_of_their_means():
    rng = np.random.default_rng(0)
    sizes, hardness = np.geomspace(1e6, 1e9, 8), rng.normal(size=400)
    nats = np.exp(0.3 * hardness) * (sizes[:, None] / 1e9) ** -0.5 / 10
    right = (rng.random(nats.shape) < np.exp(-12 * nats)).astype(float)
    found = emergence_of_items(
        sizes, right, {"nats": -nats * (1 + 0.1 * rng.standard_normal(nats.shape))}, resamples=20
    )
    assert found.verdict == "smooth once measured continuously"
    assert found.stability is not None
    assert found.stability > 0.8


def test_bad_ladders_are_refused():
    ladder = step(np.random.default_rng(0))
    with pytest.raises(ValueError, match="5 rungs: a verdict needs 6 to 64"):
        emergence(ladder.sizes[:5], Scores(ladder.nats.values[:5], ladder.nats.errors[:5]), {})
    with pytest.raises(ValueError, match="each once: pool models"):
        emergence(np.ones(len(ladder.sizes)), ladder.exact_match, {})
    with pytest.raises(ValueError, match="a perplexity is above 0"):
        as_scores("ppl", np.array([1.0, 0.0]), np.ones(2))


def test_distances_of_answers():
    assert edit_distance("", "abc") == 3
    assert edit_distance([1, 2, 3], [2, 3, 4]) == 2
    assert (token_edit_distance("", ""), token_edit_distance("天下", "天上")) == (0.0, 0.5)
    assert (share_errors(np.array([0.0, 1.0]), 100) > 0).all()
    words = ["".join(chr(97 + c) for c in np.random.default_rng(i).integers(3, size=6)) for i in range(12)]
    for a in words:
        for b in words:
            assert edit_distance(a, b) == edit_distance(b, a)
            assert edit_distance(a, words[0]) <= edit_distance(a, b) + edit_distance(b, words[0])


def test_pythia_on_lambada_is_smooth(shared_data, tmp_path, capsys):
    asked = ["--results", str(shared_data / "scaling" / "pythia_evals"), "--only", "lambada_openai"]
    assert main([*asked, "--resamples", "20", "--out", str(tmp_path / "page.html")]) == 0
    found = json.loads(capsys.readouterr().out)["tasks"]["lambada_openai"]
    assert (found["verdict"], found["stability"] > 0.95, found["rungs"]) == ("smooth", True, 8)
    assert found["curves"]["ppl"]["shape"] == "rises"
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<img") == 2
