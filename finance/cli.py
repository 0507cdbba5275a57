"""The commands ``scikd finance ...``.

A command parses, calls the public function that a user of the library would call, and says where
the result lies. A command whose flags are the fields of a dataclass is built when it is run.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from scikd._commands import Built, command_group

__all__ = ["app"]

logger = logging.getLogger(__name__)

OutputFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder to make.", show_default=False)
]


def _backtest(
    options: Any,
    *,
    scores: Annotated[
        Path,
        typer.Argument(
            help="CSV or parquet: columns date, asset and score, or dates in the first column and "
            "an asset in each other.",
            show_default=False,
        ),
    ],
    prices: Annotated[
        Path,
        typer.Argument(
            help="CSV or parquet: columns date, asset, close and, if there are, open, high, low, "
            "volume and adj_close; or closes, an asset in each column.",
            show_default=False,
        ),
    ],
    output: OutputFolder,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a backtest that is there.")
    ] = False,
) -> None:
    """Trade scores on daily prices: a tear sheet, metrics, equity, weights and trades."""
    from ._backtest_run import backtest_from  # noqa: PLC0415
    from ._choices import warnings_of  # noqa: PLC0415
    from .report import short_table, verdict  # noqa: PLC0415
    from .writing import REPORT, room_for_backtest, write_backtest  # noqa: PLC0415

    with room_for_backtest(output, overwrite=overwrite):
        result, analysis = backtest_from(scores, prices, options)
        command = shlex.join(["scikd", "finance", "backtest", str(scores), str(prices)])
        logger.info("Drawing")
        path = write_backtest(
            result, output, analysis=analysis, command=command, overwrite=overwrite
        )
    typer.echo("\n\n".join([short_table(analysis).to_text(), verdict(analysis)]))
    for warning in warnings_of(analysis):
        typer.echo(f"\n{warning}")
    typer.echo(f"\nThe tear sheet lies in {path / REPORT}, metrics and tables beside it")


BUILT = {
    "backtest": Built("scikd.finance._backtest_options.BacktestOptions", _backtest, file="flag"),
}
"""Commands whose flags are the fields of a dataclass."""


app = command_group("finance", BUILT)


@app.callback()
def _finance() -> None:
    """Trading signals: distil and backtest."""


@app.command("report")
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            help="That backtest has made. Several are compared, and count as tried.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write.")] = Path(
        "backtest.html"
    ),
    resamples: Annotated[int, typer.Option(help="Of the bootstrap of several.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap of several.")] = 0,
) -> None:
    """Draw the tear sheet of a backtest again, or judge several: is the best of them luck."""
    from scikd._atomic import room_for  # noqa: PLC0415

    from .analysis import Analysis  # noqa: PLC0415
    from .comparison import comparison_report  # noqa: PLC0415
    from .report import tear_sheet, verdict  # noqa: PLC0415

    command = shlex.join(["scikd", "finance", "report", *map(str, folders)])
    with room_for(output):
        loaded = {str(folder): Analysis.load(folder) for folder in folders}
        if len(loaded) == 1:
            (only,) = loaded.values()
            typer.echo(verdict(only))
            made = tear_sheet(only, command=command)
        else:
            made = comparison_report(loaded, n_resamples=resamples, seed=seed, command=command)
            typer.echo(made.to_text())
        page = made.write_html(output)
    typer.echo(f"\nThe page lies in {page}")
