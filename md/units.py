"""Units: constants, conversion, the sign of stress and virial, and labels in a wrong unit.

Everything inside scikd.md is in Å, eV, e and what follows from these; time is in fs and pressure in
bar where a user gives or sees them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase import units as ase_units

from scikd.exceptions import InvalidInputError

if TYPE_CHECKING:
    from .frames import AtomicBatch

__all__ = [
    "ATM",
    "BAR",
    "BOHR",
    "COULOMB",
    "DEBYE",
    "FROM_VOIGT",
    "FS",
    "GRAM_PER_CM3",
    "HARTREE",
    "KB",
    "KCAL_PER_MOL",
    "KJ_PER_MOL",
    "TO_VOIGT",
    "check_magnitudes",
    "convert",
    "stress_from_virial",
    "virial_from_stress",
]

KCAL_PER_MOL = float(ase_units.kcal / ase_units.mol)  # eV
KJ_PER_MOL = float(ase_units.kJ / ase_units.mol)  # eV
HARTREE = float(ase_units.Hartree)  # eV
BOHR = float(ase_units.Bohr)  # Å
DEBYE = float(ase_units.Debye)  # e·Å
BAR = float(ase_units.bar)  # eV/Å³
ATM = 1.01325 * BAR  # eV/Å³
FS = float(ase_units.fs)  # ASE's unit of time, Å·sqrt(u/eV)
KB = float(ase_units.kB)  # eV/K
COULOMB = HARTREE * BOHR  # e²/(4π ε₀) = 14.3996 eV·Å
GRAM_PER_CM3 = float(ase_units.mol) / 1e24  # u/Å³; and mol/cm³ in 1/Å³

# Six numbers in the order xx, yy, zz, yz, xz, xy are ``tensor[..., *TO_VOIGT]``, and the symmetric
# tensor is ``six[..., FROM_VOIGT]``, of arrays and of tensors of torch.
TO_VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
FROM_VOIGT = [[0, 5, 4], [5, 1, 3], [4, 3, 2]]


class _Unit(NamedTuple):
    """A factor to ASE's units, and powers of energy, length, time, charge and temperature."""

    factor: float
    energy: int = 0
    length: int = 0
    time: int = 0
    charge: int = 0
    temperature: int = 0

    def times(self, other: _Unit, power: int) -> _Unit:
        powers = (a + power * b for a, b in zip(self[1:], other[1:], strict=True))
        return _Unit(self.factor * other.factor**power, *powers)


def _named(names: str, *unit: float) -> dict[str, _Unit]:
    return dict.fromkeys(names.split(), _Unit(*unit))  # type: ignore[arg-type]


SECOND = float(ase_units.second)
METRE = 1e10
GRAM = float(ase_units.kg) / 1e3

UNITS = {
    **_named("1", 1.0),
    **_named("mol", float(ase_units.mol)),
    **_named("eV", 1.0, 1),
    **_named("meV", 1e-3, 1),
    **_named("Ha Eh Hartree hartree", HARTREE, 1),
    **_named("Ry Rydberg rydberg", HARTREE / 2, 1),
    **_named("J", float(ase_units.J), 1),
    **_named("kJ", float(ase_units.kJ), 1),
    **_named("cal", float(ase_units.kcal) / 1e3, 1),
    **_named("kcal", float(ase_units.kcal), 1),
    **_named("Å A Ang Angstrom angstrom", 1.0, 0, 1),
    **_named("bohr Bohr", BOHR, 0, 1),
    **_named("pm", 1e-2, 0, 1),
    **_named("nm", 10.0, 0, 1),
    **_named("cm", METRE / 100, 0, 1),
    **_named("m", METRE, 0, 1),
    **_named("fs", SECOND * 1e-15, 0, 0, 1),
    **_named("ps", SECOND * 1e-12, 0, 0, 1),
    **_named("ns", SECOND * 1e-9, 0, 0, 1),
    **_named("s", SECOND, 0, 0, 1),
    **_named("e", 1.0, 0, 0, 0, 1),
    **_named("D Debye debye", DEBYE, 0, 1, 0, 1),
    **_named("C", float(ase_units.C), 0, 0, 0, 1),
    **_named("K", 1.0, 0, 0, 0, 0, 1),
    **_named("Pa", BAR / 1e5, 1, -3),
    **_named("kPa", BAR / 1e2, 1, -3),
    **_named("MPa", BAR * 10, 1, -3),
    **_named("GPa", BAR * 1e4, 1, -3),
    **_named("bar", BAR, 1, -3),
    **_named("kbar", BAR * 1e3, 1, -3),
    **_named("atm", ATM, 1, -3),
    # A mass is an energy times a time squared by a length squared.
    **_named("u amu Da", 1.0, 1, -2, 2),
    **_named("g", GRAM, 1, -2, 2),
    **_named("kg", GRAM * 1e3, 1, -2, 2),
}

