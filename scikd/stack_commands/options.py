"""What is stacked, and how: flags of the commands, and fields from Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from scikd.exceptions import InvalidInputError

__all__ = ["StackOptions"]


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """Which columns are what, and how models are combined.

    Parameters
    ----------
    target : str
        Column of the truth.
    models : tuple of str, default=()
        Columns of predictions, or patterns such as "lgb*"; by default all that are not named
        otherwise. Of classes without "__CLASS".
    exclude : tuple of str, default=()
        Columns, or patterns, to leave out.
    classes : tuple of str, default=()
        Labels; the table has a column MODEL__CLASS for each, or for two classes one column per
        model with the probability of the second. "auto" takes the labels in the target.
    weight : str or None, default=None
        Column of sample weights.
    group : str or None, default=None
        Column of groups; rows of one are held out together.
    fold : str or None, default=None
        Column of the fold in which the models had not seen the row.
    row_id : str or None, default=None
        Column that tells which rows are the same (repeated cross-validation), and by which
        further files are joined.
    combiner : str or None, default=None
        Name of a combiner, see MetaRegressor and MetaClassifier; None takes their default.
    limits : tuple of str, default=("auto",)
        What predictions of numbers are cut to: a lower and a higher number, "none", or "auto", the
        range of the target widened by half of it on both sides.
    redundancy : {"residual", "published", "none"}, default="residual"
        Which models are dropped beforehand.
    features : tuple of str, default=()
        Statistics of each row to use beside the predictions, see MetaFeatures.
    recipe : {"published", "none"}, default="none"
        The published pipeline instead of combiner, redundancy and features.
    n_resamples : int, default=1000
        Bootstrap resamples of intervals.
    seed : int, default=0
        Of folds, bags and resamples.
    """

    target: str
    models: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    weight: str | None = None
    group: str | None = None
    fold: str | None = None
    row_id: str | None = None
    combiner: str | None = None
    limits: tuple[str, ...] = ("auto",)
    redundancy: Literal["residual", "published", "none"] = "residual"
    features: tuple[str, ...] = ()
    recipe: Literal["published", "none"] = "none"
    n_resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.classes and (self.features or self.recipe != "none"):
            message = (
                "Expected neither features nor a recipe for classes; "
                f"got {list(self.features)} and {self.recipe!r}."
            )
            raise InvalidInputError(message)
        if self.limits not in {("auto",), ("none",)} and len(self.limits) != 2:
            message = f"Expected limits to be auto, none or two numbers; got {list(self.limits)}."
            raise InvalidInputError(message)

    def meta(self) -> Any:
        """Return the unfitted meta-model."""
        from scikd.stacking import MetaClassifier, MetaRegressor  # noqa: PLC0415 - names come first

        shared: dict[str, Any] = {
            "redundancy": None if self.redundancy == "none" else self.redundancy,
            "n_resamples": self.n_resamples,
            "random_state": self.seed,
        }
        if self.combiner is not None:
            shared["combiner"] = self.combiner
        if self.classes:
            return MetaClassifier(**shared)
        recipe = None if self.recipe == "none" else self.recipe
        limits: Any = self.limits if len(self.limits) == 2 else self.limits[0]
        limits = None if limits == "none" else limits
        return MetaRegressor(
            **shared, features=list(self.features) or None, recipe=recipe, limits=limits
        )
