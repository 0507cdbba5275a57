"""Figures of a stack: losses, calibration, and how the errors of its models correlate."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from scikd.report import PALETTE, Figure, plot_intervals
from scikd.stacking import Comparison, Gram
from scikd.stacking._predictions import Predictions

__all__ = ["calibration_figure", "correlation_figure", "loss_figure"]

BINS = 12
WIDTHS = 10
MOST_LABELS = 40
MOST_NUMBERS = 12
MOST_ROWS = 200_000


def loss_figure(comparison: Comparison) -> Figure:
    """Return a figure of the losses of all combiners on held-out rows, with intervals."""
    losses = [comparison.loss(name) for name in comparison.names]
    labels = [name.replace("_", " ") for name in comparison.names]

    def draw(axes: Any) -> None:
        values, lows, highs = zip(*losses, strict=True)
        plot_intervals(axes, labels, values, lows, highs, reference=values[0])
        axes.set_xlabel(f"{comparison.loss_name} on held-out rows (lower is better)")

    return Figure(
        "Held-out loss of every combiner",
        draw,
        note=f"Dot: loss; whisker: 95 % interval; dashed: {labels[0]}.",
        size=(6.4, 0.8 + 0.28 * len(labels)),
    )


def calibration_figure(
    predicted: np.ndarray, y: np.ndarray, weight: np.ndarray, classes: np.ndarray | None = None
) -> tuple[Figure, float | None]:
    """Return a figure of truth against held-out prediction.

    Parameters
    ----------
    predicted : ndarray of shape (n_samples,) or (n_samples, n_classes)
        Of rows that were held out; rows with NaN are left out.
    y : ndarray of shape (n_samples,)
        Truth.
    weight : ndarray of shape (n_samples,)
        Weights.
    classes : ndarray of shape (n_classes,) or None, default=None
        Labels of the columns.

    Returns
    -------
    Figure
        Of numbers in bins of equal weight; of classes the second of two, or the most probable one.
    float or None
        Of numbers the slope of the truth on the prediction.
    """
    known = np.isfinite(predicted.reshape(len(y), -1)).all(axis=1) & (weight > 0)
    predicted, y, weight = predicted[known], y[known], weight[known]
    numbers = predicted.ndim == 1
    if numbers:
        x, truth = predicted, np.asarray(y, dtype=float)
        axes_names = ("prediction (mean of the bin)", "truth (mean of the bin)")
        number = _equal_parts(x, weight)
    elif classes is not None and len(classes) == 2:
        x, truth = predicted[:, 1], (y == classes[1]).astype(float)
        axes_names = (f"probability given to {classes[1]}", "share of rows")
        number = np.minimum((x * WIDTHS).astype(np.intp), WIDTHS - 1)
    else:
        labels = np.asarray(classes)
        x, truth = predicted.max(axis=1), labels[predicted.argmax(axis=1)] == y
        axes_names = ("probability given to the most probable class", "share of rows it is right")
        number = np.minimum((x * WIDTHS).astype(np.intp), WIDTHS - 1)
    centre, mean, error = _bins(x, np.asarray(truth, dtype=float), weight, number)

    def draw(axes: Any) -> None:
        line = [min(centre.min(), mean.min()), max(centre.max(), mean.max())]
        axes.plot(line, line, color="black", linewidth=1.0, linestyle=(0, (4, 3)), alpha=0.7)
        style = {"fmt": "o-", "markersize": 5.0, "linewidth": 1.4, "elinewidth": 1.4}
        whisker = np.stack([1.96 * error] * 2)
        if not numbers:  # no share is below zero or above one
            whisker = np.minimum(whisker, [mean, 1.0 - mean])
        axes.errorbar(centre, mean, yerr=np.maximum(whisker, 0.0), color=PALETTE[0], **style)
        axes.set_xlabel(axes_names[0])
        axes.set_ylabel(axes_names[1])
        axes.grid()

    bins = f"{BINS} bins of equal weight" if numbers else f"{WIDTHS} bins of equal width"
    note = (
        f"{bins}; whiskers: 95 % of the mean of a bin, rows taken as independent. On the dashed "
        f"line what is {'predicted' if numbers else 'given'} is what happens."
    )
    figure = Figure("Truth against held-out prediction", draw, note=note, size=(5.0, 4.2))
    return figure, _slope(x, truth, weight) if numbers else None


def _equal_parts(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the number of the bin of every row, of bins of equal weight."""
    order = np.argsort(x, kind="stable")
    share = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    number = np.empty(len(x), dtype=np.intp)
    number[order] = np.minimum((share * BINS).astype(np.intp), BINS - 1)
    # Equal predictions belong together.
    _, tie = np.unique(x, return_inverse=True)
    first = np.full(tie.max() + 1, BINS)
    np.minimum.at(first, tie, number)
    parts: np.ndarray = first[tie]
    return parts


