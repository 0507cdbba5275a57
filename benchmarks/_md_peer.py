"""A peer's force field in its own environment: it answers requests line by line.

Run by the interpreter of that environment, which has neither scikd nor this package:
``python _md_peer.py MODEL``. Each line of standard input is a JSON request; each answer is a JSON
line on standard output. ``{"load": FILE}`` reads a structure (extxyz), ``{"step": true}`` computes
energy, forces and stress of slightly moved atoms, the neighbour list anew, and answers the seconds;
``{"predict": FILE, "output": FILE}`` writes energies and forces of all structures of a file. MODEL
is the name of an architecture, whose weights are then random, or the path of a trained MACE.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch

CUTOFF = 5.0
ELEMENTS = [1, 3, 6, 8, 9, 15]


def _mace() -> Any:
    torch.serialization.add_safe_globals([slice])  # in the constants of the e3nn that MACE needs
    from e3nn import o3
    from mace.calculators import MACECalculator
    from mace.modules import ScaleShiftMACE, gate_dict, interaction_classes

    block = interaction_classes["RealAgnosticResidualInteractionBlock"]
    torch.manual_seed(0)
    model = ScaleShiftMACE(
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=len(ELEMENTS),
        hidden_irreps=o3.Irreps("64x0e"),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=gate_dict["silu"],
        atomic_energies=np.zeros(len(ELEMENTS)),
        avg_num_neighbors=46.0,
        atomic_numbers=ELEMENTS,
        correlation=3,
        radial_MLP=[64, 64, 64],
    ).float()
    return MACECalculator(models=[model], device="cpu", default_dtype="float32")


def _graph_pes(name: str) -> Any:
    from graph_pes import models

    torch.manual_seed(0)
    model = getattr(models, name)(cutoff=CUTOFF)
    return model.ase_calculator(skin=0.0)


def _calculator(name: str) -> Any:
    if "/" not in name:
        return _mace() if name == "MACE" else _graph_pes(name)
    torch.serialization.add_safe_globals([slice])
    from mace.calculators import MACECalculator

    return MACECalculator(model_paths=name, device="cpu", default_dtype="float32")


def _predict(calculator: Any, source: str, output: str) -> int:
    """Write energies and forces of all structures of a file; return how many there are."""
    from ase.io import read

    energies, forces = [], []
    structures = read(source, ":")
    for atoms in structures:
        calculator.calculate(atoms, ["energy", "forces"])
        energies.append(calculator.results["energy"])
        forces.append(calculator.results["forces"])
    np.savez(output, energies=np.array(energies), forces=np.concatenate(forces))
    return len(structures)


def main() -> None:
    """Answer requests until standard input ends."""
    from ase.io import read

    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries talk; answers stay clean
    calculator = _calculator(sys.argv[1])
    random = np.random.default_rng(0)
    atoms: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, float] = {}
        if "threads" in request:
            torch.set_num_threads(request["threads"])
        if "load" in request:
            atoms = read(request["load"])
            atoms.calc = calculator
            answer["atoms"] = len(atoms)
        if "step" in request:
            atoms.positions += random.normal(scale=1e-3, size=atoms.positions.shape)
            start = time.perf_counter()
            calculator.calculate(atoms, ["energy", "forces", "stress"], ["positions"])
            answer["seconds"] = time.perf_counter() - start
        if "predict" in request:
            answer["structures"] = _predict(calculator, request["predict"], request["output"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
