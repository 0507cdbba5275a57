"""What a teacher ensemble agrees on, and how far its members disagree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scikd.persistence import load_bundle, save_bundle

__all__ = ["Consensus"]


@dataclass(frozen=True, eq=False)
class Consensus:
    """The agreement of several teachers, by quantity.

    Attributes
    ----------
    names : tuple of str
        The teachers, in the order of `weights` and of the first axis of `members`.
    weights : ndarray of shape (n_teachers,)
        Their weights; they sum to one.
    mean : mapping of str to ndarray of shape (n_samples, ...)
        The consensus of every quantity, in the unit of the quantity. Rows that no teacher covers
        are NaN.
    std : mapping of str to ndarray of shape (n_samples, ...)
        Weighted standard deviation of the members about their weighted mean, in the same unit.
    disagreement : mapping of str to mapping of str to ndarray of shape (n_samples,)
        Measures of disagreement of every quantity: ``"variance"`` (mean over the entries of a
        sample of the squared std), and for probabilities ``"mutual_information"`` (nats),
        ``"entropy"`` (of the mean, nats), ``"vote_margin"`` and ``"top2_gap"`` (both in [0, 1],
        small where the teachers are torn).
    members : mapping of str to ndarray of shape (n_teachers, n_samples, ...)
        The members' own predictions; empty unless they were asked for.
    covered : ndarray of shape (n_samples,) or None
        True where at least one teacher predicted; None means everywhere.
    units : mapping of str to str
        Unit of every quantity.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    mean: Mapping[str, np.ndarray]
    std: Mapping[str, np.ndarray]
    disagreement: Mapping[str, Mapping[str, np.ndarray]]
    members: Mapping[str, np.ndarray] = field(default_factory=dict)
    covered: np.ndarray | None = None
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the quantities."""
        return tuple(self.mean)

    def save(self, path: str | Path) -> Path:
        """Write the consensus as a bundle of arrays beside a manifest.

        Parameters
        ----------
        path : str or pathlib.Path
            Folder to write; an older consensus there is replaced as a whole.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        StorageError
            If it cannot be written; nothing is left behind then.
        """
        arrays = {"weights": self.weights}
        if self.covered is not None:
            arrays["covered"] = self.covered
        for name in self.quantities:
            arrays[f"mean/{name}"] = self.mean[name]
            arrays[f"std/{name}"] = self.std[name]
            for measure, values in self.disagreement[name].items():
                arrays[f"disagreement/{name}/{measure}"] = values
            if name in self.members:
                arrays[f"members/{name}"] = self.members[name]
        parameters = {"names": list(self.names), "quantities": list(self.quantities)}
        return save_bundle(
            path, kind="Consensus", parameters=parameters, arrays=arrays, units=dict(self.units)
        )

    @classmethod
    def load(cls, path: str | Path) -> Consensus:
        """Read what `save` wrote.

        Raises
        ------
        StorageError
            If the folder is missing, cut short, edited, foreign or from a newer scikd.
        """
        bundle = load_bundle(path, kind="Consensus")
        arrays = bundle.arrays
        quantities = bundle.parameters["quantities"]
        disagreement: dict[str, dict[str, np.ndarray]] = {name: {} for name in quantities}
        for key, values in arrays.items():
            if key.startswith("disagreement/"):
                _, name, measure = key.split("/")
                disagreement[name][measure] = values
        members = {name: arrays.get(f"members/{name}") for name in quantities}
        return cls(
            names=tuple(bundle.parameters["names"]),
            weights=arrays["weights"],
            mean={name: arrays[f"mean/{name}"] for name in quantities},
            std={name: arrays[f"std/{name}"] for name in quantities},
            disagreement=disagreement,
            members={k: v for k, v in members.items() if v is not None},
            covered=arrays.get("covered"),
            units=dict(bundle.manifest.get("units", {})),
        )
