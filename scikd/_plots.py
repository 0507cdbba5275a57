"""Plots for reports: a palette, two kinds of plot, and rendering without global state.

Figures are made with ``matplotlib.figure.Figure`` and never through pyplot, so that no backend is
chosen and no figure registered in the caller's process. What is drawn in black, matplotlib's
default for text and axes, becomes the ink of the page: dark on light, or light on dark.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scikd._extras import require
from scikd.exceptions import InvalidInputError

__all__ = ["PALETTE", "plot_intervals", "plot_tradeoff", "render"]

# Okabe and Ito (2008), told apart with every common colour blindness; their blue a little lighter,
# and without their black and yellow, so that all can be seen on a dark and on a light page.
PALETTE = ("#2283c6", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

INK = {False: "#1c2128", True: "#e4e7eb"}
FAINT = {False: "#c3c9d1", True: "#4a525d"}
PAPER = {False: "#ffffff", True: "#1b1f26"}

FONT_SIZE = 10.0
DPI = 192

# Where a label may go, as steps right and up from its dot, the best place first.
PLACES = ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def plot_intervals(
    axes: Any,
    labels: Sequence[str],
    values: ArrayLike,
    lows: ArrayLike,
    highs: ArrayLike,
    reference: float | None = None,
) -> None:
    """Draw one dot with a whisker for each label, the first on top.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    labels : sequence of str, of length n
        Names, written at the left.
    values : array-like of shape (n,)
        The dots, in the unit of the horizontal axis.
    lows, highs : array-like of shape (n,)
        Ends of the whiskers, e.g. of a 95 % confidence interval.
    reference : float or None, default=None
        Position of a dashed vertical line, e.g. the value of the baseline.

    Raises
    ------
    InvalidInputError
        If the lengths differ, or a whisker ends before it begins.
    """
    value, low, high = _columns(labels, values=values, lows=lows, highs=highs)
    if (low > high).any():
        worst = labels[int(np.flatnonzero(low > high)[0])]
        message = f"lows must not exceed highs, but do for {worst!r}; are they swapped?"
        raise InvalidInputError(message)
    rows = np.arange(len(labels))
    if reference is not None:
        axes.axvline(reference, color="black", linewidth=1.0, linestyle=(0, (4, 3)), alpha=0.7)
    axes.hlines(rows, low, high, color=PALETTE[0], linewidth=2.4, alpha=0.85)
    axes.plot(value, rows, "o", color=PALETTE[0], markersize=7.0)
    axes.set_yticks(rows, [str(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def plot_tradeoff(
    axes: Any,
    latency: ArrayLike,
    loss: ArrayLike,
    labels: Sequence[str],
    sizes: ArrayLike | None = None,
) -> None:
    """Draw loss over latency, with the models that no other beats in both joined by a line.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw; its horizontal axis becomes logarithmic.
    latency : array-like of shape (n,)
        Time of one prediction, positive; the caller writes the unit on the axis.
    loss : array-like of shape (n,)
        Loss, the lower the better.
    labels : sequence of str, of length n
        Names, written beside the dots.
    sizes : array-like of shape (n,) or None, default=None
        Sizes of the models, positive, shown as area of the dots; None draws all alike.

    Raises
    ------
    InvalidInputError
        If the lengths differ, or a latency or size is not positive.
    """
    given = np.ones(len(labels)) if sizes is None else sizes
    x, y, weight = _columns(labels, latency=latency, loss=loss, sizes=given)
    if (x <= 0.0).any() or (weight <= 0.0).any():
        raise InvalidInputError(
            "latency and sizes must be positive, as they are drawn by their log"
        )
    best = [i for i in np.argsort(x, kind="stable") if y[i] < y[x < x[i]].min(initial=np.inf)]
    # A staircase: with as much time as this, a loss as low as that can be had.
    front = np.column_stack([np.repeat(x[best], 2)[1:], np.repeat(y[best], 2)[:-1]])
    axes.plot(*front.T, color="black", linewidth=1.0, alpha=0.45, zorder=1)
    # Areas from 50 to 420 square points; models differ by orders of magnitude, so by their log.
    spread = np.ptp(np.log(weight)) or 1.0
    area = 50.0 + 370.0 * (np.log(weight) - np.log(weight).min()) / spread
    on_front = np.isin(np.arange(len(x)), best)
    for chosen, colour in ((on_front, PALETTE[0]), (~on_front, PALETTE[1])):
        axes.scatter(x[chosen], y[chosen], s=area[chosen], color=colour, alpha=0.85, linewidths=0)
    axes.set_xscale("log")
    axes.margins(x=0.16, y=0.18)
    axes.grid()
    axes.set_xlabel("latency (log scale)")
    axes.set_ylabel("loss (lower is better)")
    _write_labels(axes, labels, np.column_stack([x, y]), np.sqrt(area / np.pi), front)


def _write_labels(axes: Any, labels: Sequence[str], dots: Any, radii: Any, front: Any) -> None:
    """Write each label where it covers no dot, label or line, if there is such a place."""
    figure = axes.get_figure(root=True)
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 72.0  # pixels in a point
    centres, corners = axes.transData.transform(dots), axes.transData.transform(front)
    reach = radii[:, None] * scale
    taken = np.hstack([centres - reach, centres + reach])  # left, bottom, right, top
    path = np.vstack([np.linspace(a, b, 60) for a, b in itertools.pairwise(corners)] or [corners])
    frame = axes.get_window_extent(renderer)
    for i, label in enumerate(labels):
        others = np.delete(taken, i, axis=0)
        best: Any = None
        fewest = np.inf
        for across, along in PLACES:
            text = axes.annotate(
                str(label),
                dots[i],
                xytext=(across * (radii[i] + 3.0), along * (radii[i] + 3.0)),
                textcoords="offset points",
                ha={-1: "right", 0: "center", 1: "left"}[across],
                va={-1: "top", 0: "center", 1: "bottom"}[along],
                fontsize=FONT_SIZE - 1.0,
            )
            left, bottom, right, top = text.get_window_extent(renderer).extents
            over = (others[:, 0] < right) & (others[:, 2] > left)
            over &= (others[:, 1] < top) & (others[:, 3] > bottom)
            crossed = ((path > [left, bottom]) & (path < [right, top])).all(axis=1).any()
            clashes = 2 * int(over.sum()) + crossed + 2 * (left < frame.x0 or right > frame.x1)
            loser = text
            if clashes < fewest:
                loser, best, fewest = best, text, clashes
            if loser is not None:
                loser.remove()
        taken = np.vstack([taken, best.get_window_extent(renderer).extents])


def render(
    draw: Callable[[Any], None],
    size: tuple[float, float],
    panels: tuple[int, int] | None = None,
    *,
    dark: Sequence[bool] = (False,),
) -> list[bytes]:
    """Call ``draw`` once on fresh axes, and return the picture for light or dark pages.

    Parameters
    ----------
    draw : callable
        Draws on the ``matplotlib.axes.Axes`` it is given, or on the list of them with ``panels``.
    size : tuple of float
        Width and height in inches.
    panels : tuple of int or None, default=None
        Rows and columns of axes; None is a single one.
    dark : sequence of bool, default=(False,)
        One picture for each: for a dark page, or for a light one.

    Returns
    -------
    list of bytes
        PNG files.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    feature = "A plot"
    figures = require("matplotlib.figure", extra="plots", feature=feature)
    agg = require("matplotlib.backends.backend_agg", extra="plots", feature=feature)
    figure = figures.Figure(figsize=size, dpi=DPI, layout="constrained")
    agg.FigureCanvasAgg(figure)
    grid = list(figure.subplots(*(panels or (1, 1)), squeeze=False).flat)
    for axes in grid:
        axes.set_prop_cycle(color=PALETTE)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=FONT_SIZE - 1.0, grid_alpha=0.6, grid_linewidth=0.7)
        axes.title.set_size(FONT_SIZE + 0.5)
        axes.xaxis.label.set_size(FONT_SIZE)
        axes.yaxis.label.set_size(FONT_SIZE)
    draw(grid if panels else grid[0])
    lines = require("matplotlib.lines", extra="plots", feature=feature)
    texts = require("matplotlib.text", extra="plots", feature=feature)
    neutral = [
        artist
        for artist in figure.findobj(lambda item: isinstance(item, (texts.Text, lines.Line2D)))
        if artist.get_color() in ("black", "k")
    ]
    pictures = []
    for wanted in dark:
        _paint(figure, neutral, dark=wanted)
        buffer = io.BytesIO()
        # Without the Software entry the file does not change with matplotlib's version alone.
        figure.savefig(
            buffer, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None}
        )
        pictures.append(buffer.getvalue())
    return pictures


def _paint(figure: Any, neutral: Sequence[Any], *, dark: bool) -> None:
    """Turn matplotlib's black on white into the page's ink on paper."""
    ink, faint, paper = INK[dark], FAINT[dark], PAPER[dark]
    figure.set_facecolor(paper)
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.tick_params(which="both", color=faint, labelcolor=ink, grid_color=faint)
        for spine in axes.spines.values():
            spine.set_edgecolor(faint)
        legend = axes.get_legend()
        if legend is not None:
            legend.get_frame().set(facecolor=paper, edgecolor=faint)
    for artist in neutral:
        artist.set_color(ink)


def _columns(labels: Sequence[str], **columns: ArrayLike) -> list[Any]:
    """Return the columns as arrays as long as the labels, or list all that are not."""
    arrays = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    wrong = [
        f"{name} has shape {a.shape}" for name, a in arrays.items() if a.shape != (len(labels),)
    ]
    if wrong or len(labels) == 0:
        message = f"expected one number for each of {len(labels)} labels (at least one); "
        raise InvalidInputError(message + ("; ".join(wrong) or "got no labels"))
    return list(arrays.values())
