"""report.html of the laboratory: what was to be shown and whether it was, and the pictures of every experiment."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.io.page import escape, grid_table, pictures, render_page, text_table
from jaxlm.io.plots import Bars, Curve, draw_bars, draw_curves
from jaxlm.io.progress import format_count, format_seconds
from jaxlm.io.run_dir import write_text

Results = Mapping[str, Any]
"""What ``run.laboratory`` found in one experiment."""
Run = Mapping[str, Any]
"""What is kept of one model."""

_CHECKS = ("to be shown", "target", "found", "holds")
_FORMS = {"steps": "with steps", "direct": "at once"}
_HEADS = {"previous_token": "token before", "prefix_matching": "prefix matching"}
_LEAST_NATS = 1e-4
"""Lower ones are drawn here: a logarithmic axis has no end."""


def write_laboratory_report(path: Path, title: str, parts: Mapping[str, Results]) -> None:
    """One page: the checks, then a section for each experiment."""
    checks = [check for one in parts.values() for check in one["checks"]]
    body = [
        f"<h1>{escape(title)}</h1>",
        "<p class=quiet>intervals of 95 %; docs/laboratory.md says what was measured and how</p>",
        *([grid_table(_CHECKS, _check_rows(checks))] if checks else []),
    ]
    for name, results in parts.items():
        heading, about, section = _SECTIONS[name]
        diverged = f" ({len(results['diverged'])} more diverged)" if results["diverged"] else ""
        models = f"{len(results['runs'])} models{diverged}, {format_seconds(results['seconds'])}"
        body += [f"<h2>{escape(heading)} <small>{models}</small></h2>", f"<p>{escape(about)}</p>", *section(results)]
    write_text(path, render_page(title, body))


def checks_table(checks: Sequence[Mapping[str, Any]]) -> str:
    """For a terminal."""
    return text_table(_CHECKS, _check_rows(checks))


def _check_rows(checks: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    return [[one["what"], one["target"], one["found"], "yes" if one["holds"] else "NO"] for one in checks]


def _induction(results: Results) -> list[str]:
    runs = results["runs"]
    deepest = max(run["layers"] for run in runs)
    shown = next(run for run in runs if run["layers"] == deepest)
    heads = [
        _over_steps(shown, f"{name}, layer {layer + 1}", lambda look, key=key, layer=layer: max(look[key][layer]))
        for key, name in _HEADS.items()
        for layer in range(deepest)
    ]
    gained = "in-context score: nats that having seen it saves"
    best = f"best head of {_layers(deepest)}: share of its attention"
    drawn = [
        _curves("share of repeats foretold", _family(runs, "layers", "repeats", _layers), from_zero=True),
        _curves(gained, _family(runs, "layers", "in_context", _layers)),
        _curves(best, heads, from_zero=True),
        _each_head(shown),
    ]
    rows = [
        [f"{_layers(run['layers'])}, seed {run['seed']}", _repeats(run), f"{last['in_context']:.2f}", _dated(run)]
        for run in runs
        for last in run["looks"][-1:]
    ]
    return [pictures(drawn), grid_table(("model", "repeats foretold", "in-context score, nats", "change"), rows)]


def _each_head(run: Run) -> tuple[str, str]:
    last = run["looks"][-1]
    counts = [len(heads) for heads in last["previous_token"]]
    names = [f"layer {i + 1}, head {j + 1}" for i, count in enumerate(counts) for j in range(count)]
    series = [Bars(name, [share for heads in last[key] for share in heads]) for key, name in _HEADS.items()]
    title = "every head at the end: share of its attention"
    return title, draw_bars(title, names, series, percent=True)


def _copying(results: Results) -> list[str]:
    runs = results["runs"]
    widths = _family(runs, "width", "repeats", _width)
    drawn = [
        _curves("share of repeats foretold", widths, from_zero=True),
        _by_size("the same at the end, by size", {"": runs}, _at_end("repeats"), from_zero=True),
    ]
    rows = [[_model(run), format_count(run["num_params"]), _repeats(run), _dated(run)] for run in runs]
    return [
        _trend(results, "the share of repeats"),
        pictures(drawn),
        grid_table(("model", "parameters", "repeats foretold", "change"), rows),
    ]


def _regression(results: Results) -> list[str]:
    runs, errors = results["runs"], results["errors"]
    seen = np.arange(len(errors["ridge"]))
    own = [run for run in runs if run["seed"] == runs[0]["seed"]][-4:]  # the picture has six colours
    by_examples = [Curve(_width(run["width"]), seen, np.array(run["looks"][-1]["error"])) for run in own]
    by_examples += [Curve(name, seen, np.array(values), markers=True) for name, values in errors.items()]
    over_ridge = _family(runs, "width", "over_ridge", _width)
    drawn = [
        _curves("mean squared error of y", by_examples, x_label="examples seen", log_y=True),
        _curves("error over that of ridge (1: as good)", over_ridge, log_y=True),
        _by_size("the same at the end, by size", {"": runs}, _at_end("over_ridge")),
    ]
    rows = [
        [_model(run), format_count(run["num_params"]), f"{value:.2f} ({low:.2f} to {high:.2f})"]
        for run in runs
        for value, low, high in [_at_end("over_ridge")(run)]
    ]
    columns = ("model", "parameters", f"error over ridge's, from {results['dim']} examples on")
    return [_trend(results, "the error over ridge's"), pictures(drawn), grid_table(columns, rows)]


def _arithmetic(results: Results) -> list[str]:
    rows = [
        [
            f"{one['kind']} of {one['length']}",
            *(f"{one[form]['value']:.1%} ({one[form]['lower']:.1%} to {one[form]['upper']:.1%})" for form in _FORMS),
            f"{one['difference']['difference']:+.1%}",
            f"{one['p']:.2g}",
            one["verdict"],
        ]
        for one in results["worth"]
    ]
    body = [grid_table(("question", *_FORMS.values(), "difference", "p (McNemar)", "verdict"), rows)]
    for one in results["worth"]:
        own = {
            form: [run for run in results["runs"] if run["kind"] == one["kind"] and run["form"] == form]
            for form in _FORMS
        }
        width = max(run["width"] for runs in own.values() for run in runs)
        widest = {form: [run for run in runs if run["width"] == width] for form, runs in own.items()}
        right = [curve for form in _FORMS for curve in _over_tokens(widest[form], form, "right", least=0.0)]
        nats = [curve for form in _FORMS for curve in _over_tokens(widest[form], form, "nats", least=_LEAST_NATS)]
        by_form = {_FORMS[form]: runs for form, runs in own.items()}
        drawn = [
            _curves("right answers by tokens read", right, x_label="tokens read", from_zero=True),
            _curves("nats of all that is to be said", nats, x_label="tokens read", log_y=True),
            _by_size("right answers by size", by_form, _final, from_zero=True),
        ]
        examples = [runs[0]["example"] for runs in widest.values()]
        body += [f"<h3>{escape(one['kind'])}: {escape(one['verdict'])}</h3>", pictures(drawn), _written(examples)]
    return body


def _over_tokens(runs: Sequence[Run], form: str, key: str, *, least: float) -> list[Curve]:
    return [
        Curve(
            _FORMS[form] if run is runs[0] else f"_{form}",
            np.array([look["tokens"] for look in run["looks"]]),
            np.array([max(look[key], least) for look in run["looks"]]),
            colour=list(_FORMS).index(form),
        )
        for run in runs
    ]


def _written(examples: Iterable[Mapping[str, str]]) -> str:
    return "".join(
        f"<pre><b>{escape(one['prompt'])}</b>{escape(one['written'])}   (right: {escape(one['solution'])})</pre>"
        for one in examples
    )


def _instructions(results: Results) -> list[str]:
    curves, names = results["curves"], {"unseen": "unseen templates", "seen": "templates learnt from"}
    followed = []
    for which, name in names.items():
        one = {key: np.array(values) for key, values in curves[which].items()}
        followed.append(Curve(name, one["size"], one["value"], markers=True, band=(one["lower"], one["upper"])))
    nats = _family(results["runs"], "num_templates", "unseen_nats", lambda count: f"{count} templates")
    drawn = [
        _curves("instructions followed", followed, x_label="templates learnt from", from_zero=True),
        _curves("unseen templates: nats an answer", nats, log_y=True),
    ]
    rows = [
        [f"{count:.0f}"]
        + [f"{one['value'][i]:.1%} ({one['lower'][i]:.1%} to {one['upper'][i]:.1%})" for one in map(curves.get, names)]
        for i, count in enumerate(curves["unseen"]["size"])
    ]
    examples = "".join(f"<pre>{escape(text)}</pre>" for text in results["runs"][-1]["examples"])
    return [pictures(drawn), grid_table(("templates learnt from", *names.values()), rows), examples]


def _curves(title: str, curves: Sequence[Curve], **options: Any) -> tuple[str, str]:
    """A picture with its title."""
    return title, draw_curves(title, curves, **options)


def _over_steps(run: Run, label: str, figure: Callable[[Mapping[str, Any]], float], colour: int | None = None) -> Curve:
    steps = np.array([look["step"] for look in run["looks"]])
    return Curve(label, steps, np.array([figure(look) for look in run["looks"]]), colour=colour)


def _family(runs: Sequence[Run], key: str, figure: str, name: Callable[[Any], str]) -> list[Curve]:
    """A figure of all runs over the steps: one colour and one entry of the legend for each value of ``key``."""
    values = sorted({run[key] for run in runs})
    named: set[Any] = set()
    curves = []
    for run in runs:
        label = name(run[key]) if run[key] not in named else f"_{run[key]}"
        named.add(run[key])
        curves.append(_over_steps(run, label, lambda look: look[figure], values.index(run[key])))
    return curves


Score = Callable[[Run], tuple[float, float, float]]
"""A figure of a run and the ends of its interval."""


def _at_end(key: str) -> Score:
    return lambda run: (run["looks"][-1][key], run["looks"][-1]["lower"], run["looks"][-1]["upper"])


def _final(run: Run) -> tuple[float, float, float]:
    return run["final"]["value"], run["final"]["lower"], run["final"]["upper"]


def _by_size(
    title: str, groups: Mapping[str, Sequence[Run]], score: Score, *, from_zero: bool = False
) -> tuple[str, str]:
    """A curve for each group, of its first seed."""
    curves = []
    for label, runs in groups.items():
        own = sorted((run for run in runs if run["seed"] == runs[0]["seed"]), key=lambda run: run["num_params"])
        value, low, high = np.array([score(run) for run in own]).T
        sizes = np.array([run["num_params"] for run in own])
        curves.append(Curve(label, sizes, value, markers=True, band=(low, high)))
    return _curves(title, curves, x_label="parameters", log_x=True, powers_of_ten=True, from_zero=from_zero)


def _trend(results: Results, what: str) -> str:
    """What is tested over sizes; nothing where there are too few."""
    return "" if results["trend"] is None else f"<p>With size {escape(what)}: <b>{escape(results['trend'])}</b>.</p>"


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"


def _width(width: int) -> str:
    return f"width {width}"


def _model(run: Run) -> str:
    return f"{_width(run['width'])}, seed {run['seed']}"


def _repeats(run: Run) -> str:
    value, low, high = _at_end("repeats")(run)
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def _dated(run: Run) -> str:
    change = run["change"]
    if change is None:
        return "none"
    word = "phase change" if change["sharp"] else "slow rise"
    return (
        f"{word} at step {change['step']:.0f} (a quarter {change['begins']:.0f}, three quarters {change['ends']:.0f})"
    )


_SECTIONS: dict[str, tuple[str, str, Callable[[Results], list[str]]]] = {
    "induction": (
        "Induction: one layer of attention and two",
        "Rows of symbols that repeat themselves, with a period drawn for each row. To foretell a repeat one has to "
        "find where the symbol at hand stood before and say what stood behind it: one head looks at the token before, "
        "and another in a later layer looks for what the first one wrote.",
        _induction,
    ),
    "copying": ("Copying in context, by size", "The same rows for whole decoders of several widths.", _copying),
    "regression": (
        "Linear regression in context, by size",
        "Pairs of x and y = w x + noise, with a w of each row's own, against the two who know the method.",
        _regression,
    ),
    "arithmetic": (
        "Sums at once, and after steps",
        "Each form reads as many tokens; the one without steps therefore sees more questions. Questions are held out. "
        "The table and the curves over tokens are of the widest model; the prompt in bold, then what it wrote.",
        _arithmetic,
    ),
    "instructions": (
        "Instructions that were never shown",
        "A template is a pair of words that says how a string is to be changed. Every word of the unseen templates was "
        "seen in other company, however few templates are learnt from; all models read as many tokens.",
        _instructions,
    ),
}
