"""Places for bundles: checked before the long work that makes one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scikd._atomic import new_folder
from scikd.exceptions import InvalidInputError
from scikd.persistence import MANIFEST

__all__ = ["room_for_bundle"]


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
        If the folder around it cannot be made.
    """
    if output.is_dir() and any(output.iterdir()):
        try:
            found = json.loads((output / MANIFEST).read_bytes())["kind"]
        except (OSError, ValueError, TypeError, KeyError):
            found = "other content"
        if found != kind:
            message = f"Expected {output} to be new; it is a folder with {found}. Choose another."
            raise InvalidInputError(message)
        if not overwrite:
            message = (
                f"There {what} in {output} already. Choose another folder, or replace what is "
                "there: --overwrite."
            )
            raise InvalidInputError(message)
    elif output.is_file():
        raise InvalidInputError(f"Expected a folder to make; {output} is a file. Choose another.")
    with new_folder(output.parent):
        yield
