"""Small force fields with random weights, and random structures for them."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms

from scikd.md.dispersion import D3CSO
from scikd.md.electrostatics import Electrostatics
from scikd.md.get import GET, GETSettings
from scikd.md.model import ForceField

ELEMENTS = (1, 6, 8)


def force_field(seed=0, dtype=torch.float64, scale=0.1, **changes):
    """Return a force field whose every term is at work."""
    generator = torch.Generator().manual_seed(seed)
    network = GET(GETSettings(dim=8, n_heads=2, n_layers=3, n_radial=6, cutoff=3.5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.3, generator=generator).mul_(scale / 0.1)
    terms = {
        "electrostatics": Electrostatics(cutoff=5.0, accuracy=1e-8),
        "dispersion": D3CSO(cutoff=6.0),
        "references": {1: -10.0, 6: -1000.0, 8: -2000.0},
    }
    model = ForceField(network, elements=ELEMENTS, **(terms | changes))
    return model.to(dtype)


def polar(**changes):
    """Return one whose charges are large, and still depend on positions."""
    field = force_field(**changes)
    field.architecture.charge_prior[[1, 6, 8]] = torch.tensor([0.4, 0.3, -0.6], dtype=field.dtype)
    return field


def structure(n_atoms=12, seed=0, width=6.0, periodic=True, apart=1.1):
    """Scatter atoms in a triclinic cell, or in free space."""
    random = np.random.default_rng(seed)
    cell = width * np.array([[1.0, 0.0, 0.0], [0.2, 0.9, 0.0], [-0.1, 0.15, 1.1]])
    atoms = Atoms(cell=cell, pbc=periodic)
    while len(atoms) < n_atoms:
        candidate = Atoms([random.choice(ELEMENTS)], positions=[random.random(3) @ cell])
        trial = atoms + candidate
        near = trial.get_distances(-1, range(len(atoms)), mic=periodic) if len(atoms) else [apart]
        if min(near) >= apart:
            atoms = trial
    if not periodic:
        atoms.cell = None
    return atoms
