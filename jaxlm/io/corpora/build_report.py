"""report.html and DATACARD.md of a built corpus, from the data of its report.json."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxlm.io.page import cards, escape, grid_table, pictures, render_page, table, text_table
from jaxlm.io.plots import Bars, draw_bars
from jaxlm.io.progress import format_count, format_seconds
from jaxlm.io.run_dir import write_text

Report = Mapping[str, Any]
_MOST_REASONS = 14

SOURCE_COLUMNS = ("source", "licence", "language", "read", "kept", "MB read", "MB kept", "tokens kept")
STEP_COLUMNS = ("step", "documents in", "removed", "edited", "changes", "MB in", "MB out", "MB/s a core")
ACCOUNT_COLUMNS = ("source", "step", "documents in", "out", "MB in", "out", "tokens in, about", "out, about")
MIXTURE_COLUMNS = ("source", "weight", "tokens there", "share wanted", "share planned", "epochs", "share realised")
DATASET_COLUMNS = ("split", "source", "documents, repeats counted", "MB", "tokens")
EVALUATION_COLUMNS = (
    "evaluation set",
    "items",
    "too short to be looked for",
    "bad records",
    "documents removed for it",
)


def write_build_report(path: Path, report: Report) -> None:
    """The page: what came in, what each step did and why, what duplicated what, the mixture, and the speed."""
    title = report["title"]
    body = [
        f"<h1>{escape(title)}</h1>",
        cards(_headline(report) | {"processor time": format_seconds(report["processor_seconds"])}),
        pictures(draw_build(report)),
        "<h2>Sources</h2>",
        grid_table(SOURCE_COLUMNS, source_rows(report)),
        "<h2>Steps</h2>",
        grid_table(STEP_COLUMNS, step_rows(report)),
        "<details><summary>every step of every source</summary>",
        grid_table(ACCOUNT_COLUMNS, account_rows(report)),
        "</details>",
        "<h2>The mixture</h2>",
        grid_table(MIXTURE_COLUMNS, mixture_rows(report)),
        "<h2>What was removed, and why</h2>",
        *_reasons(report),
        "<h2>The dataset</h2>",
        grid_table(DATASET_COLUMNS, dataset_rows(report)),
        *_evaluation(report),
        "<h2>Bad records</h2>",
        *_bad(report["bad_records"]),
        "<h2>How it was made</h2>",
        table({key: str(value) for key, value in report["made_by"].items()}),
    ]
    write_text(path, render_page(title, body))


def write_data_card(path: Path, report: Report) -> None:
    """The card that goes with the dataset, as Markdown: what it holds, where from, under which licences, how made."""
    lines = [f"# {report['title']}", ""]
    lines += [f"- {name}: {value}" for name, value in _headline(report).items()]
    lines += [f"- sha256 of all records: `{report['sha256']}`", "", "## Sources", ""]
    lines += _markdown(SOURCE_COLUMNS, source_rows(report))
    lines += ["", "## Steps", "", *_markdown(STEP_COLUMNS[:-1], (row[:-1] for row in step_rows(report)))]
    lines += ["", "## Every step of every source", "", *_markdown(ACCOUNT_COLUMNS, account_rows(report)), ""]
    lines += ["Tokens are counted at the end; before it they are reckoned from the source's bytes a token there.", ""]
    lines += ["## Recipes", ""]
    for source, recipe in report["recipes"].items():
        lines.append(f"- {source}: {'; '.join(_describe(step) for step in recipe) or 'no step'}")
    lines += ["", "## Mixture", "", *_markdown(MIXTURE_COLUMNS, mixture_rows(report))]
    lines += ["", "## The dataset", "", *_markdown(DATASET_COLUMNS, dataset_rows(report))]
    if report["evaluation"]:
        lines += ["", "## Evaluation sets kept out", "", *_markdown(EVALUATION_COLUMNS, evaluation_rows(report))]
    lines += ["", "## Reasons for removal", ""]
    for (source, step, reason), (count, samples) in sorted(_all_reasons(report).items()):
        lines.append(f"- {source}, {step}: {reason}: {count}")
        lines += [f"  - {one['origin']}: {' '.join(str(one['excerpt']).split())[:100]}" for one in samples[:1]]
    bad = report["bad_records"]
    lines += ["", "## Bad records", "", f"{bad['count']} could not be read.", ""]
    lines += [f"- {message}" for message in bad["listed"][:20]]
    lines += ["", "## Made by", "", *(f"- {key}: {value}" for key, value in report["made_by"].items()), ""]
    write_text(path, "\n".join(lines))


def summary_lines(report: Report) -> str:
    """Both tables that matter, for a terminal."""
    return "\n\n".join([text_table(SOURCE_COLUMNS, source_rows(report)), text_table(STEP_COLUMNS, step_rows(report))])


def source_rows(report: Report) -> list[list[str]]:
    """A row a source, and one for all."""
    rows = []
    for name, source in report["sources"].items():
        rows.append(
            [
                name,
                source["licence"],
                source["language"] or "-",
                f"{source['documents_read']:,}",
                f"{source['documents_kept']:,}",
                _megabytes(source["bytes_read"]),
                _megabytes(source["bytes_kept"]),
                format_count(source["tokens_kept"]) if source["tokens_kept"] else "-",
            ]
        )
    total = report["total"]
    rows.append(
        [
            "all",
            "",
            "",
            f"{total['documents_read']:,}",
            f"{total['documents_kept']:,}",
            _megabytes(total["bytes_read"]),
            _megabytes(total["bytes_kept"]),
            format_count(total["tokens_kept"]) if total["tokens_kept"] else "-",
        ]
    )
    return rows


def step_rows(report: Report) -> list[list[str]]:
    """A row a step, over all sources."""
    return [
        [
            step["step"],
            f"{step['documents_in']:,}",
            f"{step['removed']:,}",
            f"{step['changed']:,}",
            f"{step['changes']:,}",
            _megabytes(step["bytes_in"]),
            _megabytes(step["bytes_out"]),
            "-" if step["megabytes_per_second"] is None else f"{step['megabytes_per_second']:.1f}",
        ]
        for step in report["steps"]
    ]


def account_rows(report: Report) -> list[list[str]]:
    """A row a step of a source. Tokens go by the bytes a token of what is left of the source."""
    rows = []
    for name, steps in report["ledger"].items():
        source = report["sources"][name]
        rate = source["tokens_kept"] / source["bytes_kept"] if source["bytes_kept"] else 0.0
        for step, account in steps.items():
            sizes = (account["bytes_in"], account["bytes_out"])
            tokens = [format_count(size * rate) if rate else "-" for size in sizes]
            documents = [f"{account[key]:,}" for key in ("documents_in", "documents_out")]
            rows.append([name, step, *documents, *map(_megabytes, sizes), *tokens])
    return rows


def mixture_rows(report: Report) -> list[list[str]]:
    """A row a source that is in the mixture."""
    plan = report["mixture"]["plan"]
    if plan is None:
        return []
    realised = report["mixture"]["realised_shares"]
    return [
        [
            source["name"],
            f"{source['weight']:g}",
            format_count(source["tokens"]),
            f"{source['wanted_share']:.1%}",
            f"{source['share']:.1%}",
            f"{source['epochs']:.2f}",
            f"{realised.get(source['name'], 0.0):.1%}",
        ]
        for source in plan["sources"]
    ]


def dataset_rows(report: Report) -> list[list[str]]:
    """A row a split and source that has documents there."""
    return [
        [split, source, f"{count:,}", _megabytes(size), format_count(tokens) if tokens else "-"]
        for split, sources in report["mixture"]["realised"].items()
        for source, (count, size, tokens) in sources.items()
        if count
    ]


def evaluation_rows(report: Report) -> list[list[str]]:
    """A row an evaluation set."""
    removed: dict[str, int] = {}
    for (_, _, reason), (count, _) in _all_reasons(report).items():
        removed[reason] = removed.get(reason, 0) + count
    return [
        [
            name,
            f"{found['items']:,}",
            f"{found['too_short']:,}",
            f"{found['bad']:,}",
            f"{removed.get(f'holds an item of {name}', 0):,}",
        ]
        for name, found in report["evaluation"].items()
    ]


def draw_build(report: Report) -> list[tuple[str, str]]:
    """(title, svg): what is left of each source, why documents went, and the mixture."""
    sources = report["sources"]
    drawn = []
    flow = "documents of each source"
    kept = Bars("kept", [one["documents_kept"] for one in sources.values()])
    gone = Bars("removed", [one["documents_read"] - one["documents_kept"] for one in sources.values()])
    drawn.append((flow, draw_bars(flow, list(sources), [kept, gone], x_label="documents", stacked=True)))
    reasons: dict[str, int] = {}
    for (_, step, reason), (count, _) in _all_reasons(report).items():
        reasons[f"{step}: {reason}"] = reasons.get(f"{step}: {reason}", 0) + count
    if reasons:
        most = sorted(reasons.items(), key=lambda item: -item[1])[:_MOST_REASONS]
        title = "why documents were removed"
        names = [name if len(name) < 44 else f"{name[:42]}..." for name, _ in most]
        drawn.append((title, draw_bars(title, names, [Bars("", [count for _, count in most])], x_label="documents")))
    plan = report["mixture"]["plan"]
    if plan is not None:
        title, realised = "the mixture, share of tokens", report["mixture"]["realised_shares"]
        names = [source["name"] for source in plan["sources"]]
        series = [
            Bars("wanted", [source["wanted_share"] for source in plan["sources"]]),
            Bars("planned", [source["share"] for source in plan["sources"]]),
            Bars("realised", [realised.get(name, 0.0) for name in names]),
        ]
        drawn.append((title, draw_bars(title, names, series, percent=True)))
    speeds = report["speeds"]
    if speeds:
        title = "speed, MB/s a core"
        drawn.append((title, draw_bars(title, list(speeds), [Bars("", list(speeds.values()))])))
    return drawn


def _headline(report: Report) -> dict[str, str]:
    total = report["total"]
    removed = total["documents_read"] - total["documents_kept"]
    shown = {
        "documents read": f"{total['documents_read']:,}",
        "kept": f"{total['documents_kept']:,}",
        "removed": f"{removed:,}",
        "MB kept": _megabytes(total["bytes_kept"]),
    }
    if total["tokens_kept"]:
        shown["tokens kept"] = format_count(total["tokens_kept"])
    return shown


def _all_reasons(report: Report) -> dict[tuple[str, str, str], tuple[int, list[dict[str, Any]]]]:
    found = {}
    for source, steps in report["ledger"].items():
        for step, account in steps.items():
            for reason, count in account["reasons"].items():
                found[source, step, reason] = (count, account["samples"].get(reason, []))
    return found


def _reasons(report: Report) -> list[str]:
    rows = []
    for (source, step, reason), (count, samples) in sorted(_all_reasons(report).items(), key=lambda i: -i[1][0]):
        shown = " ⏎ ".join(" ".join(str(one["excerpt"]).split())[:110] for one in samples[:2])
        rows.append([source, step, reason, f"{count:,}", shown])
    if not rows:
        return ["<p class=quiet>nothing</p>"]
    return [grid_table(("source", "step", "reason", "documents", "for example"), rows)]


def _evaluation(report: Report) -> list[str]:
    if not report["evaluation"]:
        return []
    return ["<h2>Evaluation sets kept out</h2>", grid_table(EVALUATION_COLUMNS, evaluation_rows(report))]


def _bad(bad: Mapping[str, Any]) -> list[str]:
    if not bad["count"]:
        return ["<p class=quiet>none</p>"]
    listed = "".join(f"<li>{escape(message)}</li>" for message in bad["listed"][:50])
    where = "bad.json of each task of 1-collect lists up to 100 of a source"
    return [f"<p>{bad['count']} could not be read; {where}.</p><ul>{listed}</ul>"]


def _describe(step: Mapping[str, Any]) -> str:
    fields = ", ".join(f"{key}={value}" for key, value in step.items() if key != "step")
    return f"{step['step']}({fields[:200]})"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.2f}"


def _markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = list(columns)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
