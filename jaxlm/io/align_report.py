"""report.html of the whole road: base, SFT and aligned models side by side, and what it cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.io.page import escape, grid_table, pictures, render_page, text_table
from jaxlm.io.policy_report import draw_over_kl
from jaxlm.io.run_dir import write_text

_SECONDS_A_DAY = 86_400


def write_align_report(path: Path, title: str, results: Mapping[str, Any]) -> None:
    """The page of ``results`` (see ``run.align.road_results.gather``)."""
    write_text(path, render_page(title, [f"<h1>{escape(title)}</h1>", *align_section(results)]))


def align_tables(results: Mapping[str, Any]) -> str:
    """The tables for a terminal."""
    parts = (_targets, _answers, _knowledge, _costs, _large)
    return "\n\n".join(text_table(*table(results)) for table in parts)


def align_section(results: Mapping[str, Any]) -> list[str]:
    """Everything as HTML."""
    about = (
        f"seed {results['seed']}; answers are greedy, to held-out prompts, judged by the gold checker; intervals of "
        "95 % (Wilson); KL to the SFT model, of answers drawn at temperature 1"
    )
    samples = [
        (one["kind"], one["prompt"], *(_sample(results, name, one["kind"]) for name in results["models"]))
        for one in results["models"]["sft"]["samples"]
    ]
    return [
        f"<p class=quiet>{escape(about)}</p>",
        "<h2>Targets</h2>",
        grid_table(*_targets(results)),
        "<h2>Models side by side</h2>",
        grid_table(*_answers(results)),
        "<h2>Gold and proxy over KL <small>answers of the rollouts, to training prompts</small></h2>",
        pictures(_over_kl(results)),
        "<h2>What tuning elicits, and what it cannot inject <small>the likeliest of a fact's 8 values</small></h2>",
        grid_table(*_knowledge(results)),
        "<h2>Cost</h2>",
        grid_table(*_costs(results)),
        f"<h3>The same, planned for a large model <small>{escape(results['costs']['large_about'])}</small></h3>",
        grid_table(*_large(results)),
        "<h2>Answers</h2>",
        grid_table(("kind", "prompt", *results["models"]), samples),
    ]


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


_SIGNS = {"least": "at least", "most": "at most", "under": "under"}
"""A target's bound, by the field that holds it."""


def _targets(results: Mapping[str, Any]) -> Table:
    rows = []
    for one in results["targets"]:
        is_kl = "KL" in one["what"]
        shown = f"{one['found']:.2f}" if is_kl else f"{one['found']:.1%}"
        sign, limit = next((sign, one[name]) for name, sign in _SIGNS.items() if name in one)
        bound = f"{limit:g}" if is_kl else f"{limit:.0%}"
        rows.append((one["what"], shown, f"{sign} {bound}", "yes" if one["reached"] else "NO"))
    return ("target", "found", "asked", "reached"), rows


def _answers(results: Mapping[str, Any]) -> Table:
    models = results["models"]
    kinds: list[str] = list(next(iter(models.values()))["right"])
    rows: list[tuple[str, ...]] = [("trained tasks together", *(_share(one["trained"]) for one in models.values()))]
    rows += [(_NAMES.get(kind, kind), *(_share(one["right"][kind]) for one in models.values())) for kind in kinds]
    rows += [
        ("preferred form", *(_share(one["preferred"]) for one in models.values())),
        ("form that was asked for", *(_share(one["in_form"]) for one in models.values())),
        (
            "KL to SFT (nats an answer)",
            *("-" if one["kl"] is None else f"{one['kl']:.2f} ± {one['kl_error']:.2f}" for one in models.values()),
        ),
        ("held-out text (bits per byte)", *(f"{one['bits_per_byte']:.4f}" for one in models.values())),
    ]
    return ("right answers", *models), rows


_NAMES = {
    "down": "down (hardly shown)",
    "fact": "fact (stated in the text)",
    "unknown": "unknown: says so (honesty)",
    "refuse": "secret: refused (harmlessness)",
}


def _knowledge(results: Mapping[str, Any]) -> Table:
    models = results["knowledge"]["models"]
    ways = {"as_text": "text", "as_answer": "answer"}
    columns = [(name, how) for name in models for how in ways]
    rows = [
        (about, str(int(models["base"][group]["as_text"]["num_pairs"])))
        + tuple(_share(models[name][group][how]) for name, how in columns)
        for group, about in results["knowledge"]["groups"].items()
    ]
    return ("facts", "probes", *(f"{name}, as {ways[how]}" for name, how in columns)), rows


def _costs(results: Mapping[str, Any]) -> Table:
    runs = results["costs"]["runs"]
    total = sum(one["flops"] for one in runs)
    rows = [
        (one["stage"], f"{one['flops']:.2e}", f"{one['flops'] / total:.1%}", f"{one['seconds']:.0f}") for one in runs
    ]
    return ("stage, as run here", "FLOPs", "share", "seconds"), rows


def _large(results: Mapping[str, Any]) -> Table:
    stages = results["costs"]["large"]
    total = sum(one["flops"] for one in stages)
    rows = [
        (
            one["stage"],
            f"{one['flops']:.2e}",
            f"{one['flops'] / total:.3%}",
            f"{one['seconds']:.2e}",
            f"{one['seconds'] / _SECONDS_A_DAY:,.1f}",
        )
        for one in stages
    ]
    return ("stage, planned for 70 B", "FLOPs", "share", "accelerator-seconds", "accelerator-days"), rows


def _over_kl(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    drawn = []
    for name, lines in results["over_kl"].items():
        scores = sorted({key for line in lines for key in line if key.startswith("rollout/score/")})
        figures = [("rollout/reward", "optimised"), *((key, _GOLD.get(key, "proxy: " + key[14:])) for key in scores)]
        picture = draw_over_kl(figures, lines, title=f"{name}: reward over KL to the SFT model")
        drawn += [] if picture is None else [picture]
    return drawn


_GOLD = {"rollout/score/right": "gold: right", "rollout/score/preferred": "gold: preferred form"}


def _share(one: Mapping[str, float]) -> str:
    return f"{one['accuracy']:.1%} ({one['lower']:.0%} to {one['upper']:.0%})"


def _sample(results: Mapping[str, Any], model: str, kind: str) -> str:
    found = (one["answer"] for one in results["models"][model]["samples"] if one["kind"] == kind)
    return next(found, "")[:80]
