"""Real tables by name: those that scikit-learn ships, and files of the folder SCIKD_DATA."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scikd.exceptions import InvalidInputError, StorageError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Table", "data_folder", "load_table", "table_names"]


@dataclass(frozen=True, eq=False)
class Table:
    """A real table, all numbers.

    Attributes
    ----------
    name : str
        Name of the table.
    task : {"regression", "classification"}
        What is to be predicted.
    X : ndarray of shape (n_samples, n_features)
        Features in their own units; NaN where missing. Categories are one-hot encoded over the
        values found in the file, which tells nothing of the target.
    y : ndarray of shape (n_samples,)
        Target.
    features : tuple of str
        Names of the features.
    source : str
        Where the table comes from.
    """

    name: str
    task: Literal["regression", "classification"]
    X: np.ndarray
    y: np.ndarray
    features: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class _File:
    """How to read one file: which column is the target, and which give it away or name rows."""

    path: str
    task: Literal["regression", "classification"]
    target: str | int
    header: bool = True
    separator: str = ","
    drop: Sequence[str] = ()
    missing: str | None = None
    date: str | None = None
    keep: Sequence[str] | None = None


_FILES = {
    "abalone": _File("abalone.csv", "regression", -1, header=False),
    "adult": _File("adult_train.csv", "classification", -1, header=False, missing="?"),
    "airfoil": _File("ucir_airfoil.csv.gz", "regression", -1, header=False),
    "bike": _File(
        "bike_sharing_train.csv",
        "regression",
        "count",
        drop=["casual", "registered"],
        date="datetime",
    ),
    "california": _File("california_housing.csv", "regression", "median_house_value"),
    "compas": _File(
        "compas_two_years.csv",
        "classification",
        "two_year_recid",
        keep=[
            *("sex", "age", "race", "juv_fel_count", "juv_misd_count", "juv_other_count"),
            *("priors_count", "c_charge_degree", "two_year_recid"),
        ],
    ),
    "concrete": _File("uci_concrete.txt", "regression", -1, header=False, separator=r"\s+"),
    "credit": _File("uci_credit_default.csv", "classification", "default.payment.next.month"),
    "diamonds": _File("diamonds.csv", "regression", "price"),
    "energy": _File("uci_energy.txt", "regression", -1, header=False, separator=r"\s+"),
    "exam": _File("exam_score_20k.csv", "regression", "exam_score", drop=["student_id"]),
    "five_classes": _File(
        "lgbm_multiclass.train", "classification", 0, header=False, separator="\t"
    ),
    "hourly_bike": _File("ucir_bike.csv.gz", "regression", -1, header=False),
    "kin8nm": _File("uci_kin8nm.txt", "regression", -1, header=False, separator=r"\s+"),
    "mammography": _File("mammography.csv", "classification", -1, header=False),
    "parkinsons": _File("ucir_parkinsons.csv.gz", "regression", -1, header=False),
    "power_plant": _File("uci_power-plant.txt", "regression", -1, header=False, separator=r"\s+"),
    "protein": _File(
        "uci_protein-tertiary-structure.txt", "regression", -1, header=False, separator=r"\s+"
    ),
    "red_wine": _File("uci_wine-quality-red.txt", "regression", -1, header=False, separator=r"\s+"),
    "skillcraft": _File("ucir_skillcraft.csv.gz", "regression", -1, header=False),
    "white_wine": _File("wine_quality_white.csv", "regression", -1, header=False),
}

_EMBEDDED: dict[str, tuple[str, Literal["regression", "classification"]]] = {
    "breast_cancer": ("load_breast_cancer", "classification"),
    "diabetes": ("load_diabetes", "regression"),
    "digits": ("load_digits", "classification"),
    "wine": ("load_wine", "classification"),
}


def table_names() -> dict[str, str]:
    """Return every name that `load_table` knows, with where its table comes from."""
    embedded = dict.fromkeys(_EMBEDDED, "scikit-learn")
    return embedded | {name: f"SCIKD_DATA: tabular/{file.path}" for name, file in _FILES.items()}


def data_folder() -> Path:
    """Return the folder of real data: the environment variable SCIKD_DATA, or ../shared/data."""
    return Path(os.environ.get("SCIKD_DATA", "../shared/data"))


def load_table(name: str) -> Table:
    """Read a real table.

    Parameters
    ----------
    name : str
        One of `table_names`.

    Returns
    -------
    Table
        The table.

    Raises
    ------
    InvalidInputError
        If the name is unknown; the message lists the known ones.
    StorageError
        If the file is not there; the message says where it was looked for.
    """
    if name in _EMBEDDED:
        from sklearn import datasets  # noqa: PLC0415 - names are listed without scikit-learn

        loader, task = _EMBEDDED[name]
        load: Callable[[], Any] = getattr(datasets, loader)
        bunch = load()
        features = tuple(str(feature) for feature in bunch.feature_names)
        return Table(name, task, bunch.data, bunch.target, features, "shipped with scikit-learn")
    if name not in _FILES:
        message = f"Expected the name of a table: one of {sorted(table_names())}; got {name!r}."
        raise InvalidInputError(message)
    file = _FILES[name]
    path = data_folder() / "tabular" / file.path
    if not path.is_file():
        message = (
            f"The table {name!r} needs the file {path}, which is not there. Point the environment "
            f"variable SCIKD_DATA at a folder that holds tabular/{file.path}, or use one of "
            f"{sorted(_EMBEDDED)}."
        )
        raise StorageError(message)
    return _read(name, file, path)


def _read(name: str, file: _File, path: Path) -> Table:
    import pandas as pd  # noqa: PLC0415 - only files need it

    frame = pd.read_csv(
        path,
        header=0 if file.header else None,
        sep=file.separator,
        na_values=file.missing,
        skipinitialspace=True,
    )
    frame.columns = [str(column) for column in frame.columns]
    frame = frame.dropna(axis="columns", how="all")
    frame = frame[list(file.keep)] if file.keep else frame.drop(columns=list(file.drop))
    if file.date:
        when = pd.to_datetime(frame.pop(file.date)).dt
        frame = frame.assign(hour=when.hour, weekday=when.day_of_week, month=when.month)
    target = file.target if isinstance(file.target, str) else frame.columns[file.target]
    frame = frame.dropna(subset=[target])
    y = frame.pop(target)
    X = pd.get_dummies(frame, dtype=float).astype(float)
    labels = y.to_numpy(dtype=float) if file.task == "regression" else _labels(y)
    return Table(
        name, file.task, X.to_numpy(), labels, tuple(X.columns), f"SCIKD_DATA, {path.name}"
    )


def _labels(y: pd.Series[Any]) -> np.ndarray:
    return y.to_numpy() if y.dtype.kind in "biuf" else y.astype(str).to_numpy(dtype=str)
