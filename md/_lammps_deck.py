"""What an export to LAMMPS writes: the structure, and two input files in units "metal"."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

from ase import Atoms
from ase.io.lammpsdata import write_lammps_data

if TYPE_CHECKING:
    from .lammps import LammpsOptions

__all__ = ["data_file", "run_deck", "system_deck"]

PICOSECOND = 1e3  # fs, the unit of time of "metal" being the ps
SKIN = 2.0  # Å, of LAMMPS' own lists


def data_file(atoms: Atoms, symbols: Sequence[str]) -> str:
    """Return a structure as LAMMPS reads it, turned so that its box has the shape it asks for.

    Parameters
    ----------
    atoms : ase.Atoms
        Periodic in three directions; its initial charges are written.
    symbols : sequence of str
        Elements of the types 1, 2, ...
    """
    text = StringIO()
    write_lammps_data(
        text, atoms, specorder=list(symbols), units="metal", atom_style="charge", masses=True
    )
    return text.getvalue()


def system_deck() -> str:
    """Return the commands that read the structure, before the force field is attached."""
    return f"""\
# Å, eV, ps, K, bar, e. The force field is attached after this file, and before in.run.
units metal
atom_style charge
atom_modify map yes
boundary p p p
newton on
read_data system.data
neighbor {SKIN} bin
neigh_modify every 1 delay 0 check yes
"""


def run_deck(options: LammpsOptions) -> str:
    """Return the commands of the run, for a user to change."""
    o = options
    heat, press = o.thermostat_time / PICOSECOND, o.barostat_time / PICOSECOND
    temperature = f"temp {o.temperature} {o.temperature} {heat}"
    ensemble = {
        "nve": "nve",
        "nvt": f"nvt {temperature}",
        "npt": f"npt {temperature} iso {o.pressure_bar} {o.pressure_bar} {press}",
    }[o.ensemble]
    return f"""\
# Change what you like: run.py reads this file when the force field is attached.
timestep {o.timestep / PICOSECOND}
velocity all create {o.temperature} {o.seed + 1} mom yes rot no
fix ensemble all {ensemble}
thermo {o.log_interval}
thermo_style custom step time temp density press pe etotal pxx pyy pzz pxy pxz pyz
thermo_modify flush yes
dump frames all custom {o.trajectory_interval} frames.lammpstrj id type xu yu zu q
dump_modify frames sort id
run {o.steps}
write_data final.data
"""
