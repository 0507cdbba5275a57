"""A report of a training: learning curves, parity plots, and errors, on one page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from scikd._extras import require
from scikd.exceptions import InvalidInputError
from scikd.report import PALETTE, Figure, Report, Section, Table

from ._training_log import ERRORS, UNITS
from .evaluation import QUANTITIES, Metrics
from .training import TrainingResult

__all__ = ["plot_learning_curve", "plot_parity", "training_report"]

MOST_DOTS = 8000  # more make a larger file, and no other picture
# Quantities with a parity plot, in the units of their labels.
PLOTTED = {
    "energy": "eV/atom",
    "forces": "eV/Å",
    "charges": "e",
    "dipole": "e·Å",
    "stress": "eV/Å³",
}
WIDTH = {1: 1, 2: 2, 4: 2}  # panels side by side; else three
PANEL = 2.75  # inches


def training_report(
    result: TrainingResult | None = None,
    metrics: Metrics | None = None,
    *,
    title: str = "Training of a force field",
) -> Report:
    """Return a report of a training, of a test, or of both.

    Parameters
    ----------
    result : TrainingResult or None, default=None
        Of the training: learning curves.
    metrics : Metrics or None, default=None
        On structures that it was not trained on: errors and parity plots.
    title : str, default="Training of a force field"
        Title of the page.

    Raises
    ------
    InvalidInputError
        If there is neither.
    """
    sections = []
    if metrics is not None:
        sections.append(_test_section(metrics))
    if result is not None and result.history:
        sections.append(_training_section(result))
    if not sections:
        message = "Expected the result of a training, or metrics of a test; got neither."
        raise InvalidInputError(message)
    subtitle = ""
    if result is not None:
        symbols = ", ".join(chemical_symbols[z] for z in result.force_field.elements)
        size = sum(p.numel() for p in result.force_field.parameters())
        subtitle = f"Elements {symbols}; {size:,} parameters"
    return Report(title, sections, subtitle=subtitle)


def plot_parity(
    axes: Any,
    labels: np.ndarray,
    predictions: np.ndarray,
    *,
    numbers: np.ndarray | None = None,
    unit: str = "",
    legend: bool = True,
) -> None:
    """Draw predictions over labels, with the line on which they are equal.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    labels, predictions : ndarray of shape (n,) or (n, k)
        What is compared, in the same unit; NaN labels are left out.
    numbers : ndarray of shape (n,) or None, default=None
        Atomic numbers, which colour the dots.
    unit : str, default=""
        For the axes.
    legend : bool, default=True
        Whether to say which colour is which element.
    """
    known = ~np.isnan(labels)
    x, y = labels[known], predictions[known]
    width = labels.size // len(labels)
    rows = None if numbers is None else np.repeat(numbers, width)[known.ravel()]
    # The same dots every time: a report that is made again does not change.
    chosen = np.random.default_rng(0).permutation(len(x))[:MOST_DOTS]
    for colour, symbol, part in _groups(rows, chosen):
        axes.plot(
            x[part], y[part], ".", color=colour, markersize=3.0, alpha=0.5, markeredgewidth=0.0,
            label=symbol, rasterized=True,
        )  # fmt: skip
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.04 * (high - low) or 1.0
    ends = [low - margin, high + margin]
    axes.plot(ends, ends, color="black", linewidth=0.8, alpha=0.6, zorder=0)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    axes.grid()
    axes.set_xlabel(f"label ({unit})" if unit else "label")
    axes.set_ylabel(f"prediction ({unit})" if unit else "prediction")
    if rows is not None and legend:
        axes.legend(
            loc="upper left", fontsize=8.0, markerscale=3.0, handletextpad=0.1, borderpad=0.3
        )


def plot_learning_curve(
    axes: Any, history: Sequence[Mapping[str, float]], name: str, *, unit: str = ""
) -> None:
    """Draw a column of the log over the epochs, on a logarithmic axis.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    history : sequence of mapping of str to float
        Lines of the log.
    name : str
        Name of the column without ``train_`` and ``validation_``, which are both drawn.
    unit : str, default=""
        For the vertical axis.
    """
    for which, colour in (("train", PALETTE[4]), ("validation", PALETTE[0])):
        drawn = [(r["epoch"], r[f"{which}_{name}"]) for r in history if f"{which}_{name}" in r]
        drawn = [(epoch, value) for epoch, value in drawn if value > 0.0]
        if drawn:
            marker = "o" if len(drawn) < 3 else None  # of one or two points there is no line
            axes.plot(*zip(*drawn, strict=True), color=colour, label=which, marker=marker)
    axes.set_yscale("log")
    ticker = require("matplotlib.ticker", extra="plots", feature="A plot")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=6))
    # Plain numbers, and enough of them where the curve spans less than a decade.
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid()
    axes.set_xlabel("epoch")
    axes.set_ylabel(unit)


def _groups(
    rows: np.ndarray | None, chosen: np.ndarray
) -> list[tuple[str, str | None, np.ndarray]]:
    """Return colour, symbol and dots of each element, the commonest first, below the rest."""
    if rows is None:
        return [(PALETTE[0], None, chosen)]
    found, counts = np.unique(rows[chosen], return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    palette = {int(z): PALETTE[k % len(PALETTE)] for k, z in enumerate(np.sort(found))}
    return [(palette[int(z)], chemical_symbols[z], chosen[rows[chosen] == z]) for z in order]


def _layout(n: int, height: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """Return rows and columns of n panels, and the size of all in inches."""
    width = WIDTH.get(n, 3)
    rows = math.ceil(n / width)
    return (rows, width), (PANEL * width + 0.3, height * rows + 0.2)


def _spelled(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100.0 else f"{value:.3g}"


def _test_section(metrics: Metrics) -> Section:
    names = [name for name in PLOTTED if name in metrics.errors]

    def draw(grid: Any) -> None:
        for axes, name in zip(grid, names, strict=False):
            error = metrics.errors[name]
            plot_parity(
                axes,
                metrics.labels[name],
                metrics.predictions[name],
                numbers=metrics.numbers if name in {"forces", "charges"} else None,
                unit=PLOTTED[name],
                legend=name == "forces" or "forces" not in names,
            )
            axes.set_title(name)
            text = f"RMSE {_spelled(error.rmse)} {error.unit}"
            axes.text(0.97, 0.04, text, ha="right", transform=axes.transAxes, fontsize=9.0)
        for axes in grid[len(names) :]:
            axes.set_visible(False)

    items: list[Table | Figure] = [metrics.table()]
    if names:
        panels, size = _layout(len(names), PANEL)
        note = "Predictions over labels; on the line they are equal. At most 8,000 dots a plot."
        items.append(Figure("Parity", draw, note=note, size=size, panels=panels))
    if metrics.by_element:
        items.append(metrics.element_table())
    return Section("On structures it has not seen", items, summary=_summary(metrics))


def _summary(metrics: Metrics) -> str:
    parts = []
    for name in ("energy", "forces", "charges"):
        if name in metrics.errors:
            error = metrics.errors[name]
            title = QUANTITIES[name][0]
            share = f", {error.rmse / error.spread:.1%} of their spread" if error.spread else ""
            parts.append(f"{title} {_spelled(error.rmse)} {error.unit}{share}")
    return f"Root mean square errors: {'; '.join(parts)}." if parts else ""


def _training_section(result: TrainingResult) -> Section:
    history = result.history
    columns = [("loss", "loss")]
    columns += [
        (column, unit)
        for (column, _), unit in zip(ERRORS.values(), UNITS, strict=True)
        if any(row.get(f"validation_{column}", 0.0) > 0.0 for row in history)
    ]

    def draw(grid: Any) -> None:
        for axes, (name, unit) in zip(grid, columns, strict=False):
            plot_learning_curve(axes, history, name, unit=unit)
            axes.set_title(name.split("_")[0])
        grid[0].legend(fontsize=8.0)
        for axes in grid[len(columns) :]:
            axes.set_visible(False)

    last = history[-1]
    panels, size = _layout(len(columns), 2.2)
    note = (
        "Training: the weights themselves, averaged over the steps of an epoch while they change. "
        "Validation: averaged weights, at the end of the epoch."
    )
    figure = Figure("Learning curves", draw, note=note, size=size, panels=panels)
    seconds = sum(row["seconds"] for row in history)
    summary = (
        f"{int(last['epoch'])} epochs in {seconds / 60.0:.3g} minutes, "
        f"{last['structures_per_second']:.3g} structures per second; the lowest validation loss "
        f"was that of epoch {result.best_epoch}, whose weights were kept."
    )
    return Section("Training", [figure], summary=summary)
