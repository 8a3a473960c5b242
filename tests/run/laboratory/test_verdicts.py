"""What experiments say of made-up records, and how answers are judged."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from configs.emergence_tiny import config
from jaxlm.data.puzzles.draws import supervised
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.run.laboratory.arithmetic import arithmetic_results
from jaxlm.run.laboratory.induction import induction_results
from jaxlm.run.laboratory.instructions import instruction_results
from jaxlm.run.laboratory.learning import make_judge, make_writer

STEPS = range(0, 1001, 50)


def repeats(layers: int, seed: int, score) -> dict[str, Any]:
    looks = [{"step": step, "repeats": score(step), "lower": 0.0, "upper": 1.0} for step in STEPS]
    return {"layers": layers, "seed": seed, "looks": looks}


def checks_of(*records: dict[str, Any]) -> list[bool]:
    return [check["holds"] for check in induction_results(config(), records)["checks"]]


def test_induction_is_shown_by_a_phase_change_in_every_seed():
    flat, sharp = lambda step: 0.06, lambda step: 0.98 if step >= 400 else 0.06
    assert checks_of(repeats(1, 0, flat), repeats(2, 0, sharp), repeats(2, 1, sharp)) == [True, True]
    assert checks_of(repeats(1, 0, flat), repeats(2, 0, sharp), repeats(2, 1, flat)) == [False, True]
    assert checks_of(repeats(1, 0, sharp), repeats(2, 0, sharp)) == [True, False]
    steadily = repeats(2, 0, lambda step: 0.06 + 0.92 * step / 1000)
    assert checks_of(repeats(1, 0, flat), steadily) == [False, True]
    assert checks_of(repeats(1, 0, flat)) == [False, True]  # the others diverged
    results = induction_results(config(), [repeats(1, 0, flat), repeats(2, 0, sharp)])
    assert results["runs"][0]["change"] is None
    assert 350 < results["runs"][1]["change"]["step"] <= 400
    assert "95% at 400" in results["checks"][0]["found"]


def answers(kind: str, form: str, right: int, total: int = 200) -> dict[str, Any]:
    # Right ones at other places in the two forms, so that pairs are what is compared.
    marks = [1] * right + [0] * (total - right)
    looks = [{"step": step, "tokens": 9 * step, "right": 0.5, "nats": 1.0, "nats_error": 0.1} for step in (0, 10, 20)]
    answered = marks if form == "steps" else marks[::-1]
    return {"kind": kind, "form": form, "width": 16, "seed": 0, "right": answered, "looks": looks}


@pytest.mark.parametrize(
    ("direct", "steps", "verdict", "holds"),
    [
        (20, 199, "steps help", [True, True]),
        (40, 199, "steps help", [False, True]),
        (150, 152, "steps make no difference", [False, False]),
        (190, 100, "steps hurt", [False, False]),
    ],
)
def test_what_steps_are_worth_is_tested_on_the_same_questions(direct, steps, verdict, holds):
    results = arithmetic_results(config(), [answers("sum", "direct", direct), answers("sum", "steps", steps)])
    (worth,) = results["worth"]
    assert worth["verdict"] == verdict
    assert worth["difference"]["difference"] == pytest.approx((steps - direct) / 200)
    assert worth["steps"]["lower"] < steps / 200 < worth["steps"]["upper"]
    assert [check["holds"] for check in results["checks"]] == holds
    assert "right" not in results["runs"][0]
    assert {(row["tokens"], row["metric"]) for row in results["ladder"]} == {
        (tokens, metric) for tokens in (90, 180) for metric in ("exact_match", "nats")
    }
    assert all(row["error"] > 0 for row in results["ladder"])


def test_steps_are_judged_on_the_seeds_that_have_both_forms():
    pair = [answers("sum", "direct", 20), answers("sum", "steps", 199)]
    alone = answers("sum", "steps", 0) | {"seed": 1}  # the other form of this seed diverged
    assert arithmetic_results(config(), [*pair, alone])["worth"] == arithmetic_results(config(), pair)["worth"]
    assert arithmetic_results(config(), [alone])["worth"] == []


def followed(count: int, seed: int, share: float) -> dict[str, Any]:
    last = {"unseen": share, "unseen_lower": share - 0.05, "unseen_upper": share + 0.05}
    last |= {"seen": 0.9, "seen_lower": 0.88, "seen_upper": 0.92}
    return {"num_templates": count, "seed": seed, "looks": [last]}


def test_unseen_instructions_must_rise_beyond_chance():
    def shape(*shares: float) -> tuple[str, bool]:
        records = [
            followed(count, seed, share + 0.01 * seed)
            for count, share in zip((8, 16, 24), shares, strict=True)
            for seed in (0, 1)
        ]
        results = instruction_results(config(), records)
        return results["trend"], results["checks"][0]["holds"]

    assert shape(0.1, 0.4, 0.8) == ("rises", True)
    assert shape(0.5, 0.51, 0.5) == ("no trend", False)
    assert shape(0.8, 0.5, 0.2) == ("falls", False)


def test_every_likeliest_token_is_right_where_greedy_writing_is():
    model = make_decoder(
        DecoderConfig(vocab_size=7, max_seq_len=12, num_layers=2, model_dim=16, num_heads=2, init_std=None)
    )
    params = jax.jit(model.init)(jax.random.key(0))
    prompts = np.random.default_rng(0).integers(0, 7, (24, 5)).astype(np.int32)
    written = make_writer(model, 6)(params, prompts)
    assert written.shape == (24, 6)
    wanted = written.copy()
    spoilt = np.arange(24) % 3 == 0
    wanted[spoilt, np.arange(24)[spoilt] % 6] += 1
    judged = make_judge(model)(params, supervised(np.concatenate([prompts, wanted % 7], axis=1), 5))
    np.testing.assert_array_equal(judged.right_b, ~spoilt)
    assert np.all(np.asarray(judged.nats_b) > 0)


def test_the_full_laboratory_has_the_models_it_says():
    from configs.emergence import config as full
    from jaxlm.run.laboratory.laboratory import plan

    found = plan(full())
    assert found["num_trials"] == sum(found["by_part"].values())
    assert found["by_part"]["induction"] == 6
    again = dataclasses.replace(full(), parts=("induction",))
    assert plan(again)["num_trials"] == 6
