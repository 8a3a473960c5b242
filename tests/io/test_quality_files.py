"""A quality classifier goes to disk and comes back the same; damage is found and named."""

import json

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.quality import QualityScore, load_quality, save_quality
from jaxlm.models.quality import QualityConfig, QualityModel

TEXTS = ["one two three", "four five", ""]


@pytest.fixture
def saved(tmp_path, rng):
    config = QualityConfig(num_buckets=256)
    model = QualityModel(config, rng.normal(size=256).astype(np.float32), 0.25, {"auc": 0.9})
    save_quality(tmp_path / "quality", model)
    return model, tmp_path / "quality"


def test_it_comes_back_the_same(saved):
    model, path = saved
    loaded = load_quality(path)
    assert (loaded(TEXTS) == model(TEXTS)).all()
    assert (loaded.config, loaded.facts) == (model.config, model.facts)
    assert (QualityScore(str(path))(TEXTS) == model(TEXTS)).all()
    with pytest.raises(UserError, match="is there already"):
        save_quality(path, model)


def test_damage_is_named(saved):
    _, path = saved
    weights = path / "weights.npz"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"weights.npz is damaged"):
        load_quality(path)
    weights.unlink()
    with pytest.raises(UserError, match="no quality classifier"):
        load_quality(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format_version": 2}, "not of format 1"), ({"config": {"longest": 2}}, "lacks the field")],
)
def test_a_wrong_definition_is_named(saved, change, message):
    _, path = saved
    file = path / "quality.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message):
        load_quality(path)
    file.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load_quality(path)
