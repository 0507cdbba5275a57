"""Tables of out-of-fold predictions, as users of Kaggle and of AutoML hold them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scikd._extras import require
from scikd.exceptions import InvalidInputError, StorageError
from scikd.stack_commands.options import StackOptions
from scikd.stacking._predictions import Predictions
from scikd.stacking.frozen import FrozenPool, FrozenStack

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OofTable", "combined_table", "read_oof", "read_predictions"]

FEWEST_ROWS = 20
NO_MODELS = {  # names of columns, in lower case, that are surely no predictions
    *("id", "row_id", "index", "unnamed: 0", "fold", "folds", "kfold", "group", "groups"),
    *("weight", "weights", "sample_weight", "target", "y", "y_true", "label"),
}
MOST_NAMED = 8  # columns or rows that an error lists


@dataclass(frozen=True, eq=False)
class OofTable:
    """Predictions and what belongs to them, as read from files.

    Attributes
    ----------
    P : Predictions
        Of shape (n_samples, n_models), or (n_samples, n_models, n_classes) for classes.
    y : ndarray of shape (n_samples,)
        Truth.
    columns : dict of str to ndarray
        Those of ``"sample_weight"``, ``"groups"``, ``"fold"`` and ``"row_id"`` that there are.
    source : str
        Name of the first file.
    """

    P: Predictions
    y: np.ndarray
    columns: dict[str, np.ndarray]
    source: str


def read_oof(files: Sequence[str | Path], options: StackOptions) -> OofTable:
    """Read out-of-fold predictions.

    Parameters
    ----------
    files : sequence of str or pathlib.Path
        CSV (also compressed) or parquet. The first holds the truth; each further one is a model,
        named by its file, with one column of predictions or a column per class.
    options : StackOptions
        Which columns are what.

    Returns
    -------
    OofTable
        Rows in the order of the first file.

    Raises
    ------
    InvalidInputError
        Naming all that is wrong with columns and rows.
    StorageError
        If a file cannot be read.
    """
    table, *further = (_read(Path(file)) for file in files)
    named = {
        "target": options.target,
        "sample_weight": options.weight,
        "groups": options.group,
        "fold": options.fold,
        "row_id": options.row_id,
    }
    wanted = {what: column for what, column in named.items() if column is not None}
    _present(table, wanted.values(), files[0])
    rows = {what: table[column].to_numpy() for what, column in wanted.items()}
    y = rows.pop("target")
    problems = _bad_rows(rows, y, wanted, classifier=bool(options.classes))
    if problems:
        raise InvalidInputError(f"Cannot stack {files[0]}: {'; '.join(problems)}.")
    labels = _labels(options.classes, y)
    y = y if labels is None else _as_labels(y, labels)
    taken = set(wanted.values())
    columns = _chosen(table, options, taken, labels, files[0], more=bool(further))
    stems = [_stem(Path(file)) for file in files[1:]]
    ids = (options.row_id, table) if options.row_id is not None else None
    tables = dict(zip(stems, further, strict=True))
    P = _predictions(table, columns, tables, ids, labels, taken)
    return OofTable(P, y, rows, Path(files[0]).name)


def read_predictions(
    files: Sequence[str | Path],
    names: Sequence[str],
    classes: np.ndarray | None = None,
    row_id: str | None = None,
) -> tuple[Predictions, pd.Series | None]:
    """Read predictions of some models for further rows.

    Parameters
    ----------
    files : sequence of str or pathlib.Path
        As for `read_oof`, but the first need hold no truth.
    names : sequence of str
        The models.
    classes : ndarray of shape (n_classes,) or None, default=None
        Labels, if these are probabilities.
    row_id : str or None, default=None
        Column that tells rows apart, and by which further files are joined.

    Returns
    -------
    Predictions
        Of these models.
    pandas.Series or None
        The column of row ids.

    Raises
    ------
    InvalidInputError
        If a model is missing, or a column holds text.
    StorageError
        If a file cannot be read.
    """
    table, *further = (_read(Path(file)) for file in files)
    if row_id is not None:
        _present(table, [row_id], files[0])
    tables = dict(zip((_stem(Path(file)) for file in files[1:]), further, strict=True))
    inside = [name for name in names if name not in tables]
    columns = {name: _columns_of(name, table, classes) for name in inside}
    missing = [name for name, found in columns.items() if found is None]
    if missing:
        message = f"{files[0]} has no predictions of {_some(missing)}: {_close(missing, table)}"
        raise InvalidInputError(message)
    kept = {name: found for name, found in columns.items() if found is not None}
    ids = None if row_id is None else (row_id, table)
    used = {name: tables[name] for name in tables if name in names}
    P = _predictions(table, kept, used, ids, classes, set())
    return P, None if row_id is None else table[row_id]


def combined_table(
    frozen: FrozenStack | FrozenPool, P: Predictions, ids: pd.Series | None = None
) -> pd.DataFrame:
    """Return the combined predictions as a table.

    Parameters
    ----------
    frozen : FrozenStack or FrozenPool
        The stack.
    P : Predictions
        Of its models.
    ids : pandas.Series or None, default=None
        First column.

    Returns
    -------
    pandas.DataFrame
        With ``prediction``, and for classes a column of probabilities for each label.
    """
    import pandas as pd  # noqa: PLC0415 - --help does without

    columns: dict[str, Any] = {} if ids is None else {str(ids.name): ids.to_numpy()}
    if isinstance(frozen, FrozenStack):
        return pd.DataFrame(columns | {"prediction": frozen.predict(P)})
    proba = frozen.predict_proba(P)
    columns["prediction"] = frozen.classes[proba.argmax(axis=1)]
    named = {str(label): proba[:, k] for k, label in enumerate(frozen.classes.tolist())}
    return pd.DataFrame(columns | named)


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 - --help does without

    try:
        if path.suffix in {".parquet", ".pq"}:
            require("pyarrow", extra="parquet", feature="Reading parquet")
            return pd.read_parquet(path)
        return pd.read_csv(path)
    except OSError as error:
        message = f"Could not read {path}: {error.strerror or error}. Check the path."
        raise StorageError(message) from error
    except (ValueError, pd.errors.ParserError) as error:  # also pyarrow's
        message = f"{path} is neither a CSV nor a parquet file: {error}"
        raise InvalidInputError(message) from error


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _some(names: Iterable[Any]) -> str:
    names = list(names)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(map(repr, names[:MOST_NAMED]))}{more}"


def _close(names: Iterable[str], table: pd.DataFrame) -> str:
    columns = [str(column) for column in table.columns]
    hints = [hit for name in names for hit in difflib.get_close_matches(str(name), columns, n=1)]
    return f"did you mean {_some(hints)}?" if hints else f"it has {_some(columns)}."


def _present(table: pd.DataFrame, columns: Iterable[str], file: Any) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        message = f"{file} has no column {_some(missing)}: {_close(missing, table)}"
        raise InvalidInputError(message)


def _bad_rows(
    rows: dict[str, np.ndarray], y: np.ndarray, names: dict[str, str], *, classifier: bool
) -> list[str]:
    """Return all that is wrong with the columns that are no predictions."""
    import pandas as pd  # noqa: PLC0415 - --help does without

    problems = []
    if len(y) < FEWEST_ROWS:
        problems.append(f"it has {len(y)} rows, expected at least {FEWEST_ROWS}")
    numeric = {"target", "sample_weight"} - ({"target"} if classifier else set())
    for what, values in {"target": y, **rows}.items():
        missing = int(pd.isna(values).sum())
        if missing:
            problems.append(f"{names[what]!r} is missing in {missing} rows")
        if what in numeric and not pd.api.types.is_numeric_dtype(values):
            hint = ": for classes pass --classes" if what == "target" else ""
            problems.append(f"{names[what]!r} holds text{hint}")
    if "row_id" in rows:
        keys = {name: rows[name] for name in ("row_id", "fold") if name in rows}
        twice = pd.DataFrame(keys).duplicated()
        # Repeated cross-validation predicts a row once per repeat: each time in another fold.
        if twice.any() and ("fold" in rows):
            first = rows["row_id"][np.flatnonzero(twice)[0]]
            problems.append(
                f"{int(twice.sum())} rows have the id and the fold of an earlier one (id {first})"
            )
    return problems


def _labels(classes: tuple[str, ...], y: np.ndarray) -> np.ndarray | None:
    """Return the labels in the type of the target."""
    if not classes:
        return None
    found = np.unique(y)
    if classes == ("auto",):
        return found
    by_text = {str(label): label for label in found.tolist()}
    unknown = [label for label in by_text if label not in classes]
    if unknown:
        message = f"The target holds {_some(unknown)}, the classes are {_some(classes)}."
        raise InvalidInputError(message)
    return np.array([by_text.get(label, label) for label in classes])


def _as_labels(y: np.ndarray, labels: np.ndarray) -> np.ndarray:
    place = {str(label): j for j, label in enumerate(labels.tolist())}
    return labels[[place[str(label)] for label in y.tolist()]]


def _chosen(
    table: pd.DataFrame,
    options: StackOptions,
    taken: set[str],
    labels: np.ndarray | None,
    file: Any,
    *,
    more: bool,
) -> dict[str, list[str]]:
    """Return the columns of every model in the first file."""
    free = [column for column in map(str, table.columns) if column not in taken]
    models = {column: [column] for column in free}
    if labels is not None:
        parted = _parted(free, labels, file)
        if not parted and len(labels) > 2 and not more:
            message = f"{file} has no column MODEL__CLASS for the classes {_some(labels.tolist())}."
            raise InvalidInputError(message)
        models = parted or models

    def matches(name: str, patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    idle = [one for one in options.models if not any(fnmatchcase(name, one) for name in models)]
    idle += [one for one in options.exclude if not any(fnmatchcase(name, one) for name in free)]
    if idle:
        message = f"{file} has no model {_some(idle)}: {_close(idle, table)}"
        raise InvalidInputError(message)
    if more and not options.models:
        return {}  # the first file holds the truth alone
    chosen = {
        name: columns
        for name, columns in models.items()
        if matches(name, options.models or ("*",)) and not matches(name, options.exclude)
    }
    text = [c for columns in chosen.values() for c in columns if table[c].dtype.kind not in "biuf"]
    if text:
        message = (
            f"{file}: {_some(text)} hold text, not predictions. Leave them out (--exclude), or "
            "name the models (--models)."
        )
        raise InvalidInputError(message)
    odd = [name for name in chosen if name.casefold() in NO_MODELS and name not in options.models]
    if odd:
        message = (
            f"{file}: {_some(odd)} do not look like predictions. Say what they are (--row-id, "
            "--fold, --group, --weight), leave them out (--exclude), or name the models (--models)."
        )
        raise InvalidInputError(message)
    return chosen


def _parted(free: list[str], labels: np.ndarray, file: Any) -> dict[str, list[str]]:
    """Return the columns MODEL__CLASS of every model."""
    ends = [f"__{label}" for label in labels.tolist()]
    found = [column.removesuffix(end) for column in free for end in ends if column.endswith(end)]
    models = {name: [f"{name}{end}" for end in ends] for name in dict.fromkeys(found)}
    lacking = [one for columns in models.values() for one in columns if one not in free]
    if lacking:
        message = f"{file} has no column {_some(lacking)}: every model needs all classes."
        raise InvalidInputError(message)
    return models


def _columns_of(name: str, table: pd.DataFrame, classes: Any) -> list[str] | None:
    """Return the columns of a model, or None."""
    if classes is not None:
        columns = [f"{name}__{label}" for label in classes.tolist()]
        if all(column in table.columns for column in columns):
            return columns
        if len(classes) > 2:
            return None
    return [name] if name in table.columns else None


def _predictions(
    table: pd.DataFrame,
    columns: dict[str, list[str]],
    tables: dict[str, pd.DataFrame],
    ids: tuple[str, pd.DataFrame] | None,
    labels: np.ndarray | None,
    taken: set[str],
) -> Predictions:
    """Stack the columns of the first table, and the further tables."""
    arrays = {name: _numbers(table, found) for name, found in columns.items()}
    for name, other in tables.items():
        if name in arrays:
            raise InvalidInputError(f"Two models are named {name!r}; rename one of the files.")
        aligned = _joined(other, name, ids, len(table))
        wanted = [str(label) for label in labels.tolist()] if labels is not None else []
        aligned = aligned.rename(columns=str)
        if wanted and all(label in aligned.columns for label in wanted):
            found = wanted
        else:
            found = [c for c in aligned.columns if c not in taken and c != (ids or [None])[0]]
            if len(found) != 1 or (labels is not None and len(labels) > 2):
                expected = f"the columns {_some(wanted)}" if wanted else "one column"
                message = f"Expected {expected} of predictions in {name}; got {_some(found)}."
                raise InvalidInputError(message)
        arrays[name] = _numbers(aligned, found)
    if not arrays:
        raise InvalidInputError("There is no column of predictions left: nothing to stack.")
    empty = [name for name, values in arrays.items() if np.isnan(values).all()]
    if empty:
        raise InvalidInputError(f"{_some(empty)} hold no prediction at all. Leave them out.")
    if labels is None:
        values = np.column_stack(list(arrays.values()))
        return Predictions.of(values, names=list(arrays))
    cubes = [np.hstack([1.0 - a, a]) if a.shape[1] == 1 else a for a in arrays.values()]
    return Predictions.of(np.stack(cubes, axis=1), names=list(arrays), classes=labels)


def _numbers(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
    try:
        array: np.ndarray = table[columns].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{_some(columns)} hold text, not predictions: {error}.") from error
    return array


def _joined(
    other: pd.DataFrame, name: str, ids: tuple[str, pd.DataFrame] | None, n_rows: int
) -> pd.DataFrame:
    """Put the rows of a further table in the order of the first."""
    if ids is not None and ids[0] in other.columns:
        column, table = ids
        for which, one in (("the first file", table), (name, other)):
            if one[column].duplicated().any():
                twice = one[column][one[column].duplicated()].iloc[0]
                message = f"Cannot join by {column!r}: {twice} comes twice in {which}."
                raise InvalidInputError(message)
        absent = table.loc[~table[column].isin(other[column]), column]
        if len(absent):
            message = f"{name} has no row for {len(absent)} ids, {_some(absent[:1])} first."
            raise InvalidInputError(message)
        return other.set_index(column).loc[table[column]].reset_index(drop=True)
    if len(other) != n_rows:
        message = (
            f"{name} has {len(other)} rows, the first file {n_rows}. Join them by --row-id, or "
            "give files with the same rows."
        )
        raise InvalidInputError(message)
    return other
