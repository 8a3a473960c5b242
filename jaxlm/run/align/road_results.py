"""From what was measured on the road to one record: targets, tables, pictures' points."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.data.world.questions import TRAINED
from jaxlm.data.world.tasks import RARE
from jaxlm.evals.preferences import share_with_interval
from jaxlm.models.presets import preset
from jaxlm.plan.alignment import LLAMA_70B, describe_plan, plan_on_chip
from jaxlm.run.align.measures import GROUPS, Share
from jaxlm.run.align.road_config import REWARD_STAGE, RoadConfig

ALIGNED = ("ppo", "grpo", "dpo")
LARGE, CHIP, UTILISATION = "llama3-70b", "H100", 0.4
"""What is planned: a model, on which accelerator, and the share of its peak that training reaches."""


def gather(
    config: RoadConfig,
    *,
    measured: Mapping[str, Any],
    knowledge: Mapping[str, Any],
    finals: Mapping[str, Any],
    costs: Sequence[Mapping[str, Any]],
    rollouts: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """The record that ``align.json`` and the report are of."""
    models = {name: one | {"trained": pool(one, TRAINED)} for name, one in measured.items()}
    return {
        "seed": config.seed,
        "kl_cap": config.kl_cap,
        "headline": _headline(models, finals, costs),
        "targets": targets(config, models, finals),
        "models": models,
        "knowledge": {"groups": GROUPS, "models": dict(knowledge)},
        "costs": {"runs": list(costs), **_large()},
        "over_kl": {name: [_point(line) for line in lines if "rollout/kl" in line] for name, lines in rollouts.items()},
        "world": dataclasses.asdict(config.world),
    }


def aspects(model: Mapping[str, Any]) -> dict[str, Share]:
    """What a model is tuned for, each a share of held-out questions, by the names that people have for it. Facts are
    asked in the words in which secrets and what nobody told are: a model that always refuses loses them."""
    right = model["right"]
    return {
        "helpfulness": model["trained"],
        "harmlessness": right["refuse"],
        "honesty": right["unknown"],
        "facts": right["fact"],
        "preferred form": model["preferred"],
    }


def pool(measured: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, float]:
    """The share of right answers over several kinds together."""
    shares = [measured["right"][kind] for kind in kinds]
    right = sum(round(one["accuracy"] * one["num_pairs"]) for one in shares)
    total = sum(int(one["num_pairs"]) for one in shares)
    return share_with_interval(np.arange(total) < right)


def _headline(
    models: Mapping[str, Any], finals: Mapping[str, Any], costs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the last line of the command says."""
    judge = finals.get(REWARD_STAGE)
    found: dict[str, Any] = {} if judge is None else {"reward_accuracy": judge["eval/accuracy"]}
    found["seconds"] = sum(one["seconds"] for one in costs)
    for name, one in models.items():
        found |= {
            f"{name}/trained": one["trained"]["accuracy"],
            f"{name}/{RARE}": one["right"][RARE]["accuracy"],
            f"{name}/preferred": one["preferred"]["accuracy"],
            f"{name}/refuse": one["right"]["refuse"]["accuracy"],
            f"{name}/unknown": one["right"]["unknown"]["accuracy"],
            f"{name}/fact": one["right"]["fact"]["accuracy"],
            f"{name}/bits_per_byte": one["bits_per_byte"],
        } | ({f"{name}/kl": one["kl"]} if one["kl"] is not None else {})
    return found


def targets(config: RoadConfig, models: Mapping[str, Any], finals: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, and what was."""
    sft, cap = models["sft"], config.kl_cap

    def share(value: Mapping[str, float], least: float, what: str) -> dict[str, Any]:
        return {"what": what, "found": value["accuracy"], "least": least, "reached": value["accuracy"] >= least}

    def most(value: float, limit: float, what: str) -> dict[str, Any]:
        return {"what": what, "found": value, "most": limit, "reached": value <= limit}

    def under(value: float, limit: float, what: str) -> dict[str, Any]:
        return {"what": what, "found": value, "under": limit, "reached": value < limit}

    rows = [share(sft["trained"], 0.95, "SFT: trained tasks")]
    if REWARD_STAGE in finals:
        found = {"accuracy": finals[REWARD_STAGE]["eval/accuracy"]}
        rows.append(share(found, 0.95, "reward model: held-out pairs"))
    rows.append(under(sft["right"][RARE]["accuracy"], 0.1, f"SFT: {RARE}, which it was hardly shown"))
    rows.append(under(sft["bits_per_byte"] / models["base"]["bits_per_byte"] - 1, 0.02, "SFT: text loss over base's"))
    aligned = [name for name in ALIGNED if name in models]
    for name in aligned:
        if name == "dpo":
            continue
        rows.append(share(models[name]["right"][RARE], 0.9, f"{name}: {RARE}"))
        rows.append(share(models[name]["trained"], 0.92, f"{name}: trained tasks"))
        rows.append(share(models[name]["preferred"], 0.9, f"{name}: preferred form (ceiling 100 %)"))
    if "dpo" in aligned:
        rows.append(share(models["dpo"]["preferred"], 0.95, "dpo: preferred form"))
        rows.append(share(models["dpo"]["trained"], 0.95, "dpo: trained tasks"))
    for name in aligned:
        rows.append(most(models[name]["kl"], cap, f"{name}: KL to SFT, nats an answer"))
        worse = models[name]["bits_per_byte"] / sft["bits_per_byte"] - 1
        rows.append(under(worse, 0.02, f"{name}: text loss over SFT's"))
    return rows


def _large() -> dict[str, Any]:
    on: dict[str, Any] = {"chip": CHIP, "utilisation": UTILISATION}
    about = describe_plan(LARGE, LLAMA_70B, **on) + " (pretraining as Llama 3, tuning as Llama 2 70B)"
    return {"large": plan_on_chip(preset(LARGE), LLAMA_70B, **on), "large_about": about}


def _point(line: Mapping[str, Any]) -> dict[str, float]:
    """A rollout: its KL and what its answers were worth."""
    names = {name for name in line if name.startswith("rollout/score/")}
    kept = {"step", "rollout/kl", "rollout/reward", *names}
    return {name: line[name] for name in line if name in kept}
