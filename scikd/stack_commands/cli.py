"""The commands ``scikd stack ...``.

A command parses, calls the public function that a user of the library would call, and says where
the result lies. `fit` and `report` are built when one is run, as their flags are the fields of a
dataclass.
"""

from __future__ import annotations

import logging
import time
import warnings
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from scikd._commands import Built, command_group

__all__ = ["app"]

logger = logging.getLogger(__name__)

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILES",
        help="CSV or parquet. The first holds the truth, and predictions in columns; each further "
        "one is a model, named by its file.",
        show_default=False,
    ),
]


def _fit(
    options: Any,
    *,
    files: Files,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")] = Path(
        "stack.scikd"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a stack that is there.")
    ] = False,
) -> None:
    """Combine out-of-fold predictions of many models, and keep the weights."""
    from scikd._bundles import room_for_bundle  # noqa: PLC0415
    from scikd.persistence import MANIFEST  # noqa: PLC0415
    from scikd.stack_commands.tables import read_oof  # noqa: PLC0415
    from scikd.stacking import freeze  # noqa: PLC0415
    from scikd.stacking.frozen import KIND  # noqa: PLC0415

    with room_for_bundle(output, KIND, "is a stack", overwrite=overwrite):
        logger.info("Reading %s", files[0])
        table = read_oof(files, options)
        meta, seconds = _fitted(options, table)
        path = freeze(meta, table.P.take(table.P.covered)).save(output)
    _say(meta, seconds)
    size = (path / MANIFEST).stat().st_size
    typer.echo(f"The stack lies in {path} ({size:,} bytes); scikd stack predict {output} uses it")


def _report(
    options: Any,
    *,
    files: Files,
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write.")] = Path(
        "stack.html"
    ),
) -> None:
    """Write a page: what combiners are worth, weights, calibration, and who repeats whom."""
    from scikd._atomic import room_for  # noqa: PLC0415
    from scikd.stack_commands.page import stack_report  # noqa: PLC0415
    from scikd.stack_commands.tables import read_oof  # noqa: PLC0415

    with room_for(output):
        logger.info("Reading %s", files[0])
        table = read_oof(files, options)
        meta, seconds = _fitted(options, table)
        command = f"scikd stack report {' '.join(map(str, files))} --target {options.target}"
        report = stack_report(
            meta, table.P, table.y, **table.columns, source=table.source, command=command
        )
        page = report.write_html(output)
    _say(meta, seconds)
    typer.echo(f"The page lies in {page}")


def _fitted(options: Any, table: Any) -> tuple[Any, float]:
    """Return the fitted meta-model, and the seconds that this took."""
    from scikd.exceptions import StackingWarning  # noqa: PLC0415
    from scikd.stack_commands._hints import hints  # noqa: PLC0415
    from scikd.stack_commands._warm_up import warm_up  # noqa: PLC0415

    for hint in hints(table, options):
        logger.warning(hint)
    warm_up(options)
    names = ", ".join(table.P.names)
    logger.info("Stacking %d models on %d rows: %s", table.P.n_models, table.P.n_samples, names)
    start = time.perf_counter()
    with warnings.catch_warnings():  # `_say` says it
        warnings.simplefilter("ignore", StackingWarning)
        meta = options.meta().fit(table.P, table.y, **table.columns)
    return meta, time.perf_counter() - start


def _say(meta: Any, seconds: float) -> None:
    """Print the comparison, and what was chosen."""
    from scikd.stack_commands.page import HELD_OUT, n_dropped  # noqa: PLC0415

    if meta.comparison_ is not None:
        typer.echo(f"{meta.comparison_}\n{HELD_OUT}\n")
    n_models, dropped = len(meta.names_), n_dropped(meta)
    mean = f" (the mean is that of the other {n_models - dropped})" if dropped else ""
    typer.echo(
        f"{len(meta.required_models_)} of {n_models} models are needed, {dropped} were "
        f"dropped as redundant{mean}. It took {seconds:.3g} seconds."
    )
    if getattr(meta, "limits_", None) is not None:
        low, high = meta.limits_
        most = meta.cut_.argmax()
        typer.echo(
            f"Predictions are cut to {low:.6g} ... {high:.6g}, which changed "
            f"{meta.cut_.mean():.2%} of them, and of {meta.names_[most]} {meta.cut_[most]:.2%}."
        )
    if meta.overfit_ is not None and meta.overfit_.declined:
        typer.echo(f"{meta.overfit_.reason} ({meta.overfit_})")


BUILT = {
    "fit": Built("scikd.stack_commands.options.StackOptions", _fit, file=False),
    "report": Built("scikd.stack_commands.options.StackOptions", _report, file=False),
}
"""Commands whose flags are the fields of a dataclass."""

app = command_group("stack", BUILT)


@app.callback()
def _stack() -> None:
    """Out-of-fold predictions of many models: combine them."""


@app.command("predict")
def predict(
    stack: Annotated[Path, typer.Argument(help="Folder that fit has made.", show_default=False)],
    files: Files,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV to write.")] = Path(
        "predictions.csv"
    ),
    row_id: Annotated[
        str | None,
        typer.Option(help="Column to copy, and by which further files are joined."),
    ] = None,
) -> None:
    """Combine predictions of the same models for other rows."""
    from scikd._atomic import atomic_write, room_for  # noqa: PLC0415
    from scikd.stack_commands.tables import combined_table, read_predictions  # noqa: PLC0415
    from scikd.stacking import load_frozen  # noqa: PLC0415

    frozen = load_frozen(stack)
    with room_for(output):
        classes = getattr(frozen, "classes", None)
        P, ids = read_predictions(files, frozen.names, classes, row_id)
        table = combined_table(frozen, P, ids)

        def write(file: Any) -> None:
            text = TextIOWrapper(file, encoding="utf-8", newline="")
            table.to_csv(text, index=False)
            text.flush()
            text.detach()

        atomic_write(output, write)
    typer.echo(f"{len(table):,} predictions lie in {output}")
