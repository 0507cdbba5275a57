"""Force fields, and ensembles of them, as calculators of ASE; calculators of ASE as teachers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, all_changes

from scikd.ensemble import TeacherEnsemble
from scikd.exceptions import InvalidInputError
from scikd.fingerprints import fingerprint_inputs
from scikd.quantities import Quantity
from scikd.teachers import Teacher

from ._engines import DTYPES, Engine, choose_engine, fingerprint_of, frozen_copy, make_engine
from ._labels import LABELS, QUANTITIES, total_charge_of
from .frames import check_geometry, from_ase
from .guard import Guard, Response, charge_limits, distance_limits
from .model import ForceField
from .storage import load_force_field

__all__ = ["CalculatorTeacher", "EnsembleCalculator", "ForceFieldCalculator", "ForceFieldTeacher"]

Given = Guard | Response | None
PROPERTIES = ["energy", "free_energy", "forces", "stress", "charges", "dipole"]


class _ChargedCalculator(Calculator, ABC):
    """A calculator whose results depend on the total charge too, and do not outlive a failure."""

    total_charge: float | None = None

    def _charge(self, atoms: Atoms) -> float:
        if self.total_charge is not None:
            return self.total_charge
        return total_charge_of(atoms, None)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Say what has changed since the last calculation."""
        changes: list[str] = super().check_state(atoms, tol=tol)  # type: ignore[no-untyped-call]
        if self.atoms is not None and self._charge(atoms) != self._charge(self.atoms):
            changes.append("total_charge")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute all properties that the structure has; whatever fails leaves none behind."""
        super().calculate(atoms, properties or ["energy"], system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None  # noqa: S101 - for the type checker; ASE sets it
        try:
            self.results = self._compute(self.atoms, system_changes)
        except BaseException:
            # Or the next call would find nothing changed: skip checks, or give old results.
            self.reset()  # type: ignore[no-untyped-call]
            raise

    @abstractmethod
    def _compute(self, atoms: Atoms, changes: Sequence[str]) -> dict[str, Any]:
        """Return the results for a structure, of which this has changed since the last."""


class ForceFieldCalculator(_ChargedCalculator):
    """A force field as a calculator of ASE.

    Properties, in eV, Å and e: ``energy`` and ``free_energy`` (the same), ``energies`` (references
    of the elements included, so that they sum to the energy), ``forces``, ``charges``; ``stress``
    for structures that are periodic in three directions (ASE's sign and Voigt order); ``dipole``
    for those that are not periodic at all, about the origin of the coordinates, which matters if
    the total charge is not zero. All of them are computed at once.

    Parameters
    ----------
    model : ForceField, str or pathlib.Path, default="default"
        The force field (a copy is taken), the folder of one, or "default".
    engine : {"auto", "torch", "numba"}, default="auto"
        What computes: "auto" is the compiled kernels for a GET network on the CPU, else torch.
    dtype : {"auto", "float32", "float64"}, default="auto"
        Precision of the network; "auto" is single with Numba, and the model's own with torch.
    skin : float, default=1.0
        Of the neighbour lists in Å: a larger one means fewer searches and longer lists.
    threads : int or None, default=None
        Threads to use; None leaves it to the engine.
    guard : Guard or {"warn", "raise", "ignore"} or None, default="warn"
        What to do beyond the training data; see `Guard`. None ignores it.
    device : str, default="auto"
        For torch: "cpu", "cuda", ...; "auto" is a GPU if there is one.
    total_charge : float or None, default=None
        In e; None takes ``atoms.info["total_charge"]`` (or ``"charge"``), or else the sum of the
        initial charges.

    Attributes
    ----------
    force_field : ForceField
        The model.
    engine : {"torch", "numba"}
        What computes.

    Raises
    ------
    InvalidInputError
        If the engine does not fit the model or the device, or an option is unknown. On use, if a
        structure holds an element that the model does not know, overlaps, or is no structure.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from scikd.md.calculators import ForceFieldCalculator
    >>> water = molecule("H2O")
    >>> water.calc = ForceFieldCalculator("path/of/a/model")  # doctest: +SKIP
    >>> water.get_potential_energy()  # doctest: +SKIP
    """

    implemented_properties = [*PROPERTIES, "energies"]  # noqa: RUF012 - as ASE declares it

    def __init__(
        self,
        model: ForceField | str | Path = "default",
        *,
        engine: Literal["auto", "torch", "numba"] = "auto",
        dtype: str = "auto",
        skin: float = 1.0,
        threads: int | None = None,
        guard: Given = "warn",
        device: str = "auto",
        total_charge: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        model = model if isinstance(model, ForceField) else load_force_field(model)
        self.engine, place = choose_engine(engine, device, model)
        if dtype not in ("auto", *DTYPES):
            message = f"Expected dtype 'auto', 'float32' or 'float64'; got {dtype!r}."
            raise InvalidInputError(message)
        if dtype == "auto":
            precision = model.dtype if self.engine == "torch" else torch.float32
        else:
            precision = DTYPES[dtype]
        self.force_field = frozen_copy(model, place, precision)
        self.skin, self.threads, self.total_charge = skin, threads, total_charge
        self.guard = _as_guard(guard)
        self._limits = distance_limits(model.metadata.get("training_range"))
        self._charges = charge_limits(model.metadata.get("total_charges"))
        self._made: Engine | None = None

    @property
    def fingerprint(self) -> str:
        """Digest of the model, and of the total charge if it is a parameter."""
        model = fingerprint_of(self.force_field)
        return model if self.total_charge is None else f"{model} {self.total_charge!r}"

    @property
    def neighbor_reference(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Positions and cell in Å that the present neighbour lists were made of."""
        return None if self._made is None else self._made.verlet.reference

    def restore_neighbors(self, atoms: Atoms, positions: np.ndarray, cell: np.ndarray) -> None:
        """Make the neighbour lists that another run had, from what `neighbor_reference` told it.

        What comes next then has the same last digit as there.
        """
        before = atoms.copy()
        before.positions, before.cell = positions, cell
        self.reset()  # type: ignore[no-untyped-call]
        self._made = None
        self.calculate(before)
        self.reset()  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        # Lists and buffers stay: a copy makes its own.
        return {**self.__dict__, "_made": None}

    def _compute(self, atoms: Atoms, changes: Sequence[str]) -> dict[str, Any]:
        finite = np.isfinite(atoms.positions.sum() + atoms.cell[:].sum())
        flat = atoms.pbc.all() and not abs(np.linalg.det(atoms.cell[:])) > 0
        if {"numbers", "pbc"} & set(changes) or flat or not finite:
            check_geometry(from_ase(atoms, check=False))
            self.force_field.check_elements(
                torch.as_tensor(atoms.numbers, device=self.force_field.device)
            )
        engine, charge = self._engine(), self._charge(atoms)
        self.guard.check_charge(self._charges, charge)
        found = engine.compute(atoms.positions, atoms.numbers, atoms.cell[:], atoms.pbc, charge)
        self.guard.check_distances(self._limits, atoms.positions, atoms.numbers, engine.verlet.near)
        return self._results(found, atoms)

    def _results(self, found: Mapping[str, Any], atoms: Atoms) -> dict[str, Any]:
        arrays = {
            name: np.asarray(found[name], dtype=np.float64).reshape(-1, *shape)
            for name, shape in LABELS.items()
            if name in found
        }
        energies = np.asarray(found["energies"], dtype=np.float64)
        results: dict[str, Any] = {
            "energy": float(arrays["energy"][0]),
            "free_energy": float(arrays["energy"][0]),
            "energies": energies + self.force_field.references.numpy()[atoms.numbers],
            "forces": arrays["forces"],
            "charges": arrays["charges"],
        }
        if atoms.pbc.all():
            results["stress"] = arrays["stress"][0]
        if not atoms.pbc.any():
            results["dipole"] = arrays["dipole"][0]
        broken = [name for name, values in results.items() if not np.isfinite(values).all()]
        if broken:
            check_geometry(from_ase(atoms, check=False))  # which may say more
            message = (
                f"The force field gives numbers that are not finite for {', '.join(broken)} of "
                f"{atoms.get_chemical_formula()}. Look for atoms that are too close."
            )
            raise InvalidInputError(message)
        return results

    def _engine(self) -> Engine:
        if self._made is None:
            self._made = make_engine(self.engine, self.force_field, self.skin, self.threads)
        return self._made


def _as_guard(given: Given) -> Guard:
    if isinstance(given, Guard):
        return given
    response = given or "ignore"
    return Guard(response, response, charge=response)


class CalculatorTeacher(Teacher):
    """A calculator of ASE as a teacher of structures.

    It takes a sequence of `ase.Atoms`; what is per atom comes one structure after the other.

    Parameters
    ----------
    calculator : ase.calculators.calculator.BaseCalculator
        The calculator.
    name : str or None, default=None
        Name of the teacher; that of the calculator's class if None.
    properties : sequence of str, default=("energy", "forces")
        Of these, and "stress" (structures that are periodic in three directions only), "charges",
        "dipole" (structures that are not periodic).
    fingerprint : str or None, default=None
        A version of the calculator that the caller vouches for, as a `LabelStore` needs it; None
        takes the calculator's own, if it has one.
    """

    def __init__(
        self,
        calculator: BaseCalculator,
        name: str | None = None,
        *,
        properties: Sequence[str] = ("energy", "forces"),
        fingerprint: str | None = None,
    ) -> None:
        super().__init__(name or type(calculator).__name__)
        known = [p for p in QUANTITIES if p in calculator.implemented_properties]
        if not properties or not set(properties) <= set(known):
            message = f"Expected properties of {self.name!r} among {known}; got {list(properties)}."
            raise InvalidInputError(message)
        self.calculator, self.properties = calculator, tuple(properties)
        self._fingerprint = fingerprint

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The properties, with units."""
        return tuple(QUANTITIES[name] for name in self.properties)

    @property
    def fingerprint(self) -> str:
        """The version that the caller gave, or the calculator's own.

        Raises
        ------
        InvalidInputError
            If there is neither.
        """
        given = self._fingerprint or getattr(self.calculator, "fingerprint", None)
        if given is None:
            message = (
                f"The calculator of teacher {self.name!r} does not say what its results depend on. "
                "Pass fingerprint='<version and settings>'."
            )
            raise InvalidInputError(message)
        return fingerprint_inputs([given, list(self.properties)])

    def _predict(self, X: Any) -> Mapping[str, np.ndarray]:
        rows: dict[str, list[np.ndarray]] = {name: [] for name in self.properties}
        for atoms in X:
            for quantity in self.quantities:
                values = self.calculator.get_property(quantity.name, atoms)
                n_rows = len(atoms) if quantity.per == "atom" else 1
                shape = (n_rows, *(quantity.shape or ()))
                rows[quantity.name].append(np.asarray(values, dtype=np.float64).reshape(shape))
        return {name: np.concatenate(parts) for name, parts in rows.items()}


class ForceFieldTeacher(CalculatorTeacher):
    """A force field as a teacher of structures.

    Parameters
    ----------
    model : ForceField, str or pathlib.Path
        The force field, or the folder of one.
    name : str, default="force-field"
        Name of the teacher.
    properties : sequence of str, default=("energy", "forces", "charges")
        See `CalculatorTeacher`.
    **settings : object
        Of `ForceFieldCalculator`.
    """

    def __init__(
        self,
        model: ForceField | str | Path,
        name: str = "force-field",
        *,
        properties: Sequence[str] = ("energy", "forces", "charges"),
        **settings: Any,
    ) -> None:
        super().__init__(ForceFieldCalculator(model, **settings), name, properties=properties)


class EnsembleCalculator(_ChargedCalculator):
    """Several models as one calculator of ASE, which knows how far they disagree.

    Energy, forces and whatever else all members give are the consensus. ``results`` also holds
    ``energy_std`` (eV), ``forces_std`` (n_atoms, 3) and ``forces_spread`` (n_atoms,), the length of
    the latter's rows (both eV/Å). Standard deviations are those of the members about their mean.

    Parameters
    ----------
    models : TeacherEnsemble, or sequence or mapping of models
        Force fields, folders of them, calculators of ASE, or teachers of structures. An ensemble
        is taken with its own weights, rules and quantities; of other models, the mean is.
    guard : Guard or {"warn", "raise", "ignore"} or None, default="warn"
        What to do where the spread is larger than ``guard.max_spread``; also that of the members.
    **settings : object
        Of `ForceFieldCalculator`, for members that become one.
    """

    implemented_properties = PROPERTIES

    def __init__(
        self,
        models: TeacherEnsemble | Sequence[Any] | Mapping[str, Any],
        *,
        guard: Given = "warn",
        **settings: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.guard = _as_guard(guard)
        self.total_charge = settings.get("total_charge")
        self._given = models if isinstance(models, TeacherEnsemble) else None
        if self._given is not None and "energy" not in {q.name for q in self._given.quantities}:
            message = (
                "Expected an ensemble that predicts 'energy'; it predicts "
                f"{[q.name for q in self._given.quantities]}."
            )
            raise InvalidInputError(message)
        self._made: dict[str | None, TeacherEnsemble] = {}
        named = {} if isinstance(models, TeacherEnsemble) else _named(models)
        if settings and not any(isinstance(m, (ForceField, str, Path)) for m in named.values()):
            message = (
                f"Expected no settings of force fields, as no member is one that is to become a "
                f"calculator; got {', '.join(settings)}. Give them to the members."
            )
            raise InvalidInputError(message)
        self._members = {
            name: _member(model, {**settings, "guard": self.guard}) for name, model in named.items()
        }

    @property
    def fingerprint(self) -> str | None:
        """Digest of the members, their weights and rules; None if one does not know its own."""
        members: list[Any] = list(self._members.values())
        rules = ""
        if self._given is not None:
            members = list(self._given.teachers)
            about = {name: repr(rule) for name, rule in self._given.rules.items()}
            rules = fingerprint_inputs([self._given.weights, about])
        try:
            digests = [member.fingerprint for member in members]
        except (AttributeError, InvalidInputError):
            return None
        return fingerprint_inputs([digests, rules])

    def ensemble(self, atoms: Atoms) -> TeacherEnsemble:
        """Return the ensemble that answers for a structure: with stress, or with a dipole."""
        if self._given is not None:
            return self._given
        extra = "stress" if atoms.pbc.all() else None if atoms.pbc.any() else "dipole"
        if extra not in self._made:
            wanted = ("energy", "forces", "charges", extra)
            self._made[extra] = TeacherEnsemble(
                {name: _as_teacher(member, name, wanted) for name, member in self._members.items()},
                progress=False,
            )
        return self._made[extra]

    def _compute(self, atoms: Atoms, changes: Sequence[str]) -> dict[str, Any]:
        """Ask every member."""
        found = self.ensemble(atoms).consensus([atoms])
        results: dict[str, Any] = {}
        for name, mean in found.mean.items():
            if name in self.implemented_properties:
                results[name] = mean if QUANTITIES[name].per == "atom" else mean[0]
        results["energy"] = results["free_energy"] = float(results["energy"])
        results["energy_std"] = float(found.std["energy"][0])
        if "forces" in results:
            results["forces_std"] = found.std["forces"]
            results["forces_spread"] = np.linalg.norm(found.std["forces"], axis=1)
            self.guard.check_spread(results["forces_spread"])
        return results


def _named(models: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if isinstance(models, (str, Path)) or not isinstance(models, Iterable) or not models:
        message = f"Expected a TeacherEnsemble, or a sequence or mapping of models; got {models!r}."
        raise InvalidInputError(message)
    if isinstance(models, Mapping):
        return dict(models)
    names = [m.name if isinstance(m, Teacher) else f"model-{k}" for k, m in enumerate(models)]
    if len(set(names)) < len(names):
        message = f"Expected teachers with unique names; got {names}."
        raise InvalidInputError(message)
    return dict(zip(names, models, strict=True))


def _member(model: Any, settings: dict[str, Any]) -> BaseCalculator | Teacher:
    if isinstance(model, (ForceField, str, Path)):
        return ForceFieldCalculator(model, **settings)
    if isinstance(model, (BaseCalculator, Teacher)):
        return model
    message = (
        "Expected force fields, paths of them, calculators of ASE or teachers as members; got "
        f"{type(model).__name__}."
    )
    raise InvalidInputError(message)


def _as_teacher(
    member: BaseCalculator | Teacher, name: str, wanted: Sequence[str | None]
) -> Teacher:
    if isinstance(member, Teacher):
        return member
    given = [p for p in wanted if p is not None and p in member.implemented_properties]
    return CalculatorTeacher(member, name, properties=given)
