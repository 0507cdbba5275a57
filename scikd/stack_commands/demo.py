"""The section of the demonstration on stacking: five models, and every way to combine them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.datasets import load_diabetes
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor

from scikd.report import Item, Section, Text
from scikd.stack_commands.figures import correlation_figure, loss_figure
from scikd.stack_commands.page import risk_table, verdict
from scikd.stacking import Comparison, RegularizedStackingRegressor

if TYPE_CHECKING:
    from scikd.demo import Options

__all__ = ["fitted_stack", "section"]


def fitted_stack(options: Options) -> tuple[RegularizedStackingRegressor, Any]:
    """Stack quick models of scikit-learn's diabetes table; return the stack and the truth."""
    X, y = load_diabetes(return_X_y=True)
    models = [
        ("ridge", RidgeCV()),
        ("extra trees", ExtraTreesRegressor(40, min_samples_leaf=3, random_state=options.seed)),
        ("neighbours", make_pipeline(StandardScaler(), KNeighborsRegressor(15))),
        ("support vectors", make_pipeline(StandardScaler(), SVR(C=30.0))),
        ("one tree", DecisionTreeRegressor(max_depth=3, random_state=options.seed)),
    ]
    stack = RegularizedStackingRegressor(
        models, progress=options.progress, random_state=options.seed
    )
    return stack.fit(X, y), y


def section(options: Options) -> Section:
    """Stack, and tell what it is worth; called by `scikd.demo.run_demo`."""
    stack, y = fitted_stack(options)
    comparison: Comparison = stack.meta_.comparison_
    text = (
        "Five models of scikit-learn's diabetes table (442 rows), trained on five folds. Each way "
        "to combine their out-of-fold predictions was judged on folds that it was not fitted on. "
        "What the default came to, for predictions of the models named: "
        f"{stack.freeze()}."
    )
    items: list[Item] = [
        risk_table(comparison),
        loss_figure(comparison),
        correlation_figure(stack.oof_, y),
        Text(text),
    ]
    return Section("Stacking: diabetes", items, summary=verdict(stack.meta_))
