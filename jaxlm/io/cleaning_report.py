"""report.html of a cleaning study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.io.page import cards, escape, grid_table, pictures, render_page, table, text_table
from jaxlm.io.plots import Bars, draw_bars
from jaxlm.io.run_dir import write_text

Results = Mapping[str, Any]
"""What ``run.cleaning_study.study_cleaning`` returns."""
Grid = tuple[list[str], list[list[str]]]


def write_cleaning_report(path: Path, title: str, results: Results) -> None:
    """A page of `cleaning_section`."""
    write_text(path, render_page(title, [f"<h1>{escape(title)}</h1>", *cleaning_section(results)]))


def cleaning_tables(results: Results) -> str:
    """The tables for a terminal."""
    grids = [*_trained(results).values(), _kinds(results), _alone(results)]
    return "\n\n".join(text_table(columns, rows) for columns, rows in grids)


def cleaning_section(results: Results) -> list[str]:
    """The gain, what each step adds, and what every step does to good text and to each kind of junk, as HTML."""
    mixture, gain = results["mixture"], results.get("gain")
    parts = [
        "<p class=quiet>the same small model, tokens, tokenizer and seeds on text mixed with junk, raw and cleaned; "
        "bits per byte on held-out good text, lower is better</p>"
    ]
    if gain:
        figures = {"bits per byte gained": f"{gain['difference']:.4f}", "at least (95 %)": f"{gain['lower']:.4f}"}
        figures |= {f"bits per byte, {name}": _mean(results["arms"][name]) for name in ("raw", "cleaned")}
        parts.append(cards(figures))
        verdict = "cleaning helps" if gain["lower"] > 0 else "cleaning hurts" if gain["upper"] < 0 else "not told apart"
        parts.append(table({"verdict": f"{verdict}: {_interval(gain)} bits per byte over {gain['num_pairs']} pairs"}))
    for heading, (columns, rows) in _trained(results).items():
        parts += [f"<h2>{escape(heading)}</h2>", grid_table(columns, rows)]
    parts += [
        pictures(draw_cleaning(results)),
        "<h2>What the whole cleaning does to each kind</h2>",
        grid_table(*_kinds(results)),
        "<p class=quiet>words are what stands between white space; wanted words are those of the text as it was before "
        "it was damaged, of pieces of pages those of the main text</p>",
        "<h2>Each step alone</h2>",
        grid_table(*_alone(results)),
        "<p class=quiet>by kind: documents removed. Precision: of the words that went, the share that was junk; "
        "recall: of the junk words, the share that went</p>",
        "<h2>Pages that the junk was taken from</h2>",
    ]
    pages = mixture["pages"]
    if not pages:
        return [*parts, "<p>No HTML page was found on this machine: there is no junk of real pages here.</p>"]
    listed = "".join(f"<li>{escape(page)}</li>" for page in pages)
    return [*parts, f"<details><summary>{len(pages)} pages</summary><ul>{listed}</ul></details>"]


def draw_cleaning(results: Results) -> list[tuple[str, str]]:
    """(title, svg): the arms' losses where they were trained, and what is left of each kind."""
    found = []
    if "arms" in results:
        arms = {name: arm for name, arm in results["arms"].items() if arm["bits_per_byte"]}
        title = "bits per byte on held-out text, less the best"
        means = [_average(arm["bits_per_byte"]) for arm in arms.values()]
        found.append((title, draw_bars(title, list(arms), [Bars("mean", [one - min(means) for one in means])])))
    kinds = results["filters"]["all"]["kinds"]
    title = "text of each kind, raw and cleaned (bytes)"
    series = [
        Bars(name, [row[key] for row in kinds.values()]) for name, key in (("raw", "bytes"), ("cleaned", "bytes_left"))
    ]
    return [*found, (title, draw_bars(title, list(kinds), series, x_label="bytes"))]


def _trained(results: Results) -> dict[str, Grid]:
    if "arms" not in results:
        return {}
    arms = [
        [name, f"{arm['documents']:,}", f"{arm['bytes']:,}", f"{arm['tokens']:,}", f"{arm['epochs']:.2f}", _mean(arm)]
        for name, arm in results["arms"].items()
    ]
    steps = []
    for step, row in results["ablation"].items():
        same = f"the same text as {row['same_text_as']}" if "same_text_as" in row else ""
        steps.append([step, same or _interval(row), "" if same else str(row["num_pairs"])])
    found = {"Arms": (["arm", "documents", "bytes", "tokens", "epochs", "bits per byte"], arms)}
    if steps:
        found["What each step adds to the rest"] = (["step", "bits per byte gained by it", "pairs"], steps)
    return found


def _kinds(results: Results) -> Grid:
    columns = [
        "kind",
        "documents",
        "bytes",
        "removed",
        "bytes left",
        "wanted words left",
        "junk words gone",
        "removed by",
    ]
    rows = []
    for kind, row in results["filters"]["all"]["kinds"].items():
        steps = sorted(row["steps"].items(), key=lambda item: -item[1])
        rows.append(
            [kind, f"{row['documents']:,}", f"{row['bytes']:,}", _share(row["removed_documents"], row["documents"])]
            + [_share(row["bytes_left"], row["bytes"]), _share(row["wanted_left"], row["wanted_words"])]
            + [_share(row["junk_gone"], row["junk_words"]), ", ".join(f"{name} {count}" for name, count in steps[:4])]
        )
    return columns, rows


def _alone(results: Results) -> Grid:
    filters = results["filters"]
    kinds = list(filters["all"]["kinds"])
    rows = []
    for name, one in (*filters["alone"].items(), ("all of them", filters["all"])):
        scores = [_percent(one[key]) for key in ("precision", "recall", "good_lost")]
        removed = [_share(one["kinds"][kind]["removed_documents"], one["kinds"][kind]["documents"]) for kind in kinds]
        rows.append([name, *scores, *removed])
    return ["step", "precision", "recall", "good words lost", *kinds], rows


def _share(part: int, whole: int) -> str:
    return _percent(part / whole if whole else None)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _average(values: list[float]) -> float:
    return sum(values) / len(values)


def _mean(arm: Mapping[str, Any]) -> str:
    return f"{_average(arm['bits_per_byte']):.4f}" if arm["bits_per_byte"] else ""


def _interval(row: Mapping[str, Any]) -> str:
    if row["lower"] is None:
        return f"{row['difference']:+.4f}"
    return f"{row['difference']:+.4f} [{row['lower']:+.4f}, {row['upper']:+.4f}]"
