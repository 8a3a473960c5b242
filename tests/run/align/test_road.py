"""The whole road, tiny: every stage once, resumed without training again, and one report."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.world.questions import Question
from jaxlm.data.world.towns import make_world
from jaxlm.evals.gold import is_right
from jaxlm.models.decoder import DecoderConfig
from jaxlm.plan.alignment import LLAMA_70B, plan_alignment, rl_flops
from jaxlm.run.align.measures import measure_answers
from jaxlm.run.align.road import align, open_model, write_world
from jaxlm.run.align.road_config import STAGES
from jaxlm.run.align.road_results import pool, targets
from tests.run.align.tiny_road import tiny

replace = dataclasses.replace


@pytest.mark.slow
def test_the_whole_road(tmp_path: Path) -> None:
    config = tiny()
    figures = align(config, tmp_path)
    results = json.loads((tmp_path / "align.json").read_text())
    assert list(results["models"]) == ["base", "sft", "ppo", "grpo", "dpo"]
    assert [one["stage"] for one in results["costs"]["runs"]] == list(STAGES)
    assert all(one["flops"] > 0 and one["seconds"] > 0 for one in results["costs"]["runs"])
    assert all((tmp_path / stage / "done.json").exists() for stage in STAGES)
    # One step from the SFT model, or two: near, but no copy of it.
    assert all(abs(results["models"][name]["kl"]) < 1 for name in ("ppo", "grpo", "dpo"))
    assert figures["sft/bits_per_byte"] == results["models"]["sft"]["bits_per_byte"]
    page = (tmp_path / "report.html").read_text()
    assert all(word in page for word in ("Targets", "Models side by side", "llama3-70b", "what it cannot inject"))

    sft = open_model(tmp_path / "sft")
    lines = (tmp_path / "world" / "questions.jsonl").read_text().splitlines()
    assert all(is_right(json.loads(line), json.loads(line)["answer"]) for line in lines)

    # Kept: what is finished is neither trained nor measured again.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json") if "measures" in path.parts}
    assert align(config, tmp_path) == figures
    assert before == {path: path.stat().st_mtime_ns for path in before}
    with pytest.raises(UserError, match="holds another config"):
        align(replace(config, seed=1), tmp_path)
    # A road may be moved: its stages name files and runs by their paths.
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert align(config, moved) == figures | {"run_dir": str(moved)}
    assert before == {path: moved.joinpath(path.relative_to(tmp_path)).stat().st_mtime_ns for path in before}
    moved.rename(tmp_path)
    # A model against itself is 0 nats away.
    asked = [json.loads(line) for line in lines]
    questions = [Question(one["kind"], one["prompt"], one["answer"], one["given"], one["closes"]) for one in asked]
    assert abs(measure_answers(sft, sft, questions, max_new_tokens=8, seed=0)["kl"]) < 1e-4


def test_a_world_is_written_once(tmp_path: Path) -> None:
    config = tiny()
    world = make_world(0, num_towns=6)
    write_world(config, world, tmp_path / "world")
    files = {path.name: path.read_bytes() for path in (tmp_path / "world").iterdir()}
    assert {"text_train.jsonl", "pairs_validation.jsonl", "prompts_train.jsonl", "questions.jsonl"} < set(files)
    write_world(config, world, tmp_path / "again")
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    (tmp_path / "world" / "pairs_train.jsonl").write_text("kept")
    write_world(config, world, tmp_path / "world")
    assert (tmp_path / "world" / "pairs_train.jsonl").read_text() == "kept"


def test_configs_that_are_no_road_are_refused() -> None:
    with pytest.raises(ValueError, match="kl_cap=0 must be above 0"):
        replace(tiny(), kl_cap=0)
    with pytest.raises(ValueError, match=r"ppo\.algorithm must be ppo"):
        replace(tiny(), ppo=tiny().grpo)
    with pytest.raises(ValueError, match="give base and sft, then any of reward, ppo, grpo, dpo"):
        replace(tiny(), stages=("base", "dpo"))
    with pytest.raises(ValueError, match="in this order"):
        replace(tiny(), stages=("base", "sft", "dpo", "ppo"))
    with pytest.raises(ValueError, match="ppo is rewarded by the reward model, which is not among them"):
        replace(tiny(), stages=("base", "sft", "ppo"))
    assert replace(tiny(), stages=("base", "sft", "dpo")).models == ("base", "sft", "dpo")


def test_shares_are_pooled_by_their_counts() -> None:
    right = {"a": {"accuracy": 1.0, "num_pairs": 30}, "b": {"accuracy": 0.5, "num_pairs": 10}}
    found = pool({"right": right}, ("a", "b"))
    assert (found["accuracy"], found["num_pairs"]) == (35 / 40, 40)


def test_the_cost_of_a_large_road() -> None:
    model = DecoderConfig(vocab_size=128, num_layers=2, model_dim=64, num_heads=4, max_seq_len=8192)
    # As on accelerators, three hundred FLOPs for each byte.
    costs = plan_alignment(model, LLAMA_70B, peak_flops=1e12, bandwidth=1e12 / 300, utilisation=0.5)
    stages = {one["stage"]: one for one in costs}
    assert stages["pretraining"]["seconds"] == stages["pretraining"]["flops"] / 0.5e12
    # Drawing waits for memory, so PPO takes longer than its FLOPs say; and all tuning is far less than pretraining.
    assert stages["PPO"]["seconds"] > stages["PPO"]["flops"] / 0.5e12
    tuning = [one for name, one in stages.items() if name != "pretraining"]
    assert sum(one["flops"] for one in tuning) < 1e-2 * stages["pretraining"]["flops"]
    # grpo: three passes of training, and one each to draw, to read as policy and as reference.
    assert rl_flops(3.0, algorithm="grpo", passes_trained=1) == 6.0
    assert rl_flops(6.0, algorithm="ppo", passes_trained=1) == 11.0


def test_a_target_at_its_bound_is_reached_only_where_the_bound_is_part_of_it():
    def model(**right: float) -> dict[str, Any]:
        shares = {name: {"accuracy": value} for name, value in right.items()}
        return {"right": shares, "trained": {"accuracy": 0.95}, "preferred": {"accuracy": 0.95}, "bits_per_byte": 1.0}

    models = {
        "base": model(down=0.0),
        "sft": model(down=0.1),
        "dpo": model(down=0.0) | {"kl": 10.0, "bits_per_byte": 1.02},
    }
    config = replace(tiny(), stages=("base", "sft", "dpo"), kl_cap=10.0)
    found = {one["what"]: one["reached"] for one in targets(config, models, {})}
    assert found == {
        "SFT: trained tasks": True,
        "SFT: down, which it was hardly shown": False,
        "SFT: text loss over base's": True,
        "dpo: preferred form": True,
        "dpo: trained tasks": True,
        "dpo: KL to SFT, nats an answer": True,
        "dpo: text loss over SFT's": False,
    }