SUPERSCRIPTS = str.maketrans({"⁻": "-", "⁰": "0", "¹": "1", "²": "2", "³": "3", "⁴": "4", "⁶": "6"})
TOKEN = re.compile(r"\s*([*·/]?)\s*([^\W\d_]+|1)(?:(?:\^|\*\*)?(-?\d+))?\s*")


def _parse(text: str) -> _Unit:
    """Read a product of units and their powers, such as ``kcal/mol/Å`` or ``eV Å^-3``."""
    # The Ångström sign and the letter look alike, and are two characters. The 0 in a0 is no power.
    plain = re.sub(r"\ba[0₀]", "bohr", text.replace("\u212b", "Å")).translate(SUPERSCRIPTS)
    unit, place = _Unit(1.0), 0
    while place < len(plain) or not place:
        match = TOKEN.match(plain, place)
        if match is None or match[2] not in UNITS:
            message = (
                f"Expected a unit made of {', '.join(sorted(UNITS))} with '/', '*' and '^'; got "
                f"{text!r}."
            )
            raise InvalidInputError(message)
        power = int(match[3] or 1)
        unit = unit.times(UNITS[match[2]], -power if match[1] == "/" else power)
        place = match.end()
    return unit


def convert(values: Any, source: str, target: str) -> Any:
    """Express values given in one unit in another.

    Parameters
    ----------
    values : float, numpy.ndarray or torch.Tensor
        Values in the unit `source`.
    source, target : str
        Products of units and powers: ``"kcal/mol/Å"``, ``"Ha/bohr"``, ``"eV/Å^3"``, ``"g/cm³"``.
        Each ``/`` divides by the one unit after it.

    Returns
    -------
    float, numpy.ndarray or torch.Tensor
        As `values`, in the unit `target`.

    Raises
    ------
    InvalidInputError
        If a unit is not known, or the two do not measure the same.

    Examples
    --------
    >>> round(convert(1.0, "kcal/mol/Å", "eV/Å"), 6)
    0.043364
    """
    one, other = _parse(source), _parse(target)
    if one[1:] != other[1:]:
        message = f"Expected two units of one quantity; got {source!r} and {target!r}."
        raise InvalidInputError(message)
    return values * (one.factor / other.factor)


def stress_from_virial(virial: np.ndarray, volume: np.ndarray | float) -> np.ndarray:
    """Return the stress (1/V) dE/dε of a virial -dE/dε.

    .. warning::
       The sign is ASE's: a stress is positive under tension, a virial under compression. Codes that
       print the pressure tensor, or dE/dε itself as "virial", have the other sign.

    Parameters
    ----------
    virial : numpy.ndarray of shape (..., 3, 3)
        In eV; its antisymmetric part is dropped.
    volume : float or numpy.ndarray of shape (...)
        In Å³.

    Returns
    -------
    numpy.ndarray of shape (..., 6)
        In eV/Å³, in the order xx, yy, zz, yz, xz, xy.
    """
    virial = np.asarray(virial, dtype=np.float64)
    full = -0.5 * (virial + virial.swapaxes(-1, -2)) / np.asarray(volume)[..., None, None]
    six: np.ndarray = full[..., *TO_VOIGT]
    return six


def virial_from_stress(stress: np.ndarray, volume: np.ndarray | float) -> np.ndarray:
    """Return the virial -dE/dε of a stress: the inverse of `stress_from_virial`.

    Parameters
    ----------
    stress : numpy.ndarray of shape (..., 6)
        In eV/Å³, ASE's sign and Voigt order.
    volume : float or numpy.ndarray of shape (...)
        In Å³.

    Returns
    -------
    numpy.ndarray of shape (..., 3, 3)
        In eV.
    """
    stress = np.asarray(stress, dtype=np.float64)
    return -stress[..., FROM_VOIGT] * np.asarray(volume)[..., None, None]


def check_magnitudes(batch: AtomicBatch) -> None:
    """Raise an error if labels seem to be in a wrong unit, or the stress to have a wrong sign.

    What is looked at, and only where there is enough to be sure:

    * distances: hydrogen's to its nearest neighbour, about 1 Å in any molecule;
    * forces: the stiffness of bonds to hydrogen, 20 to 60 eV/Å² in any molecule, as the slope of
      the force along the bond;
    * energies: that they are not what all-electron DFT or GFN2-xTB would give in Hartree, kcal/mol
      or kJ/mol for these elements;
    * stress: the virial but for its trace, most of which is Σ r ⊗ F within molecules.

    Parameters
    ----------
    batch : AtomicBatch
        Structures with labels; a few dozens of the same kind are enough.

    Raises
    ------
    InvalidInputError
        If something is off; the message says what was found and which unit would explain it.
    """
    from ._magnitudes import problems  # noqa: PLC0415 - it needs frames, and frames need units

    found = problems(batch)
    if found:
        message = (
            "Expected labels in Å, eV, eV/Å and eV/Å³ (stress (1/V) dE/dε, ASE's sign):\n"
            + "\n".join(found)
            + "\nName the units of the file, read_frames(..., units=...), or convert the values."
        )
        raise InvalidInputError(message)
