"""Make ``md/molecules.xyz``: conformers of the species that ``scikd.md.molecules`` knows.

RDKit (ETKDG, MMFF94) or ASE build them, GFN2-xTB optimises them. From the root of a checkout::

    python data/md/make_molecules.py

It takes a minute on one core. The same versions of RDKit and tblite give the same file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.optimize import BFGS
from rdkit import Chem
from rdkit.Chem import AllChem
from tblite.ase import TBLite

ROOT = Path(__file__).resolve().parents[2]
SMILES = {
    "DEC": "CCOC(=O)OCC",
    "DMC": "COC(=O)OC",
    "DME": "COCCOC",
    "EC": "O=C1OCCO1",
    "EMC": "CCOC(=O)OC",
    "PC": "CC1COC(=O)O1",
    "VC": "O=C1OC=CO1",
}
CHARGES = {"PF6-": -1, "Li+": 1}
WINDOW = 0.30  # eV above the best conformer
MOST = 5  # conformers kept of a species
SEED = 20240


def conformers(smiles: str) -> list[Atoms]:
    """Return MMFF94 conformers of a molecule."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    settings = AllChem.EmbedParameters()  # plain distance geometry: it also finds cis-trans esters
    settings.forceTransAmides = False
    settings.randomSeed = SEED
    ids = list(AllChem.EmbedMultipleConfs(molecule, 40, settings))
    AllChem.MMFFOptimizeMoleculeConfs(molecule, maxIters=2000)
    symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    return [Atoms(symbols, molecule.GetConformer(i).GetPositions()) for i in ids]


def hexafluorophosphate() -> Atoms:
    """Return an octahedral PF6 with bonds of 1.64 Å."""
    corners = 1.64 * np.vstack([np.eye(3), -np.eye(3)])
    return Atoms("PF6", np.vstack([np.zeros((1, 3)), corners]))


def optimise(atoms: Atoms, charge: int) -> Atoms:
    """Optimise with GFN2-xTB to 5 meV/Å; centre on the centre of mass."""
    atoms = atoms.copy()
    atoms.calc = TBLite(method="GFN2-xTB", charge=charge, verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=0.005, steps=500)
    atoms.positions -= atoms.get_center_of_mass()
    return atoms


def distinct(optimised: list[Atoms]) -> list[Atoms]:
    """Keep conformers within the window whose energies or moments of inertia differ."""
    ordered = sorted(optimised, key=lambda atoms: atoms.get_potential_energy())
    kept: list[Atoms] = []
    for atoms in ordered:
        energy, moments = atoms.get_potential_energy(), atoms.get_moments_of_inertia()
        if energy - ordered[0].get_potential_energy() > WINDOW or len(kept) == MOST:
            break
        if all(
            abs(energy - other.get_potential_energy()) > 1e-3
            or np.abs(moments / other.get_moments_of_inertia() - 1).max() > 0.01
            for other in kept
        ):
            kept.append(atoms)
    return kept


def block(name: str, atoms: Atoms, number: int, charge: int, energy: float) -> str:
    """Return one extended-XYZ frame."""
    comment = (
        f'Properties=species:S:1:pos:R:3 name="{name}" conformer={number} charge={charge} '
        f'relative_energy={energy:.4f} pbc="F F F"'
    )
    lines = [
        f"{symbol:<2s} {x:11.6f} {y:11.6f} {z:11.6f}"
        for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)
    ]
    return "\n".join([str(len(atoms)), comment, *lines]) + "\n"


def main() -> None:
    """Write the file."""
    text = ""
    for name, smiles in sorted(SMILES.items()):
        kept = distinct([optimise(atoms, 0) for atoms in conformers(smiles)])
        best = kept[0].get_potential_energy()
        for number, atoms in enumerate(kept):
            text += block(name, atoms, number, 0, atoms.get_potential_energy() - best)
    text += block("Li+", Atoms("Li"), 0, 1, 0.0)
    text += block("PF6-", optimise(hexafluorophosphate(), -1), 0, -1, 0.0)
    (ROOT / "md" / "molecules.xyz").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
