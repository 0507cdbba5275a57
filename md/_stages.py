"""Work of several stages in one folder, which goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scikd._atomic import atomic_write_bytes, make_folder, storage_error
from scikd.exceptions import CorruptFileError, InvalidInputError

__all__ = ["claim_folder", "read_json"]

OPTIONS = "options.json"


def claim_folder(folder: Path, options: Mapping[str, Any], what: str) -> None:
    """Note in a folder what its content is made with, or see that it was made with that.

    Parameters
    ----------
    folder : pathlib.Path
        Made if it is not there.
    options : mapping
        JSON values.
    what : str
        What the folder holds, for the error.

    Raises
    ------
    InvalidInputError
        If it holds something that was made with other options.
    StorageError
        If it cannot be read or written.
    """
    raw = json.dumps(options, indent=2).encode()
    make_folder(folder)
    path = folder / OPTIONS
    try:
        noted = path.read_bytes() if path.exists() else None
    except OSError as error:
        raise storage_error(error, "read", path) from error
    # Where nothing was made, as by a command that was refused, there is nothing to protect.
    if noted is None or all(entry == path for entry in folder.iterdir()):
        atomic_write_bytes(path, raw)
    elif noted != raw:
        message = (
            f"The folder {folder} holds {what} of other options than these; see its {OPTIONS}. "
            "Use another folder."
        )
        raise InvalidInputError(message)


def read_json(path: Path) -> dict[str, Any]:
    """Return what a stage has noted.

    Raises
    ------
    StorageError
        If it cannot be read.
    CorruptFileError
        If it is no JSON.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except OSError as error:
        raise storage_error(error, "read", path) from error
    except ValueError as error:
        message = f"{path} is cut short or garbled: remove it, and what it tells is done again."
        raise CorruptFileError(message) from error
    return found
