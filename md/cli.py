"""The commands ``scikd md ...``.

A command parses, calls the public function that a user of the library would call, and says where
the result lies. A command whose flags are the fields of a dataclass is built when it is run: that
imports torch, and ``scikd md --help`` shall not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from scikd._commands import Built, command_group
from scikd.exceptions import InvalidInputError

__all__ = ["app"]


TotalCharge = Annotated[
    float, typer.Option(help="In e, of structures in DeePMD folders, which do not say it.")
]
SideBySide = Annotated[int, typer.Option(help="Liquids side by side; -1 for one per core.")]


def _train(options: Any) -> None:
    """Train a force field.

    A training that was stopped goes on when the same command is run again. Under torchrun it is
    shared between processes: torchrun --nproc-per-node=4 -m scikd.cli md train train.yaml
    """
    from .training import fit  # noqa: PLC0415
    from .training_report import training_report  # noqa: PLC0415

    if options.output is None:
        message = "Expected a folder for the model and the log: --output, or output in the file."
        raise InvalidInputError(message)
    result = fit(options)
    if result.rank == 0:
        page = training_report(result).write_html(options.output / "report.html")
        typer.echo(f"The model lies in {result.path}, its learning curves in {page}")


def _run(options: Any) -> None:
    """Run molecular dynamics of a liquid, or of a structure in a file."""
    from .dynamics import run_dynamics  # noqa: PLC0415

    typer.echo(run_dynamics(options).summary())


def _sample(
    options: Any,
    *,
    output: Annotated[Path, typer.Option(help="File to write: .h5 or .xyz.", show_default=False)],
    folder: Annotated[
        Path | None, typer.Option(help="Keeps trajectories: a killed run goes on from it.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes; -1 for one per core.")] = 1,
) -> None:
    """Make structures to label: packed clusters and boxes, explored by molecular dynamics."""
    from .frames import from_ase  # noqa: PLC0415
    from .readers import write_frames  # noqa: PLC0415
    from .sampling import sample_structures  # noqa: PLC0415

    with _structures_in(output):
        structures = sample_structures(options, folder=folder, n_jobs=jobs)
        write_frames(output, from_ase(structures))
    typer.echo(f"{len(structures)} structures lie in {output}")


def _export(
    options: Any,
    *,
    lammps: Annotated[
        bool, typer.Option("--lammps", help="For LAMMPS, so far the only one.")
    ] = False,
) -> None:
    """Write a force field and a liquid for another program to run: LAMMPS."""
    from .lammps import export_lammps  # noqa: PLC0415

    if not lammps:
        raise InvalidInputError("Expected the program to export for: --lammps.")
    folder = export_lammps(options)
    typer.echo(f"The input lies in {folder}; run it with: python {folder / 'run.py'}")


def _sample_liquids(options: Any, *, jobs: SideBySide = 1) -> None:
    """Run liquids with an ensemble, and keep the frames on which it disagrees.

    A run that was stopped goes on when the same command is run again.
    """
    from .liquids import sample_liquids  # noqa: PLC0415

    frames = sample_liquids(options, n_jobs=jobs)
    typer.echo(f"{frames.n_structures} frames lie in {Path(options.output) / 'frames.h5'}")


def _distill(options: Any) -> None:
    """Distil several force fields into one, on frames of liquids.

    What was stopped goes on when the same command is run again.
    """
    from .distillation import distill_ensemble  # noqa: PLC0415
    from .training_report import training_report  # noqa: PLC0415

    if options.output is None:
        message = "Expected a folder for the model and the log: --output, or output in the file."
        raise InvalidInputError(message)
    result = distill_ensemble(options=options)
    if result.rank == 0:
        page = training_report(result, title="Distillation of an ensemble")
        path = page.write_html(options.output / "report.html")
        typer.echo(result.summary())
        typer.echo(f"The model lies in {result.path}, its learning curves in {path}")


def _align(options: Any, *, jobs: SideBySide = 1) -> None:
    """Align a force field with measured densities.

    What was stopped goes on when the same command is run again.
    """
    from .alignment import align  # noqa: PLC0415
    from .alignment_report import alignment_report  # noqa: PLC0415

    result = align(options=options, n_jobs=jobs)
    page = alignment_report(result).write_html(options.output / "report.html")
    typer.echo(result.summary())
    typer.echo(f"The model lies in {result.path}, a report in {page}")


def _campaign(
    options: Any,
    *,
    mixtures: Annotated[
        Path,
        typer.Argument(
            help="CSV file: liquid, temperature_k, density_g_cm3, viscosity_cp, ... as far as "
            "they were measured.",
            show_default=False,
        ),
    ],
    jobs: Annotated[int, typer.Option(help="Mixtures side by side; -1 for one per core.")] = 1,
) -> None:
    """Run a table of mixtures, and compare their properties with experiment.

    What was stopped goes on when the same command is run again.
    """
    from .campaign import run_campaign  # noqa: PLC0415

    result = run_campaign(mixtures, options, n_jobs=jobs)
    typer.echo(result.summary())
    typer.echo(f"The table lies in {result.table}, a report in {result.page}")
    if result.failed:
        raise typer.Exit(1)


@contextmanager
def _structures_in(output: Path) -> Iterator[None]:
    """See that structures can be written to a file, before the work that makes them."""
    from scikd._atomic import room_for  # noqa: PLC0415

    from .readers import SUFFIXES  # noqa: PLC0415

    if SUFFIXES.get(output.suffix.lower()) not in {"extxyz", "hdf5"}:
        message = f"Expected an output named .h5, .hdf5, .xyz or .extxyz; got {output.name!r}."
        raise InvalidInputError(message)
    with room_for(output):
        yield


def _properties(options: Any) -> None:
    """Compute density, structure, diffusion, viscosity and conductivity from a trajectory."""
    from scikd._atomic import new_folder  # noqa: PLC0415

    from .properties import compute_properties  # noqa: PLC0415
    from .properties_report import properties_report  # noqa: PLC0415

    folder = Path(options.output)
    with new_folder(folder):
        found = compute_properties(options)
        numbers = found.write_json(folder / "properties.json")
        page = properties_report(found).write_html(folder / "report.html")
    typer.echo(found.summary())
    typer.echo(f"The numbers lie in {numbers}, the figures in {page}")


BUILT = {
    "train": Built("scikd.md.training.TrainingOptions", _train),
    "run": Built("scikd.md.dynamics.DynamicsOptions", _run),
    "export": Built("scikd.md.lammps.LammpsOptions", _export),
    "properties": Built("scikd.md.properties.PropertiesOptions", _properties),
    "sample": Built("scikd.md.sampling.SamplingOptions", _sample),
    "sample-liquids": Built("scikd.md.liquids.LiquidsOptions", _sample_liquids),
    "align": Built("scikd.md.alignment.AlignmentOptions", _align),
    "campaign": Built("scikd.md.campaign.CampaignOptions", _campaign, file="flag"),
    "distill": Built("scikd.md.distillation.DistillationOptions", _distill),
}
"""Commands whose flags are the fields of a dataclass."""


app = command_group("md", BUILT)


@app.callback()
def _md() -> None:
    """Interatomic potentials: distil and run molecular dynamics."""


@app.command("evaluate")
def evaluate_model(
    data: Annotated[list[str], typer.Argument(help="Files of structures with labels.")],
    model: Annotated[str, typer.Option(help='Folder of a force field, or "default".')] = "default",
    report: Annotated[Path | None, typer.Option(help="Page of parity plots to write.")] = None,
    numbers: Annotated[Path | None, typer.Option(help="JSON file of the errors to write.")] = None,
    centred: Annotated[
        bool, typer.Option(help="Take off the mean error of the energies first.")
    ] = False,
    total_charge: TotalCharge = 0.0,
) -> None:
    """Compare a force field with labels."""
    from scikd._atomic import atomic_write_bytes, room_for  # noqa: PLC0415

    from ._training_data import as_batch  # noqa: PLC0415
    from .evaluation import evaluate  # noqa: PLC0415
    from .storage import load_force_field  # noqa: PLC0415
    from .training_report import training_report  # noqa: PLC0415

    with ExitStack() as stack:
        for path in filter(None, (numbers, report)):
            stack.enter_context(room_for(path.expanduser()))
        structures = as_batch(data, total_charge=total_charge)
        metrics = evaluate(load_force_field(model), structures, centred=centred)
        typer.echo(metrics.table().to_text())
        if numbers is not None:
            text = json.dumps(metrics.as_dict(), indent=1)
            atomic_write_bytes(numbers.expanduser(), text.encode())
            typer.echo(f"The errors lie in {numbers}")
        if report is not None:
            page = training_report(metrics=metrics, title=f"Errors of {model}").write_html(report)
            typer.echo(f"The report lies in {page}")


@app.command("label")
def label(
    data: Annotated[list[str], typer.Argument(help="Files of structures.")],
    output: Annotated[Path, typer.Option(help="File to write: .h5 or .xyz.", show_default=False)],
    method: Annotated[
        str,
        typer.Option(
            help='"GFN2-xTB", "GFN1-xTB", or a functional and a basis: "B3LYP/def2-SVPD".'
        ),
    ] = "GFN2-xTB",
    store: Annotated[
        Path, typer.Option(help="Folder that keeps the labels: a killed run goes on from it.")
    ] = Path("labels"),
    jobs: Annotated[int, typer.Option(help="Processes; -1 for one per core.")] = 1,
    drop: Annotated[bool, typer.Option(help="Leave out structures that do not converge.")] = False,
    total_charge: TotalCharge = 0.0,
) -> None:
    """Compute energies, forces, charges and dipoles by GFN2-xTB or DFT."""
    from ._training_data import as_batch  # noqa: PLC0415
    from .frames import from_ase, to_ase  # noqa: PLC0415
    from .labelling import label_structures  # noqa: PLC0415
    from .readers import write_frames  # noqa: PLC0415

    with _structures_in(output):
        frames = to_ase(as_batch(data, total_charge=total_charge))
        # A box has a stress and no dipole, a cluster the other way round.
        last = "stress" if all(frame.pbc.all() for frame in frames) else "dipole"
        teacher = _teacher(method, ("energy", "forces", "charges", last))
        failures: Literal["drop", "raise"] = "drop" if drop else "raise"
        labelled = label_structures(frames, teacher, store, n_jobs=jobs, failures=failures)
        write_frames(output, from_ase(labelled.frames), level=teacher.name)
    left_out = f", {len(labelled.failures)} left out" if labelled.failures else ""
    typer.echo(f"{len(labelled.frames)} labelled structures lie in {output}{left_out}")


def _teacher(method: str, properties: Sequence[str]) -> Any:
    """Return the teacher that a method names, or say which names there are."""
    from .labelling import METHODS, DFTTeacher, XTBTeacher  # noqa: PLC0415

    xc, _, basis = method.partition("/")
    if xc and basis:
        return DFTTeacher(xc, basis)
    if method not in METHODS:
        message = (
            f"Expected a method of {', '.join(METHODS)}, or a functional and a basis, such as "
            f"'PBE0/def2-SVPD'; got {method!r}."
        )
        raise InvalidInputError(message)
    return XTBTeacher(method, properties=properties)  # type: ignore[arg-type]


@app.command("import-bamboo")
def import_weights(
    weights: Annotated[Path, typer.Argument(help="NumPy archive (.npz) of the released arrays.")],
    output: Annotated[Path, typer.Argument(help="Folder of the force field to make.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that is there.")
    ] = False,
) -> None:
    """Turn released BAMBOO weights into a force field."""
    from .bamboo import import_bamboo  # noqa: PLC0415

    path = import_bamboo(weights, output, overwrite=overwrite)
    typer.echo(f"The force field lies in {path}")
