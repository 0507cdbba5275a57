"""The commands ``scikd graphs ...``.

A command parses, calls the public function that a user of the library would call, and says where
the result lies. A command whose flags are the fields of a dataclass is built when it is run: that
imports torch or compiled kernels, and ``scikd graphs --help`` shall not.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from scikd._commands import Built, command_group
from scikd.exceptions import InvalidInputError

__all__ = ["app"]

logger = logging.getLogger(__name__)

GRAPHS = (
    "Graphs: a text file or folder of TU Dortmund, a folder of OGB, a table of SMILES, or "
    '"small-molecules", which comes with scikd.'
)
DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help=GRAPHS, show_default=False)]
Split = Annotated[
    str,
    typer.Option(
        help='Of which split the training part is meant: "auto" (the one that comes with the data, '
        'else none), "all" (none), "random" (80, 10 and 10 %), or the name of one of OGB.'
    ),
]
Seed = Annotated[int, typer.Option(help="Of a random split.")]
Label = Annotated[
    str | None,
    typer.Option(
        help="Where there are several: the column of a table, or the number of a task of OGB."
    ),
]
Smiles = Annotated[
    str | None,
    typer.Option(help="Of a table: the column of SMILES, where it is not called smiles."),
]


def _distill(
    options: Any,
    *,
    dataset: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET...",
            help=f"{GRAPHS} Several are the parts of one set of data that need not fit into memory "
            "together; a split is made of each.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to make.", show_default=False)
    ],
    split: Split = "auto",
    seed: Seed = 0,
    label: Label = None,
    smiles: Smiles = None,
    n_jobs: Annotated[
        int | None,
        typer.Option(
            "--n-jobs", help="On how many of several data sets to work at once; -1: all cores."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace distilled graphs that are there.")
    ] = False,
) -> None:
    """Distil the graphs of a training set into a few weighted sets of trees."""
    from scikd._bundles import room_for_bundle  # noqa: PLC0415

    from ._distill_options import mirage_of  # noqa: PLC0415
    from ._distill_run import distill_from  # noqa: PLC0415
    from .distilled import KIND  # noqa: PLC0415
    from .report import class_table, summary  # noqa: PLC0415

    mirage = mirage_of(options)
    reading = {"split": split, "seed": seed, "label": label, "smiles": smiles}
    with room_for_bundle(output, KIND, "are distilled graphs", overwrite=overwrite):
        distilled, seconds = distill_from(mirage, dataset, n_jobs=n_jobs, reading=reading)
        path = distilled.save(output)
    typer.echo(f"{summary(distilled)}\nIt took {seconds:.3g} seconds.\n")
    typer.echo(class_table(distilled).to_text())
    typer.echo(f"\nThe distilled graphs lie in {path}; scikd graphs show {output} draws them")


def _train(
    options: Any,
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder of distilled graphs; or graphs, as for distill, which are then trained on "
            "as a whole, each distinct tree computed once.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to make.", show_default=False)
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Of distilled graphs: the graphs that they came from, whose parts for validation "
            "and test judge the classifier."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Page to write; by default beside the classifier.", show_default=False),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Keeps checkpoints: a killed run goes on from it.")
    ] = None,
    split: Split = "auto",
    split_seed: Seed = 0,
    label: Label = None,
    smiles: Smiles = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a classifier that is there.")
    ] = False,
) -> None:
    """Train a classifier on distilled graphs, or on graphs as they are."""
    from scikd._atomic import room_for  # noqa: PLC0415
    from scikd._bundles import room_for_bundle  # noqa: PLC0415
    from scikd._options import plain_options  # noqa: PLC0415

    from ._training_run import train_from  # noqa: PLC0415
    from .storage import KIND, save_classifier  # noqa: PLC0415
    from .training_report import best_step, score_table, training_report  # noqa: PLC0415

    page = output.with_suffix(".html") if report is None else report
    reading = {"split": split, "seed": split_seed, "label": label, "smiles": smiles}
    with room_for_bundle(output, KIND, "is a classifier", overwrite=overwrite), room_for(page):
        logger.info("Reading %s", source)
        run = train_from(source, options, data=data, folder=folder, reading=reading)
        path = save_classifier(run.result.best, output)
        asked = plain_options(options)
        made = training_report(run.result, run.parts, source=run.source, options=asked)
        made.write_html(page)
    typer.echo(f"Trained on {run.source}, in {run.result.seconds:.3g} seconds.\n")
    if run.parts:
        typer.echo(f"{score_table(run.result, run.parts).to_text()}\n")
    which = "of the best validation AUC" if "validation" in run.parts else "the last"
    typer.echo(f"The classifier of step {best_step(run.result)}, {which}, lies in {path}")
    typer.echo(f"Its learning curve lies in {page}")


def _evaluate(
    options: Any,
    *,
    dataset: DatasetName,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for scores, table and page; a killed run goes on from it.",
            show_default=False,
        ),
    ],
    split: Split = "auto",
    seed: Seed = 0,
    label: Label = None,
    smiles: Smiles = None,
) -> None:
    """Compare distilled graphs with graphs of the same number of bytes."""
    from scikd._atomic import new_folder  # noqa: PLC0415
    from scikd._options import plain_options  # noqa: PLC0415

    from ._datasets import open_dataset  # noqa: PLC0415
    from ._train_options import evaluation_of  # noqa: PLC0415
    from .evaluation import evaluate  # noqa: PLC0415
    from .training_report import evaluation_report  # noqa: PLC0415

    protocol = evaluation_of(options)
    with new_folder(output):
        logger.info("Reading %s", dataset)
        data = open_dataset(dataset, split=split, seed=seed, label=label, smiles=smiles)
        if not data.split:
            message = f"Expected graphs with a split; {dataset} has none. Make one: --split random."
            raise InvalidInputError(message)
        found = evaluate(data.graphs, data.parts, protocol, folder=output / "runs")
        files = found.write(output)
        made = evaluation_report(found, options=plain_options(options))
        files.append(made.write_html(output / "report.html"))
    typer.echo(found.table().to_text())
    typer.echo(
        f"\nThe scores lie in {files[0]}, their summary in {files[1]}, the page in {files[2]}"
    )


BUILT = {
    "distill": Built("scikd.graphs._distill_options.DistillOptions", _distill, file=False),
    "train": Built("scikd.graphs._train_options.TrainOptions", _train, file=False),
    "evaluate": Built("scikd.graphs._train_options.EvaluateOptions", _evaluate, file=False),
}
"""Commands whose flags are the fields of a dataclass."""


app = command_group("graphs", BUILT)


@app.callback()
def _graphs() -> None:
    """Graph neural networks: distil into a light student."""


@app.command("show")
def show(
    distilled: Annotated[
        Path, typer.Argument(help="Folder of distilled graphs.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the page.")] = Path(
        "distilled.html"
    ),
    trees: Annotated[int, typer.Option(help="How many trees to draw.", min=0)] = 60,
    sets: Annotated[int, typer.Option(help="How many sets of each class to draw.", min=0)] = 30,
) -> None:
    """Draw distilled graphs on a page, and print what they are."""
    from .distilled import DistilledGraphs  # noqa: PLC0415
    from .report import class_table, distilled_report, set_table, summary  # noqa: PLC0415

    loaded = DistilledGraphs.load(distilled)
    report = distilled_report(loaded, most_trees=trees, most_sets=sets)
    page = report.write_html(output)
    tables = [class_table(loaded), *(set_table(loaded, k) for k in range(len(loaded.classes)))]
    typer.echo("\n\n".join([summary(loaded), *(table.to_text() for table in tables)]))
    typer.echo(f"\nThe pictures lie in {page}")
