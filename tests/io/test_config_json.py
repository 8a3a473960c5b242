"""A config comes back from JSON as it went, and nothing else comes back at all."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from jaxlm.core.errors import UserError
from jaxlm.core.fields import ADDED
from jaxlm.io.config_json import (
    config_from_dict,
    config_to_dict,
    diff_configs,
    diff_fields,
    near_names,
    with_added_fields,
)


@dataclass(frozen=True)
class Rope:
    theta: float = 10000.0
    scaling: Literal["none", "yarn"] = "none"


@dataclass(frozen=True)
class Model:
    num_layers: int = 2
    rope: Rope = field(default_factory=Rope)
    window_pattern: tuple[int | None, ...] = (None,)
    softcap: float | None = None
    pair: tuple[int, str] = (1, "a")
    tie: bool = True
    sizes: dict[str, int] = field(default_factory=dict)
    ropes: tuple[Rope, ...] = ()
    where: Path | None = None
    either: int | float | str = 1

    def __post_init__(self):
        if self.num_layers < 1:
            raise ValueError(f"num_layers={self.num_layers} must be at least 1")


@pytest.mark.parametrize(
    "model",
    [
        Model(),
        Model(window_pattern=(None, 128), softcap=30.0, sizes={"a": 1}, ropes=(Rope(1.0), Rope(5e5, "yarn"))),
        Model(where=Path("a/b"), either=1.5, pair=(3, "é\n\0"), tie=False),
        Model(either="text", softcap=1e-300),
    ],
)
def test_round_trip_is_exact(model):
    text = json.dumps(config_to_dict(model))
    back = config_from_dict(Model, json.loads(text))
    assert back == model
    assert [type(v) for v in dataclasses.astuple(back)] == [type(v) for v in dataclasses.astuple(model)]
    assert diff_configs(model, back) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layer": 3}, r"config has an unknown field 'num_layer'; did you mean 'num_layers'"),
        (
            {"rope": {"thetta": 1.0, "scaling": "none"}},
            r"config\.rope has an unknown field 'thetta'; did you mean 'theta'",
        ),
        ({"rope": {"theta": 1.0}}, r"config\.rope lacks the field 'scaling'"),
        ({"rope": 3}, r"config\.rope=3 is not a group of fields"),
        ({"num_layers": 2.0}, r"config\.num_layers=2\.0 is not of type int"),
        ({"num_layers": True}, r"config\.num_layers=True is not of type int"),
        ({"tie": 1}, r"config\.tie=1 is not of type bool"),
        ({"softcap": "x"}, r"config\.softcap='x' is not of type float"),
        ({"rope": {"theta": 1.0, "scaling": "ntk"}}, r"scaling='ntk' is not one of 'none', 'yarn'"),
        ({"window_pattern": [1, "x"]}, r"config\.window_pattern\[1\]='x' is not of type int"),
        ({"window_pattern": 4}, r"window_pattern=4 is not a list"),
        ({"pair": [1]}, r"pair has 1 entries, not 2"),
        ({"sizes": {"a": "b"}}, r"config\.sizes\.a='b' is not of type int"),
        ({"either": None}, r"either=None is none of int, float, str"),
        ({"num_layers": 0}, r"config: num_layers=0 must be at least 1"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(change, message):
    with pytest.raises(UserError, match=message) as caught:
        config_from_dict(Model, config_to_dict(Model()) | change)
    assert "\n" not in str(caught.value)


def test_missing_field_is_named():
    data: dict[str, Any] = config_to_dict(Model())
    del data["tie"]
    with pytest.raises(UserError, match="config lacks the field 'tie'"):
        config_from_dict(Model, data)


@dataclasses.dataclass(frozen=True)
class Grown:
    """`Model`'s heir: a field was added to it, and to a group in it."""

    inner: "GrownInner"
    size: int = 1


@dataclasses.dataclass(frozen=True)
class GrownInner:
    width: int
    form: str = field(default="plain", metadata=ADDED)


def test_records_from_before_a_field_was_added():
    old = {"inner": {"width": 3}, "size": 1}
    assert config_from_dict(Grown, old) == Grown(GrownInner(3, "plain"))
    assert with_added_fields(Grown(GrownInner(3)), old) == config_to_dict(Grown(GrownInner(3)))
    assert old == {"inner": {"width": 3}, "size": 1}
    assert with_added_fields({"a": Grown(GrownInner(3)), "b": {"c": 1}}, {"a": old, "b": {"c": 2}, "d": 4}) == {
        "a": config_to_dict(Grown(GrownInner(3))),
        "b": {"c": 2},
        "d": 4,
    }
    newer = Grown(GrownInner(3, "bold"))
    assert diff_configs(with_added_fields(newer, old), newer) == ["inner.form: 'plain' -> 'bold'"]
    with pytest.raises(UserError, match=r"config\.inner lacks the field 'width'"):
        config_from_dict(Grown, {"inner": {"form": "plain"}, "size": 1})


def test_differences():
    new = Model(num_layers=3, rope=Rope(5e5), window_pattern=(None, 4))
    assert diff_configs(Model(), new) == [
        "num_layers: 2 -> 3",
        "rope.theta: 10000.0 -> 500000.0",
        "window_pattern: [None] -> [None, 4]",
    ]
    assert diff_fields({"a": 1}, {"a": 1.0}) == {}
    assert list(diff_fields({"a": 1}, {"a": True})) == ["a"]
    assert diff_configs({"a": 1}, {"b": {}}) == ["a: 1 -> <absent>", "b: <absent> -> {}"]


def test_only_plain_values():
    with pytest.raises(TypeError, match="not a plain value"):
        config_to_dict({"x": object()})


def test_near_names():
    assert near_names("model_dims", ["model_dim", "seed"]) == "; did you mean 'model_dim'?"
    assert near_names("zzz", ["model_dim"]) == ""
