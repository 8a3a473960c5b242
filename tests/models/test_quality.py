"""The quality classifier and rules over scores: laws, not snapshots."""

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.models.quality import QualityConfig, Scored, fit_quality
from jaxlm.text.column import TextColumn
from jaxlm.text.steps import Rule

GOOD_WORDS = ("the", "river", "flows", "past", "an", "old", "mill")
BAD_WORDS = ("click", "here", "login", "cart", "menu", "|", "home")
SMALL = QualityConfig(num_buckets=1 << 12, num_iterations=60)


def samples(rng, count):
    """Texts of mostly good words, and of mostly bad ones."""

    def draw(words, others):
        chosen = [rng.choice(words if rng.random() < 0.8 else others) for _ in range(rng.integers(10, 40))]
        return " ".join(chosen)

    return [[draw(a, b) for _ in range(count)] for a, b in ((GOOD_WORDS, BAD_WORDS), (BAD_WORDS, GOOD_WORDS))]


def test_it_tells_unseen_texts_apart(rng):
    good, bad = samples(rng, 200)
    model = fit_quality(good, bad, SMALL)
    good, bad = samples(rng, 100)
    assert (model(good) > 0.5).mean() > 0.95
    assert (model(bad) < 0.5).mean() > 0.95
    assert model.facts["auc"] > 0.99
    assert model.facts["held_out"] > 10


def test_chinese_without_spaces(rng):
    good, bad = "山川日月江水東流不見故人", "點擊登錄購物車首頁廣告下載"
    good, bad = (["".join(rng.choice(list(chars), 20)) for _ in range(60)] for chars in (good, bad))
    assert fit_quality(good, bad, SMALL).facts["auc"] == 1.0


def test_the_order_and_the_numbers_of_the_samples_do_not_tip_it(rng):
    good, bad = samples(rng, 120)
    probe = [*good[:20], *bad[:20]]
    one = fit_quality(good, bad, SMALL)(probe)
    # To L-BFGS's own tolerance: sums in another order.
    assert np.allclose(fit_quality(good[::-1], bad[::-1], SMALL)(probe), one, atol=0.02)
    few = fit_quality(good, bad[:40], SMALL)(samples(rng, 50)[1])
    assert (few < 0.5).mean() > 0.9


def test_a_score_depends_on_its_own_text_alone(rng):
    good, bad = samples(rng, 50)
    model = fit_quality(good, bad, SMALL)
    alone = np.concatenate([model([text]) for text in good])
    assert np.allclose(model([*bad, *good])[len(bad) :], alone, atol=1e-6)
    assert model([]).shape == (0,)
    assert model([""])[0] == pytest.approx(0.5 * (1 + np.tanh(0.5 * model.bias)))


def test_too_few_texts_are_named():
    with pytest.raises(UserError, match="0 bad texts"):
        fit_quality(["a b", "c d", "e f"], [], QualityConfig(held_out=0.0))


def lengths(texts):
    return np.array([float("nan") if not text else len(text) for text in texts], np.float32)


def test_a_rule_keeps_what_lies_between_and_says_why_not():
    rule = Scored("length", lengths, minimum=2, maximum=4)
    assert isinstance(rule, Rule)
    verdicts = rule.judge(TextColumn(["a", "ab", "abcd", "abcde", ""]))
    assert verdicts.reasons == ("length below 2", "length above 4")
    assert verdicts.reason_n.tolist() == [0, -1, -1, 1, -1]
    assert verdicts.value_n[[0, 3]].tolist() == [1, 5]
    assert np.isnan(verdicts.value_n[[1, 2, 4]]).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [({}, "neither minimum nor maximum"), ({"minimum": 2, "maximum": 1}, "minimum=2 is above maximum=1")],
)
def test_bad_bounds_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Scored("length", lengths, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"longest": 0}, "longest=0"),
        ({"num_buckets": 1000}, "no power of two"),
        ({"penalty": 0.0}, "penalty=0.0"),
        ({"num_iterations": 0}, "num_iterations=0"),
        ({"held_out": 1.0}, "held_out=1.0"),
    ],
)
def test_bad_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        QualityConfig(**fields)


def test_a_score_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match="shape"):
        Scored("odd", lambda texts: np.zeros(3), minimum=0).judge(TextColumn(["a"]))
