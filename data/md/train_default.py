"""Train the model that comes with scikd, ``md/models/default``, on ``data/md/clusters-*.h5``.

From the root of a checkout, on one core (an hour or two)::

    OMP_NUM_THREADS=1 python data/md/train_default.py work-folder

The options lie in ``default.yaml``. After a kill, run it again: it goes on from its checkpoint in
the work folder, to the same numbers. At the end it judges the model on the structures that were in
neither training nor validation, and writes those errors into the model's metadata.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from ase.data import chemical_symbols

from scikd._options import load_options
from scikd.md.evaluation import QUANTITIES, Metrics, evaluate
from scikd.md.frames import AtomicBatch, collate, select
from scikd.md.model import ForceField
from scikd.md.readers import read_frames
from scikd.md.storage import save_force_field
from scikd.md.training import TrainingOptions, fit
from scikd.md.training_report import training_report

logger = logging.getLogger("train_default")

HERE = Path(__file__).resolve().parent
MODEL = HERE.parents[1] / "md" / "models" / "default"
PARTS = ("train", "validation", "test")
LIMITS = (
    "Liquids of EC, DMC, EMC, PC and DME, with Li+ and PF6- or without, near ambient conditions. "
    "No other elements, no reactions, no interfaces. Its energies, densities and dynamics are "
    "those of GFN2-xTB, a semi-empirical method, and not those of experiment."
)


def read_parts(files: Sequence[Path]) -> tuple[dict[str, AtomicBatch], str]:
    """Return training, validation and test structures, and the level of theory of their labels."""
    parts: dict[str, list[AtomicBatch]] = {name: [] for name in PARTS}
    for path in files:
        batch = read_frames(path)
        with h5py.File(path) as file:
            split, level = file["split"][:], str(file.attrs["level"])
        for number, name in enumerate(PARTS):
            parts[name].append(select(batch, np.flatnonzero(split == number)))
    return {name: collate(batches) for name, batches in parts.items()}, level


def card(parts: dict[str, AtomicBatch], level: str, metrics: Metrics) -> dict[str, object]:
    """Return what a user should know of the model."""
    return {
        "level": level,
        "data": {name: batch.n_structures for name, batch in parts.items()},
        "source": "data/md/clusters-*.h5, by data/md/make_clusters.py",
        "made_by": "data/md/train_default.py",
        "errors": metrics.as_dict(),
        "limits": LIMITS,
    }


def card_page(force_field: ForceField) -> str:
    """Return the card of a model as Markdown."""
    about = force_field.metadata
    errors = about["errors"]["errors"]
    rows = [
        f"| {title} | {e['rmse']:.3g} | {e['mae']:.3g} | {e['spread']:,.3g} | {unit} | {e['n']:,} |"
        for name, (title, unit, _) in QUANTITIES.items()
        if (e := errors.get(name))
    ]
    counts = ", ".join(f"{part} {n:,}" for part, n in sorted(about["data"].items()))
    n_weights = sum(p.numel() for p in force_field.parameters())
    symbols = ", ".join(chemical_symbols[z] for z in force_field.elements)
    lines = [
        "# The default model",
        "",
        f"Written by `{about['made_by']}`, with the options in `data/md/default.yaml`.",
        "",
        f"- **Network**: GET, {n_weights:,} weights; cutoff {force_field.near_cutoff:g} Å.",
        f"- **Elements**: {symbols}.",
        f"- **Level**: {about['level']}. The labels contain dispersion; so does the model.",
        f"- **Data**: {about['source']}; structures: {counts}.",
        f"- **Limits**: {about['limits']}",
        "",
        "Errors on the test structures, which share no trajectory with the others. Forces between",
        "molecules are what moves or turns a molecule as a whole; those within are the rest. The",
        "spread is the standard deviation of the labels, the error of a constant.",
        "",
        "| quantity | RMSE | MAE | spread | unit | numbers |",
        "|---|--:|--:|--:|---|--:|",
        *rows,
        "",
    ]
    return "\n".join(lines)


def main(folder: Path) -> None:
    """Train, judge, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    files = sorted(HERE.glob("clusters-*.h5"))
    parts, level = read_parts(files)
    logger.info("%s", {name: batch.n_structures for name, batch in parts.items()})
    options = load_options(TrainingOptions, HERE / "default.yaml", {"output": folder})
    result = fit(options, train=parts["train"], validation=parts["validation"])
    metrics = evaluate(result.force_field, parts["test"])
    logger.info("on the test structures:\n%s", metrics.table().to_text())
    result.force_field.metadata.update(card(parts, level, metrics))
    MODEL.parent.mkdir(exist_ok=True)
    save_force_field(result.force_field, MODEL)
    card_text = card_page(result.force_field)
    (MODEL.parent / "README.md").write_text(card_text, encoding="utf-8")
    page = training_report(result, metrics, title="The default model").write_html(
        folder / "report.html"
    )
    logger.info("the model lies in %s, a report in %s", MODEL, page)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
