"""Species of liquid electrolytes: shapes, charges, masses, densities, and mixtures of them.

The shapes lie in ``molecules.xyz`` beside this file: conformers optimised with GFN2-xTB (made by
``data/md/make_molecules.py``). Where a molecule has two mirror images, one is there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, Self

from ase import Atoms
from ase.io import iread

from scikd.exceptions import InvalidInputError

__all__ = [
    "SALTS",
    "SPECIES",
    "Basis",
    "Mixture",
    "Species",
    "get_species",
    "parse_mixture",
]

Basis = Literal["molar", "mass"]

_SHAPES = Path(__file__).with_name("molecules.xyz")

# Salts are made of ions, which are the species.
SALTS: Mapping[str, Mapping[str, int]] = {"LiPF6": {"Li+": 1, "PF6-": 1}}


@dataclass(frozen=True)
class Species:
    """A molecule or ion.

    Parameters
    ----------
    name : str
        Short name, e.g. ``"EC"`` or ``"PF6-"``.
    title : str
        Full name.
    charge : int
        Total charge in e.
    molar_mass : float
        In g/mol.
    molar_volume : float
        In cm³/mol: of the neat liquid near 25 °C; of an ion an effective one, see Notes.
    conformers : tuple of ase.Atoms
        Shapes (Å) around the centre of mass, the most stable one first.
    source : str
        Where the molar volume comes from.

    Notes
    -----
    Volumes of ions are effective: a lithium ion is given none, and PF6- what is left of a molar
    solution of LiPF6 in carbonates when its solvents keep their volumes.
    """

    name: str
    title: str
    charge: int
    molar_mass: float
    molar_volume: float
    conformers: tuple[Atoms, ...] = field(repr=False, compare=False)
    source: str = ""

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.conformers[0])

    @property
    def density(self) -> float | None:
        """Density of the neat liquid near 25 °C in g/cm³; None for ions."""
        return None if self.charge else self.molar_mass / self.molar_volume


_XU = "K. Xu, Chem. Rev. 104, 4303 (2004), tables 1 and 2 (25 °C)"
_FACTS: dict[str, tuple[str, float, str]] = {  # title, g/cm³ (ions: cm³/mol), source
    "DEC": ("diethyl carbonate", 0.969, _XU),
    "DMC": ("dimethyl carbonate", 1.063, _XU),
    "DME": ("1,2-dimethoxyethane", 0.86, _XU),
    "EC": ("ethylene carbonate", 1.321, f"{_XU}; it melts at 36 °C"),
    "EMC": ("ethyl methyl carbonate", 1.006, _XU),
    "Li+": ("lithium ion", 0.0, "by definition"),
    "PC": ("propylene carbonate", 1.200, _XU),
    "PF6-": ("hexafluorophosphate ion", 52.0, "1 mol/L LiPF6 in carbonates"),
    "VC": ("vinylene carbonate", 1.355, "data sheets of suppliers (25 °C)"),
}
SPECIES: tuple[str, ...] = tuple(_FACTS)


@cache
def _read_shapes() -> dict[str, tuple[Atoms, ...]]:
    shapes: dict[str, tuple[Atoms, ...]] = {}
    for frame in iread(_SHAPES, index=":", format="extxyz"):
        name = frame.info["name"]
        shape = Atoms(frame.numbers, frame.positions, info={"charge": int(frame.info["charge"])})
        shapes[name] = (*shapes.get(name, ()), shape)
    return shapes


def get_species(name: str) -> Species:
    """Return a species by its short name.

    Parameters
    ----------
    name : str
        One of `SPECIES`.

    Returns
    -------
    Species
        With copies of the conformers, so that the caller may change them.

    Raises
    ------
    InvalidInputError
        If there is no such species.
    """
    if name not in _FACTS:
        raise InvalidInputError(_unknown(name))
    title, number, source = _FACTS[name]
    shapes = _read_shapes()[name]
    charge = shapes[0].info["charge"]
    mass = float(shapes[0].get_masses().sum())
    volume = number if charge else mass / number
    copies = tuple(shape.copy() for shape in shapes)
    return Species(name, title, charge, mass, volume, copies, source)


def _unknown(name: str) -> str:
    return (
        f"Unknown species {name!r}. Known are {', '.join(SPECIES)}, and the salt "
        f"{', '.join(SALTS)}. For another molecule, pack your own ase.Atoms: see "
        "scikd.md.packing.pack_molecules."
    )


@dataclass(frozen=True)
class Mixture(Mapping[str, float]):
    """Mole fractions of species, by name; they sum to 1, and the charges to 0.

    Parameters
    ----------
    fractions : dict of str to float
        Mole fractions of molecules and ions; `from_ratio` makes them of any ratio.
    """

    fractions: Mapping[str, float]

    @classmethod
    def from_ratio(cls, ratio: Mapping[str, float], basis: Basis = "molar") -> Self:
        """Make a mixture of parts by amount of substance or by mass.

        Parameters
        ----------
        ratio : mapping of str to float
            Parts of species and salts.
        basis : {"molar", "mass"}, default="molar"
            What the parts count.

        Returns
        -------
        Mixture
            Salts are split into their ions.

        Raises
        ------
        InvalidInputError
            If a species is unknown, a part is not positive, or the charges do not cancel.
        """
        if basis not in {"molar", "mass"}:
            message = f"Expected basis 'molar' or 'mass'; got {basis!r}."
            raise InvalidInputError(message)
        amounts: dict[str, float] = {}
        for name, part in ratio.items():
            ions = SALTS.get(name, {name: 1})
            members = {ion: get_species(ion) for ion in ions}
            if not (math.isfinite(part) and part > 0):
                message = f"Expected positive parts of a mixture; got {part} of {name!r}."
                raise InvalidInputError(message)
            mass = sum(members[ion].molar_mass * count for ion, count in ions.items())
            moles = part / mass if basis == "mass" else part
            for ion, count in ions.items():
                amounts[ion] = amounts.get(ion, 0.0) + moles * count
        total = sum(amounts.values())
        fractions = {name: amount / total for name, amount in amounts.items()}
        charge = sum(get_species(name).charge * part for name, part in fractions.items())
        if not fractions or abs(charge) > 1e-9:
            message = (
                f"Expected a neutral mixture of at least one species; got {dict(ratio)}, whose "
                f"charges sum to {charge:+.3g} e per particle."
            )
            raise InvalidInputError(message)
        return cls(fractions)

    def __getitem__(self, name: str) -> float:
        return self.fractions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fractions)

    def __len__(self) -> int:
        return len(self.fractions)

    @property
    def density(self) -> float:
        """Density in g/cm³ at ambient conditions if volumes were additive: a first guess."""
        members = [(get_species(name), part) for name, part in self.items()]
        mass = sum(part * species.molar_mass for species, part in members)
        return mass / sum(part * species.molar_volume for species, part in members)

    def counts(
        self, *, n_molecules: int | None = None, n_atoms: int | None = None
    ) -> dict[str, int]:
        """Return whole numbers of molecules, neutral in sum, close to the fractions.

        Parameters
        ----------
        n_molecules, n_atoms : int or None
            How many molecules (an ion is one) or atoms there should be, about; give one of them.

        Returns
        -------
        dict of str to int
            At least one of each species.

        Raises
        ------
        InvalidInputError
            If not exactly one size is given, or it is below the number of species.
        """
        if (n_molecules is None) == (n_atoms is None):
            message = (
                f"Give n_molecules or n_atoms; got n_molecules={n_molecules}, n_atoms={n_atoms}."
            )
            raise InvalidInputError(message)
        per_molecule = sum(part * get_species(name).n_atoms for name, part in self.items())
        wanted = float(n_molecules) if n_atoms is None else n_atoms / per_molecule  # type: ignore[arg-type]
        if round(wanted) < len(self):
            message = (
                f"Expected at least one molecule of each of {list(self)}; got room for "
                f"{wanted:.1f}. Ask for more."
            )
            raise InvalidInputError(message)
        counts = {name: max(1, round(part * wanted)) for name, part in self.items()}
        charges = {name: get_species(name).charge for name in counts}
        # Rounding may leave a charge; more of the ions of the other sign take it away.
        while (charge := sum(charges[name] * count for name, count in counts.items())) != 0:
            opposite = [name for name in counts if charges[name] * charge < 0]
            counts[min(opposite, key=lambda name: counts[name] - self[name] * wanted)] += 1
        return counts


_RATIO = re.compile(
    r"(?P<names>\S+)(?:\s+(?P<parts>[\d.:eE+-]+))?(?:\s+(?:by\s+)?\(?(?P<basis>\w+)\)?)?"
)
_BASES: dict[str, Basis] = {
    "molar": "molar", "mol": "molar", "moles": "molar", "mass": "mass", "weight": "mass",
}  # fmt: skip


def parse_mixture(text: str, *, basis: Basis | None = None) -> Mixture:
    """Read a mixture from text.

    Parameters
    ----------
    text : str
        Names with colons between them, then parts (equal if there are none), then what the parts
        count if it is not the amount of substance: ``"EC"``, ``"EC:DMC 1:1"``,
        ``"EC:EMC 3:7 by mass"``, ``"EC:DMC:LiPF6 5:7:1"``.
    basis : {"molar", "mass"} or None, default=None
        What the parts count, where the text does not say it; None is ``"molar"``.

    Returns
    -------
    Mixture
        Mole fractions.

    Raises
    ------
    InvalidInputError
        If the text cannot be read, names an unknown species or one twice, or contradicts
        ``basis``.
    """
    match = _RATIO.fullmatch(text.strip())
    said = match["basis"] if match else None
    if match is None or (said is not None and said.lower() not in _BASES):
        message = (
            f"Cannot read the mixture {text!r}. Expected e.g. 'EC:DMC 1:1', 'EC:EMC 3:7 by mass' "
            "or 'EC:DMC:LiPF6 5:7:1'."
        )
        raise InvalidInputError(message)
    names = match["names"].split(":")
    for name in names:
        if name not in _FACTS and name not in SALTS:
            raise InvalidInputError(_unknown(name))
    try:
        parts = [float(part) for part in match["parts"].split(":")] if match["parts"] else None
    except ValueError:
        parts = []
    parts = [1.0] * len(names) if parts is None else parts
    if len(parts) != len(names) or len(set(names)) != len(names):
        message = (
            f"Expected as many numbers as different names in {text!r}; got the names {names} and "
            f"the parts {match['parts']!r}."
        )
        raise InvalidInputError(message)
    stated = _BASES[said.lower()] if said else None
    if stated and basis and stated != basis:
        message = f"The mixture {text!r} counts by {stated}, but basis={basis!r}. Drop one."
        raise InvalidInputError(message)
    return Mixture.from_ratio(dict(zip(names, parts, strict=True)), stated or basis or "molar")
