"""Roads of several sizes: what their models answered, over parameters; and roads that are really gone."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from jaxlm.data.world.questions import KINDS
from jaxlm.io.run_dir import write_json
from jaxlm.models.decoder import DecoderConfig
from jaxlm.run import scaling
from jaxlm.run.align.road_config import RoadConfig
from jaxlm.run.align.road_sizes import align_sizes
from jaxlm.run.align.road_sizes_config import RoadSizesConfig
from jaxlm.run.cli import run_main
from jaxlm.run.config_files import load_config
from tests.run.align.tiny_road import tiny

replace = dataclasses.replace
SIZES = {16: 10_000, 32: 40_000, 64: 160_000}


def two_stages() -> RoadConfig:
    """The tiny road to its SFT."""
    return replace(tiny(), stages=("base", "sft"))


def _share(right: int, total: int = 100) -> dict[str, float]:
    half = 0.1
    share = right / total
    return {"accuracy": share, "lower": max(0.0, share - half), "upper": min(1.0, share + half), "num_pairs": total}


def _gone(path: Path, num_params: int, **right: int) -> None:
    """The marks of a road that was gone."""
    (path / "base").mkdir(parents=True)
    write_json(path / "base" / "done.json", {"num_params": num_params, "eval/loss": 1.0})
    kinds = {kind: _share(right.get(kind, 50)) for kind in KINDS}
    model = {"right": kinds, "trained": _share(right["trained"]), "preferred": _share(50), "bits_per_byte": 0.5}
    write_json(path / "align.json", {"models": {"base": model, "sft": model}})


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_what_rises_and_what_falls_with_size(tmp_path, capsys, num_seeds):
    config = RoadSizesConfig(road=two_stages(), widths=tuple(SIZES), num_seeds=num_seeds)
    for place, (name, road) in enumerate(config.roads().items()):
        step = place // num_seeds
        _gone(
            tmp_path / name, SIZES[road.base.model.model_dim], trained=(20, 60, 100)[step], refuse=(100, 60, 10)[step],
            unknown=(90, 20, 95)[step], fact=0,
        )  # fmt: skip
    figures = align_sizes(config, tmp_path)
    shapes = {task: one["shape"] for task, one in figures["trends"]["tasks"].items()}
    assert shapes == {
        "sft: helpfulness": "rises", "sft: harmlessness": "falls", "sft: honesty": "U", "sft: facts": "no trend",
        "sft: preferred form": "no trend",
    }  # fmt: skip
    assert figures["trends"]["inverse"] == ["sft: harmlessness"]
    assert figures["scores"]["sft: helpfulness"]["n"] == list(SIZES.values())
    assert figures["scores"]["sft: helpfulness"]["score"] == pytest.approx([0.2, 0.6, 1.0])
    page = (tmp_path / "report.html").read_text()
    assert "sft: share of right answers" in page
    assert "N 1.6e+05" in page or "N 160000" in page
    assert align_sizes(config, tmp_path) == figures

    # The table is one that `limits` reads, and it says the same.
    columns = "task=task,n=n,score=score,error=error"
    assert run_main(scaling.main, ["limits", "--csv", str(tmp_path / "scores.csv"), "--columns", columns]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {task: one["shape"] for task, one in again["tasks"].items()} == shapes


def test_sizes_that_make_no_trend_or_no_model_are_refused():
    with pytest.raises(ValueError, match="at least 3, different and ascending"):
        RoadSizesConfig(road=two_stages(), widths=(16, 32))
    with pytest.raises(ValueError, match="head"):
        RoadSizesConfig(road=two_stages(), widths=(16, 17, 32))
    with pytest.raises(ValueError, match="num_seeds=0"):
        RoadSizesConfig(road=two_stages(), num_seeds=0)
    roads = RoadSizesConfig(road=two_stages(), widths=(16, 64, 128), dim_per_layer=32, min_layers=1).roads()
    shapes = []
    for road in roads.values():
        model = road.base.model
        assert isinstance(model, DecoderConfig)
        shapes.append((model.model_dim, model.num_layers, model.base_dim))
    assert shapes == [(16, 1, 16), (64, 2, 16), (128, 4, 16)]


def test_the_configs_that_are_shipped(tmp_path, capsys):
    config, _ = load_config(RoadSizesConfig, ["align_sizes_tiny"])
    assert len(config.roads()) >= 3
    assert run_main(scaling.main, ["align", "align_sizes_tiny", "--dry-run", "--road.stages", "base", "sft"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["stages"] == ["base", "sft"]
    assert err.count("layers of") == len(config.roads())


@pytest.mark.slow
def test_roads_are_gone_once_and_may_go_further(tmp_path):
    config = RoadSizesConfig(road=two_stages(), widths=(16, 24, 32), min_layers=1)
    figures = align_sizes(config, tmp_path)
    assert len(figures["scores"]) == 5
    assert len(set(figures["scores"]["sft: facts"]["n"])) == 3
    ends = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/done.json")}
    assert len(ends) == 6
    assert align_sizes(config, tmp_path) == figures
    assert all(path.stat().st_mtime_ns == end for path, end in ends.items())
    further = replace(config, road=replace(config.road, stages=("base", "sft", "dpo")))
    assert len(align_sizes(further, tmp_path)["scores"]) == 10
    assert all(path.stat().st_mtime_ns == end for path, end in ends.items())
    assert len(list(tmp_path.glob("*/dpo/done.json"))) == 3
    with open(tmp_path / "scores.csv", newline="") as file:
        assert {row["width"] for row in csv.DictReader(file)} == {"16", "24", "32"}
