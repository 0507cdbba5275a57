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
OverwriteFile = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
Prices = Annotated[
    Path,
    typer.Argument(
        help="CSV or parquet: columns date, asset, close and, if there are, open, high, low, "
        "volume and adj_close; or closes, an asset in each column.",
        show_default=False,
    ),
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
    prices: Prices,
    output: OutputFolder,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a backtest that is there.")
    ] = False,
) -> None:
    """Trade scores on daily prices.

    It writes a folder with a tear sheet, metrics, and tables of equity, weights and trades.
    """
    from scikd._options import given_flags  # noqa: PLC0415

    from ._backtest_run import backtest_from  # noqa: PLC0415
    from ._choices import warnings_of  # noqa: PLC0415
    from ._report_tables import short_table  # noqa: PLC0415
    from .report import verdict  # noqa: PLC0415
    from .writing import REPORT, room_for_backtest, write_backtest  # noqa: PLC0415

    with room_for_backtest(output, overwrite=overwrite):
        result, analysis = backtest_from(scores, prices, options)
        files = [str(path) for path in (scores, prices, "-o", output)]
        command = shlex.join(["scikd", "finance", "backtest", *files, *given_flags(options)])
        logger.info("Drawing")
        path = write_backtest(
            result, output, analysis=analysis, command=command, overwrite=overwrite
        )
    typer.echo("\n\n".join([short_table(analysis).to_text(), verdict(analysis)]))
    for warning in warnings_of(analysis):
        typer.echo(f"\n{warning}")
    typer.echo(f"\nThe tear sheet lies in {path / REPORT}, metrics and tables beside it")


def _train(
    options: Any,
    *,
    prices: Prices,
    output: OutputFolder,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a ranker that is there.")
    ] = False,
) -> None:
    """Train TIPS on daily prices.

    Teachers that differ in what their attention may look at are trained first, then one student
    learns what they agree on. A training that was stopped goes on when the same command is run
    again with --folder.
    """
    from scikd._bundles import room_for_bundle  # noqa: PLC0415

    from ._tips_files import KIND  # noqa: PLC0415
    from ._train_options import ranker_of, read_training  # noqa: PLC0415

    with room_for_bundle(output, KIND, "is a ranker", overwrite=overwrite):
        logger.info("Reading %s", prices)
        panel = read_training(prices, options)
        path = ranker_of(options).fit(panel).save(output)
    typer.echo(f"The ranker lies in {path}; scikd finance score {output} scores with it")
    typer.echo(
        f"It knows prices up to {panel.dates[-1]}: only scores of later days say what it is worth, "
        f"so give --start of a later day to score."
    )


def _score(
    options: Any,
    *,
    ranker: Annotated[Path, typer.Argument(help="Folder that train has made.", show_default=False)],
    prices: Prices,
    start: Annotated[
        str,
        typer.Option(
            help="First day to score, yyyy-mm-dd. Of days that it was trained on its scores are "
            "too good.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV or parquet to write.")] = Path(
        "scores.csv"
    ),
    overwrite: OverwriteFile = False,
) -> None:
    """Score daily prices with a trained TIPS."""
    from scikd._bundles import room_for_file  # noqa: PLC0415

    from ._market_options import day_of, kept_assets, read_market  # noqa: PLC0415
    from ._score_files import check_suffix, write_scores  # noqa: PLC0415
    from .tips import TIPSRanker  # noqa: PLC0415

    check_suffix(output)
    inputs = [ranker, prices, *([options.members] if options.members else [])]
    with room_for_file(output, inputs, overwrite=overwrite):
        first, trained = day_of(start, "start"), TIPSRanker.load(ranker)
        logger.info("Reading %s", prices)
        panel = read_market(prices, options)
        panel = panel.select(assets=[panel.assets[n] for n in kept_assets(panel, options)])
        count = write_scores(output, trained.predict(panel), panel, first)
    if trained.known_until_ is not None and first <= trained.known_until_:
        logger.warning(
            "This ranker knows prices up to %s: its scores from %s until then are of days that it "
            "was trained on, and too good",
            trained.known_until_,
            first,
        )
    typer.echo(f"{count:,} scores lie in {output}")


def _audit(
    options: Any,
    *,
    source: Annotated[
        str,
        typer.Argument(
            help="Whose scores: file.py:function, which takes a Panel and returns scores, training "
            "included; a folder that train has made; or a file of scores, which can be audited for "
            "execution only.",
            show_default=False,
        ),
    ],
    prices: Prices,
) -> None:
    """Look for leaks in scores.

    The future is changed, and every earlier score that moves is reported. It exits with 1 if there
    is a leak.
    """
    from ._audit_run import audit_from  # noqa: PLC0415

    found = audit_from(source, prices, options)
    typer.echo(str(found))
    if not found.passed:
        raise typer.Exit(1)


BUILT = {
    "audit": Built("scikd.finance._audit_run.AuditOptions", _audit, file=False),
    "backtest": Built("scikd.finance._backtest_options.BacktestOptions", _backtest, file="flag"),
    "score": Built("scikd.finance._market_options.MarketOptions", _score, file=False),
    "train": Built("scikd.finance._train_options.TrainOptions", _train, file="flag"),
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
    overwrite: OverwriteFile = False,
) -> None:
    """Draw a backtest again, or judge several.

    Of one folder its tear sheet is drawn again. Several are compared on the days that all have:
    which is best, and is that luck?
    """
    from scikd._bundles import room_for_file  # noqa: PLC0415

    from .analysis import Analysis  # noqa: PLC0415
    from .comparison import comparison_report  # noqa: PLC0415
    from .report import tear_sheet, verdict  # noqa: PLC0415

    command = shlex.join(["scikd", "finance", "report", *map(str, folders)])
    with room_for_file(output, folders, overwrite=overwrite):
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
