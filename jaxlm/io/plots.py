"""Pictures of a run as SVG text, drawn with matplotlib off screen."""

import contextlib
import io
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

_MOST_POINTS = 400
_LONGEST_NAME = 60
"""Characters of the name of a bar: longer ones would leave the bars no room."""
_COLOURS = ("#2563eb", "#ea580c", "#059669", "#7c3aed", "#db2777", "#6b7280")
"""Of the first curve, the second, ...: blue, orange, green, violet, pink, grey."""
_LINES = ("-", "--", ":", "-.")
"""Of the first six curves, the next six, ..."""


class Curve(NamedTuple):
    """One line of a picture. `values` may hold NaN: a gap."""

    label: str
    steps: np.ndarray
    values: np.ndarray
    smooth: bool = False
    """Draws the raw values pale, and over them their running mean."""
    markers: bool = False
    points: bool = False
    """Dots alone, without a line."""
    band: tuple[np.ndarray, np.ndarray] | None = None
    """Lower and upper ends of an interval about the values, drawn pale."""
    colour: int | None = None
    """Place of the colour, to be that of another curve; None = the curve's own place."""


def draw_curves(
    title: str,
    curves: Sequence[Curve],
    *,
    x_label: str = "step",
    log_x: bool = False,
    log_y: bool = False,
    robust: bool = False,
    from_zero: bool = False,
    powers_of_ten: bool = False,
) -> str:
    """A picture of curves over the steps, as an ``<svg>`` text.

    Args:
      title: what stands above it.
      curves: drawn in this order, with a legend where there are several.
      x_label: what the steps of the curves are.
      log_x: powers of two along the axis; the steps must be positive.
      log_y: a logarithmic axis; the values must be positive.
      robust: the first few values (a loss before the first steps) leave the picture rather than flatten the rest.
      from_zero: the axis starts at 0, so that small wobbles look small.
      powers_of_ten: with ``log_x``, powers of ten along the axis: compute.
    """
    from matplotlib.ticker import EngFormatter, LogFormatterMathtext, MaxNLocator

    with _picture(title) as (axes, out):
        for place, curve in enumerate(curves):
            turn, colour = divmod(place if curve.colour is None else curve.colour, len(_COLOURS))
            _draw(axes, curve, _COLOURS[colour], _LINES[turn % len(_LINES)])
        axes.set_xlabel(x_label)
        if log_y:
            axes.set_yscale("log")
        elif max(float(np.nanmax(curve.values)) for curve in curves) >= 1e4:
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        else:
            axes.ticklabel_format(axis="y", scilimits=(-2, 4))
        if log_x and powers_of_ten:
            axes.set_xscale("log")
        elif log_x:
            axes.set_xscale("log", base=2)
            below_1 = min(float(np.min(curve.steps)) for curve in curves) < 1  # rates: as powers
            axes.xaxis.set_major_formatter(LogFormatterMathtext(base=2) if below_1 else EngFormatter(sep=""))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if robust:
            _clip_top(axes, curves)
        if from_zero:
            axes.set_ylim(bottom=0)
        if sum(not curve.label.startswith("_") for curve in curves) > 1:
            axes.legend(frameon=False, fontsize=8.5)
    return out.svg


def draw_layers(title: str, steps: np.ndarray, values_ls: np.ndarray, *, log: bool = False) -> str:
    """One figure of every layer over the steps as colours, the first layer at the bottom: an ``<svg>`` text. NaN is
    left blank; ``log``: colours by the logarithm, for which values must be positive."""
    from matplotlib.colors import LogNorm

    with _picture(title) as (axes, out):
        finite = values_ls[np.isfinite(values_ls)]
        norm = LogNorm(finite.min(), max(finite.max(), finite.min() * 1.001)) if log else None
        edges = np.concatenate([steps[:1] - np.diff(steps[:2], prepend=0)[-1], steps]) if len(steps) else steps
        layers = np.arange(len(values_ls) + 1) - 0.5
        mesh = axes.pcolormesh(
            edges, layers, np.ma.masked_invalid(values_ls), norm=norm, cmap="viridis", rasterized=True
        )
        axes.figure.colorbar(mesh, ax=axes)
        axes.set_xlabel("step")
        axes.set_ylabel("layer")
        axes.grid(False)
    return out.svg


class Bars(NamedTuple):
    """One series of bars: a value for each name; NaN draws none."""

    label: str
    values: Sequence[float]


