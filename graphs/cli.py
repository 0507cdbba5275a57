"""The commands ``scikd graphs ...``.

A command parses, calls the public function that a user of the library would call, and says where
the result lies. A command whose flags are the fields of a dataclass is built when it is run: that
imports torch or compiled kernels, and ``scikd graphs --help`` shall not.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from scikd._commands import Built, built_group
from scikd.exceptions import InvalidInputError

__all__ = ["app"]

logger = logging.getLogger(__name__)

DatasetName = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="Graphs: a text file or folder of TU Dortmund, a folder of OGB, a table of SMILES, or "
        '"small-molecules", which comes with scikd.',
        show_default=False,
    ),
]
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


def _distill(
    options: Any,
    *,
    dataset: DatasetName,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to make.", show_default=False)
    ],
    split: Split = "auto",
    seed: Seed = 0,
    label: Label = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace distilled graphs that are there.")
    ] = False,
) -> None:
    """Distil the graphs of a training set into a few weighted sets of trees."""
    from ._datasets import open_dataset  # noqa: PLC0415
    from ._distill_options import mirage_of  # noqa: PLC0415
    from .baselines import stored_bytes  # noqa: PLC0415
    from .report import class_table, summary  # noqa: PLC0415

    mirage = mirage_of(options)
    with _place_for(output, overwrite=overwrite):
        logger.info("Reading %s", dataset)
        data = open_dataset(dataset, split=split, seed=seed, label=label)
        graphs = data.part("train")
        logger.info("Distilling %s", data.describe("train"))
        start = time.perf_counter()
        mirage.fit(graphs)
        seconds = time.perf_counter() - start
        facts = {"part": data.describe("train"), "graphs_bytes": stored_bytes(graphs)}
        distilled = mirage.distilled_
        distilled = replace(distilled, provenance=distilled.provenance | facts)
        path = distilled.save(output)
    typer.echo(f"{summary(distilled)}\nIt took {seconds:.3g} seconds.\n")
    typer.echo(class_table(distilled).to_text())
    typer.echo(f"\nThe distilled graphs lie in {path}; scikd graphs show {output} draws them")


@contextmanager
def _place_for(output: Path, *, overwrite: bool) -> Iterator[None]:
    """See that distilled graphs can be saved there, before the work that makes them."""
    from scikd._atomic import new_folder  # noqa: PLC0415
    from scikd.persistence import MANIFEST  # noqa: PLC0415

    from .distilled import KIND  # noqa: PLC0415

    if output.is_dir() and any(output.iterdir()):
        try:
            kind = json.loads((output / MANIFEST).read_bytes())["kind"]
        except (OSError, ValueError, TypeError, KeyError):
            kind = "other content"
        if kind != KIND:
            message = f"Expected {output} to be new; it is a folder with {kind}. Choose another."
            raise InvalidInputError(message)
        if not overwrite:
            message = (
                f"There are distilled graphs in {output} already. Choose another folder, or "
                "replace them: --overwrite."
            )
            raise InvalidInputError(message)
    elif output.is_file():
        raise InvalidInputError(f"Expected a folder to make; {output} is a file. Choose another.")
    with new_folder(output.parent):
        yield


BUILT = {
    "distill": Built("scikd.graphs._distill_options.DistillOptions", _distill, file=False),
}
"""Commands whose flags are the fields of a dataclass."""


app = typer.Typer(
    name="graphs",
    cls=built_group(BUILT),
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _graphs() -> None:
    """Graph neural networks: distil into a light student."""  # a group even of one command


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
