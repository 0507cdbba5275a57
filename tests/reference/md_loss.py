"""The published training loss, written out structure by structure in its own units.

Weights and terms: arXiv:2404.07181. Units are kcal/mol, Å, e and Debye.
"""

import numpy as np

EV = 23.060547830619026  # kcal/mol
E_ANGSTROM = 4.803204712570263  # Debye


def published_loss(structures):
    """Return the loss of a batch.

    Each structure is a dict with ``predicted`` and ``label``, each a dict of arrays in eV, Å and e,
    and ``positions``.
    """
    energies = np.array([s["predicted"]["energy"] for s in structures]) * EV
    labels = np.array([s["label"]["energy"] for s in structures]) * EV
    energy_error = (energies - energies.mean()) - (labels - labels.mean())
    force, virial, charge, dipole, qeq = [], [], [], [], []
    for s in structures:
        p, t = s["predicted"], s["label"]
        for i in range(len(s["positions"])):
            for c in range(3):
                force.append((p["forces"][i][c] - t["forces"][i][c]) * EV)
                qeq.append(p["qeq_force"][i][c] * EV)
            charge.append(p["charges"][i] - t["charges"][i])
        for a in range(3):
            for b in range(3):
                label = 0.0
                for x, f in zip(s["positions"], t["forces"], strict=True):
                    label += 0.5 * (x[a] * f[b] + x[b] * f[a])
                virial.append((p["virial"][a][b] - label) * EV)
            dipole.append((p["dipole"][a] - t["dipole"][a]) * E_ANGSTROM)
    weighted = (
        (0.01, energy_error),
        (0.3, force),
        (0.01, virial),
        (10.0, charge),
        (10.0, dipole),
        (300.0, qeq),
    )
    return sum(weight * np.mean(np.square(errors)) for weight, errors in weighted)