def draw_bars(
    title: str,
    names: Sequence[str],
    series: Sequence[Bars],
    *,
    x_label: str = "",
    stacked: bool = False,
    percent: bool = False,
) -> str:
    """Horizontal bars, the first name on top, as an ``<svg>`` text.

    Args:
      title: what stands above it.
      names: one row of bars each.
      series: side by side in a row, or with ``stacked`` one after the other; a legend where there are several.
      x_label: what the bars measure.
      percent: the values are shares of 1.
    """
    from matplotlib.ticker import EngFormatter, PercentFormatter

    groups = 1 if stacked else len(series)
    with _picture(title, height=1.1 + 0.22 * len(names) * max(groups, 1.3)) as (axes, out):
        rows, size = np.arange(len(names)), 0.8 / groups
        left = np.zeros(len(names))
        for i, (colour, one) in enumerate(zip(_COLOURS * (1 + len(series) // len(_COLOURS)), series, strict=False)):
            values = np.nan_to_num(np.asarray(one.values, float))
            place = rows if stacked else rows + (i - (groups - 1) / 2) * size
            axes.barh(place, values, size, left=left if stacked else None, color=colour, label=one.label)
            left += values
        axes.set_yticks(rows, [_cut(name) for name in names])
        axes.invert_yaxis()
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0) if percent else EngFormatter(sep=""))
        axes.grid(False, axis="y")
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8.5)
    return out.svg


def _cut(name: str) -> str:
    """Without its middle where it is too long: names often begin alike. Chinese and the like are twice as wide."""
    longest = _LONGEST_NAME // (2 if any(unicodedata.east_asian_width(letter) in "WF" for letter in name) else 1)
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


class _Drawn:
    svg = ""


@contextlib.contextmanager
def _picture(title: str, *, height: float = 3.1) -> Iterator[tuple[Any, _Drawn]]:
    """Axes to draw on; what is drawn is the text ``svg`` at the end."""
    import matplotlib

    # Object-oriented throughout: pyplot would keep global state and look for a display.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import TightLayoutEngine

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "jaxlm",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.edgecolor": "#9ca3af",
        "axes.labelcolor": "#4b5563",
        "xtick.color": "#4b5563",
        "ytick.color": "#4b5563",
    }
    drawn = _Drawn()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Letters stay text (svg.fonttype), which a browser draws in whatever font has them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        # Laid out once; "constrained" does it twice, for half of the seconds of a report.
        figure = Figure(figsize=(5.4, height), layout=TightLayoutEngine(pad=0.4))
        canvas = FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        # Above the picture and not the axes, which long names push to the right.
        figure.suptitle(title, x=0.02, ha="left", fontsize=10.5, fontweight="bold", color="#111827")
        axes.set_axisbelow(True)
        axes.grid(True, color="#e5e7eb", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        yield axes, drawn
        text = io.StringIO()
        canvas.print_svg(text, metadata={"Date": None, "Creator": None})
    drawn.svg = text.getvalue()[text.getvalue().index("<svg") :]


def _draw(axes: Any, curve: Curve, colour: str, line: str) -> None:
    if curve.band is not None:
        axes.fill_between(curve.steps, *curve.band, color=colour, alpha=0.15, linewidth=0)
    if curve.points:
        axes.plot(curve.steps, curve.values, "o", color=colour, markersize=2.8, alpha=0.7, label=curve.label)
        return
    steps, values = thin(curve.steps, curve.values)
    marker = "o" if curve.markers or len(steps) < 3 else None
    if not curve.smooth or len(curve.values) < 20:
        axes.plot(steps, values, line, color=colour, linewidth=1.5, marker=marker, markersize=3.5, label=curve.label)
        return
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.25)
    smoothed = running_mean(curve.values, max(len(curve.values) // 40, 3))
    axes.plot(*thin(curve.steps, smoothed), line, color=colour, linewidth=1.6, label=curve.label)


def _clip_top(axes: Any, curves: Sequence[Curve]) -> None:
    values = np.concatenate([curve.values[np.isfinite(curve.values)] for curve in curves])
    if len(values) < 20:
        return
    low, high, top = values.min(), np.quantile(values, 0.97), values.max()
    if top - low > 1.5 * (high - low) > 0:
        margin = 0.05 * (high - low)
        axes.set_ylim(low - margin, high + margin)


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most some hundred points: of each bin the lowest and the highest, so that spikes stay visible."""
    if len(steps) <= _MOST_POINTS:
        return steps, values
    keep: list[int] = []
    for bin_ in np.array_split(np.arange(len(steps)), _MOST_POINTS // 2):
        inside = values[bin_]
        if np.isfinite(inside).any():
            keep += sorted({int(bin_[np.nanargmin(inside)]), int(bin_[np.nanargmax(inside)])})
        else:
            keep.append(int(bin_[0]))
    return steps[keep], values[keep]


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over `window` values (fewer at the ends), NaNs left out."""
    ok = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(ok, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(ok)])
    index = np.arange(len(values))
    low, high = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(values))
    count = counts[high] - counts[low]
    return np.where(count > 0, (sums[high] - sums[low]) / np.maximum(count, 1), np.nan)
