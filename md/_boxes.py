"""Liquids of a work of several runs: whether all can be run, and the boxes that some come with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ase import Atoms

from scikd.exceptions import InvalidInputError, ScikdError
from scikd.fingerprints import fingerprint_inputs

from ._start import file_or_mixture, load_or_pack
from .molecules import Mixture

__all__ = ["check_liquids", "fingerprints_of_boxes", "shared_folders"]


def check_liquids(
    folders: Sequence[tuple[str, str]], given: Collection[str], n_atoms: int, work: str
) -> None:
    """Refuse liquids that cannot be run, all at once.

    Parameters
    ----------
    folders : sequence of (str, str)
        Each liquid, and the folder of its runs.
    given : collection of str
        Liquids whose box is given.
    n_atoms : int
        About how many atoms to pack of the others.
    work : str
        What is done with them, for the error.

    Raises
    ------
    InvalidInputError
        If one cannot be packed or has no file, or two would share a folder.
    """
    problems = shared_folders(folders)
    for liquid in dict.fromkeys(liquid for liquid, _ in folders if liquid not in given):
        try:
            found = file_or_mixture(liquid)
            if isinstance(found, Mixture):
                found.counts(n_atoms=n_atoms)
        except ScikdError as error:
            problems.append(f"{liquid}: {error}")
    if problems:
        raise InvalidInputError(f"Cannot {work} these liquids. {' '.join(problems)}")


def shared_folders(folders: Sequence[tuple[str, str]]) -> list[str]:
    """Say which liquids would share a folder, of liquids and their folders."""
    first: dict[str, str] = {}
    problems = []
    for liquid, folder in folders:
        place = folder.lower()  # some disks do not tell large letters from small ones
        if place in first:
            problems.append(f"{liquid!r} and {first[place]!r} would share a folder: rename a file.")
        first.setdefault(place, liquid)
    return problems


def fingerprints_of_boxes(liquids: Sequence[str], given: Mapping[str, Atoms]) -> dict[str, str]:
    """Return a digest of each box that is given, or that a file holds; none of what is packed.

    Raises
    ------
    StorageError
        If a file cannot be read.
    """
    boxes = dict(given)
    for liquid in liquids:
        if liquid not in given and isinstance(file_or_mixture(liquid), Path):
            boxes[liquid], _ = load_or_pack(liquid, 0, None, 0, loosely=False)
    return {
        liquid: fingerprint_inputs([box.numbers, box.positions, box.cell.array])
        for liquid, box in boxes.items()
        if liquid in liquids
    }
