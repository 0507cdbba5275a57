"""Places for bundles and files: checked before the long work that makes one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scikd._atomic import new_folder, room_for, try_place
from scikd.exceptions import InvalidInputError
from scikd.persistence import MANIFEST

__all__ = ["kind_of", "room_for_bundle", "room_for_file"]


def kind_of(folder: str | Path) -> str | None:
    """Return the kind of the bundle in a folder, or None if there is none that can be read."""
    try:
        found: str = json.loads((Path(folder) / MANIFEST).read_bytes())["kind"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found


@contextmanager
def room_for_bundle(output: Path, kind: str, what: str, *, overwrite: bool) -> Iterator[None]:
    """See that a bundle of a kind can be saved there, before the work that makes it.

    Parameters
    ----------
    output : pathlib.Path
        The folder to make.
    kind : str
        Kind of the bundle.
    what : str
        What would be there already, after "There": "is a classifier".
    overwrite : bool
        Whether one of the same kind may be replaced.

    Raises
    ------
    InvalidInputError
        If something is there that may not be replaced.
    StorageError
        If the folder around it cannot be made or written to.
    """
    if output.is_dir() and any(output.iterdir()):
        found = kind_of(output) or "other content"
        if found != kind:
            message = f"Expected {output} to be new; it is a folder with {found}. Choose another."
            raise InvalidInputError(message)
        if not overwrite:
            message = (
                f"There {what} in {output} already. Choose another folder, or replace what is "
                "there: overwrite=True (in a command --overwrite)."
            )
            raise InvalidInputError(message)
    elif output.is_file():
        raise InvalidInputError(f"Expected a folder to make; {output} is a file. Choose another.")
    with new_folder(output.parent):
        try_place(output)
        yield


@contextmanager
def room_for_file(
    output: Path, inputs: Iterable[str | Path] = (), *, overwrite: bool
) -> Iterator[None]:
    """See that a file can be written there, before the work that makes it.

    Parameters
    ----------
    output : pathlib.Path
        The file to make.
    inputs : iterable of str or pathlib.Path
        Files and folders that it is made from: they are never written to.
    overwrite : bool
        Whether a file that is there may be replaced.

    Raises
    ------
    InvalidInputError
        If a file is there that may not be replaced, or it is, or lies in, what is read.
    StorageError
        If its folder cannot be made or written to, or it is itself a folder.
    """
    for source in inputs:
        if any(_same(place, source) for place in (output, *output.resolve().parents)):
            message = (
                f"Expected an output apart from what is read; {output} would change {source}. "
                "Choose another."
            )
            raise InvalidInputError(message)
    taken = os.path.lexists(output) and not output.is_dir()  # for folders there is another message
    if taken and not overwrite:
        message = (
            f"There is a file {output} already. Choose another, or replace what is there: "
            "--overwrite."
        )
        raise InvalidInputError(message)
    with room_for(output):
        yield


def _same(place: Path, source: str | Path) -> bool:
    try:
        return place.samefile(source)
    except OSError:  # one of them is not there
        return False