def _bins(x: np.ndarray, truth: np.ndarray, weight: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return mean prediction, mean truth and its standard error of every bin."""
    number = np.unique(number, return_inverse=True)[1]
    total = np.bincount(number, weights=weight)
    mean_x = np.bincount(number, weights=weight * x) / total
    mean = np.bincount(number, weights=weight * truth) / total
    spread = np.bincount(number, weights=weight**2 * (truth - mean[number]) ** 2)
    return np.stack([mean_x, mean, np.sqrt(spread) / total])


def _slope(x: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    centred = x - np.average(x, weights=weight)
    spread = np.average(centred**2, weights=weight)
    return float(np.average(centred * truth, weights=weight) / spread) if spread else np.nan


def correlation_figure(P: Any, y: Any, sample_weight: Any = None) -> Figure:
    """Return a heat map of the correlation of residuals.

    Parameters
    ----------
    P : array-like, frame, mapping, OutOfFold or Predictions
        Predictions of shape (n_samples, n_models), or probabilities of shape (n_samples, n_models,
        n_classes).
    y : array-like of shape (n_samples,)
        Truth.
    sample_weight : array-like of shape (n_samples,) or None, default=None
        Weights.
    """
    cube, y = Predictions.of(P), np.asarray(y)
    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    correlation, order = _residual_correlation(cube, y, weight)
    names = [cube.names[j] for j in order]
    off = correlation[~np.eye(len(order), dtype=bool)]
    lowest = float(np.floor(10 * off.min(initial=0.9)) / 10)

    def draw(axes: Any) -> None:
        # Errors of one target are mostly alike: a scale from -1 would show one colour.
        shown = {"cmap": "viridis", "vmin": lowest, "vmax": 1.0, "aspect": "equal"}
        image = axes.imshow(correlation[np.ix_(order, order)], **shown)
        axes.spines[:].set_visible(False)
        if len(names) <= MOST_NUMBERS:
            for (i, j), value in np.ndenumerate(correlation[np.ix_(order, order)]):
                light = value < lowest + 0.6 * (1.0 - lowest)  # where the colour is dark
                ink = "white" if light else "#1c2128"  # whatever the page
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
        if len(names) <= MOST_LABELS:
            axes.set_xticks(range(len(names)), names, rotation=90)
            axes.set_yticks(range(len(names)), names)
        else:
            axes.set_xticks([])
            axes.set_yticks([])
        axes.tick_params(length=0, labelsize=8 if len(names) <= 24 else 6)
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.8)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8)

    side = float(np.clip(2.2 + 0.16 * len(names), 3.6, 7.0))
    typical = ""
    if len(off):
        typical = f" In the median {np.median(off):.2f} ({off.min():.2f} to {off.max():.2f})."
    return Figure(
        "Correlation of residuals",
        draw,
        note=(
            "Of prediction minus truth, models that err alike side by side. Predictions of one "
            "target always correlate; what a stack lives on is errors that do not. The scale "
            f"begins at the smallest.{typical}"
        ),
        size=(side + 0.8, side),
    )


def _residual_correlation(
    cube: Predictions, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlation of errors, and the order in which like stands beside like."""
    heard = np.flatnonzero((weight > 0) & cube.covered)
    if len(heard) > MOST_ROWS:
        heard = heard[np.linspace(0, len(heard) - 1, MOST_ROWS).astype(np.intp)]
    part, y, weight = cube.take(heard), y[heard], weight[heard]
    if part.values.ndim == 3:
        classes = np.unique(y) if part.classes is None else part.classes
        truth = (y[:, None] == classes).astype(np.float64)
        flat = np.swapaxes(part.filled(), 1, 2).reshape(-1, part.n_models)
        gram = Gram.of(flat, truth.ravel(), np.repeat(weight, len(classes)))
    else:
        gram = Gram.of(part, y, weight)
    scatter = gram.scatter[:-1, :-1]
    size = np.sqrt(scatter.diagonal())
    size = np.where(size > 0, size, 1.0)
    correlation = np.clip(scatter / np.outer(size, size), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    if len(correlation) < 3:
        return correlation, np.arange(len(correlation))
    upper = np.triu_indices(len(correlation), 1)
    return correlation, leaves_list(linkage(1.0 - correlation[upper], "average"))
