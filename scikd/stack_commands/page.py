"""The page of a stack: what it is worth, its weights, and how far its models repeat each other."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from scikd.exceptions import InvalidInputError
from scikd.report import PALETTE, Figure, Item, Report, Section, Table, Text
from scikd.stack_commands.figures import calibration_figure, correlation_figure, loss_figure
from scikd.stacking import Comparison, FrozenPool, freeze, held_out_predictions
from scikd.stacking._cubes import as_cube
from scikd.stacking._predictions import Predictions

__all__ = ["HELD_OUT", "n_dropped", "risk_table", "stack_report", "verdict"]

HELD_OUT = (
    "Rows were held out from every stage of the stack: filter, penalties and weights. They were "
    "not held out from the models that predicted the other rows, so that losses are too good where "
    "models learn targets by heart."
)
"""What an outer score leaves out, and what it does not."""

MOST_WEIGHTS = 30
RESAMPLES = 100


def stack_report(
    meta: Any,
    P: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    groups: Any = None,
    fold: Any = None,
    row_id: Any = None,
    source: str = "",
    command: str = "",
) -> Report:
    """Return a page on a fitted meta-model.

    Parameters
    ----------
    meta : MetaRegressor or MetaClassifier
        Fitted.
    P, y, sample_weight, groups, fold, row_id
        What it was fitted to.
    source : str, default=""
        Where the predictions come from, for the title.
    command : str, default=""
        For the foot.

    Returns
    -------
    scikd.report.Report
        With the losses of all combiners, a plot of calibration, weights with intervals, correlation
        of residuals, and condition numbers. Figures need matplotlib.
    """
    given: dict[str, Any] = {"sample_weight": sample_weight, "groups": groups}
    given |= {"fold": fold, "row_id": row_id}
    classifier = hasattr(meta, "classes_")
    cube = as_cube(Predictions.of(P), meta.inputs) if classifier else Predictions.of(P)
    y = np.asarray(y)
    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    sections = [
        _risk_section(meta),
        _calibration_section(meta, P, y, weight, given),
        _weight_section(meta, P, y, given),
        Section(
            "How far do the models repeat each other?",
            [correlation_figure(cube, y, weight), _condition_table(meta)],
        ),
    ]
    return Report(
        f"Stack of {len(meta.names_)} models",
        [section for section in sections if section is not None],
        subtitle=f"{len(y):,} rows of out-of-fold predictions{f' in {source}' if source else ''}.",
        seed=meta.random_state,
        command=command,
    )


# --- risk -------------------------------------------------------------------------------------


def risk_table(comparison: Comparison) -> Table:
    """Return the losses of all combiners on held-out rows, with paired differences.

    Parameters
    ----------
    comparison : Comparison
        Of a fitted meta-model.
    """
    others = [name for name in ("mean", "best_single") if name in comparison.names]
    rows = []
    for name, models in zip(comparison.names, comparison.models, strict=True):
        loss = comparison.loss(name)
        gaps = [
            None if name == other else _signed(comparison.difference(name, other))
            for other in others
        ]
        rows.append([name.replace("_", " "), loss.value, _span(loss), *gaps, models])
    heads = [f"minus {other.replace('_', ' ')} [95 %]" for other in others]
    return Table(
        "Combiners on rows that they were not fitted on",
        ["combiner", comparison.loss_name, "95 % interval", *heads, "models"],
        rows,
        note=(
            f"Intervals by bootstrap over {comparison.resampled}; differences "
            "are paired, below zero is better. Marked: what was asked for. Simplest within one "
            f"standard error of the best: {comparison.simplest.replace('_', ' ')}."
        ),
        highlight_row=comparison.names.index(comparison.default),
    )


def _risk_section(meta: Any) -> Section:
    comparison = meta.comparison_
    if comparison is None:
        text = "Nothing could be held out, so that no loss is known that does not flatter."
        return Section("What it is worth", [Text(text)])
    items: list[Item] = [risk_table(comparison), Text(HELD_OUT), loss_figure(comparison)]
    return Section("What it is worth", items, summary=verdict(meta))


def verdict(meta: Any) -> str:
    """Return the finding in a sentence or two, of a meta-model with a comparison."""
    comparison = meta.comparison_
    gap = comparison.difference(comparison.default, "mean")
    sure = "better than" if gap.high < 0 else "worse than" if gap.low > 0 else "not told apart from"
    loss = comparison.losses[comparison.default]
    dropped = n_dropped(meta)
    kept = f" of the {len(meta.names_) - dropped} that are not redundant" if dropped else ""
    text = (
        f"The combination ({comparison.default}) has a {comparison.loss_name} of {loss:.4g} on "
        f"held-out rows and is {sure} the plain mean{kept} ({_signed(gap)}). It needs "
        f"{len(meta.required_models_)} of {len(meta.names_)} models."
    )
    reason = "" if meta.overfit_ is None else meta.overfit_.reason
    return f"{text} {reason}".rstrip()


def n_dropped(meta: Any) -> int:
    """Return how many models a meta-model dropped as redundant, none of which is in the mean."""
    return 0 if meta.redundancy_ is None else int((~meta.redundancy_.kept_).sum())


# --- calibration ------------------------------------------------------------------------------


def _calibration_section(
    meta: Any, P: Any, y: np.ndarray, weight: np.ndarray, given: dict[str, Any]
) -> Section | None:
    try:
        predicted = held_out_predictions(meta, P, y, **given)
    except InvalidInputError:  # one group only
        return None
    figure, slope = calibration_figure(predicted, y, weight, getattr(meta, "classes_", None))
    summary = ""
    if slope is not None:
        summary = f"Where it predicts one unit more, the truth is {slope:.3g} higher."
    return Section("Is it calibrated?", [figure], summary=summary)


# --- weights ----------------------------------------------------------------------------------


def _weight_section(meta: Any, P: Any, y: np.ndarray, given: dict[str, Any]) -> Section:
    weights, ends, said = meta.weights_, None, "weight"
    if hasattr(meta, "classes_"):
        weights, said = _say(meta), "weight or exponent"
    elif meta.recipe is None:
        ends = meta.weight_intervals(P, y, **given, n_resamples=RESAMPLES)
    order = np.argsort(-np.abs(weights), kind="stable")
    reasons = {} if meta.redundancy_ is None else meta.redundancy_.reasons_
    columns: dict[str, list[Any]] = {
        "model": [meta.names_[j] for j in order],
        said: [float(weights[j]) for j in order],
    }
    if ends is not None:
        columns["95 % interval"] = [f"[{ends[0][j]:.3g}, {ends[1][j]:.3g}]" for j in order]
    if reasons:
        columns["dropped as"] = [str(reasons.get(meta.names_[j], "")) for j in order]
    note = "Weights of a model and of its near copies trade places from sample to sample"
    note += "." if ends is None else ": wide intervals of two models say that either would do."
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    table = Table("Weights", list(columns), rows, note=note)
    shown = order[:MOST_WEIGHTS]

    def draw(axes: Any) -> None:
        place = np.arange(len(shown))
        colours = [PALETTE[0] if weights[j] >= 0 else PALETTE[1] for j in shown]
        axes.barh(place, weights[shown], color=colours, alpha=0.85, height=0.7)
        if ends is not None:
            axes.plot(np.stack([e[shown] for e in ends]), [place, place], "k-", linewidth=1.2)
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_yticks(place, [meta.names_[j] for j in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(said)
        axes.grid(axis="x")

    note = f"Bar: {said}" + ("." if ends is None else "; line: 95 % bootstrap interval.")
    if len(order) > MOST_WEIGHTS:
        note += f" The {MOST_WEIGHTS} largest of {len(order)}."
    figure = Figure("Weights of the models", draw, note=note, size=(6.0, 0.9 + 0.24 * len(shown)))
    return Section("Who has a say?", [figure, table])


def _say(meta: Any) -> np.ndarray:
    """Return the weight of every model; in a log pool its whole exponent."""
    frozen = cast("FrozenPool", freeze(meta))
    say = frozen.weights
    if frozen.kind == "log":
        say = say + frozen.centre_exponent * frozen.centre_weights
    found = dict.fromkeys(meta.names_, 0.0) | dict(zip(frozen.names, say.tolist(), strict=True))
    return np.array(list(found.values()))


# --- the pool ---------------------------------------------------------------------------------


def _condition_table(meta: Any) -> Table:
    both = [meta.diagnostics_[when] for when in ("before", "after")]
    numbers = {
        "models that vary": [one.n_models for one in both],
        "condition of the correlation matrix": [one.condition for one in both],
        "the same with 0.001 on its diagonal": [one.penalised_condition(1e-3) for one in both],
        "effective rank": [one.effective_rank for one in both],
        "participation ratio": [one.participation_ratio for one in both],
    }
    cells = [[name, *(f"{value:,.4g}" for value in values)] for name, values in numbers.items()]
    return Table(
        "Condition, before and after redundant models were dropped",
        ["", "before", "after"],
        cells,
        note=(
            "Large condition numbers are ordinary: they harm least squares without a penalty, and "
            "nothing else."
        ),
    )


def _signed(interval: Any) -> str:
    return f"{interval.value:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]"


def _span(interval: Any) -> str:
    return f"[{interval.low:.4g}, {interval.high:.4g}]"
