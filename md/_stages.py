"""Work of several stages in one folder, which goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from scikd._atomic import atomic_write_bytes, make_folder, storage_error
from scikd.exceptions import CorruptFileError, InvalidInputError

__all__ = ["claim_folder", "read_json"]

OPTIONS = "options.json"
SHORT = 40  # characters of a value that is told


def claim_folder(
    folder: Path, options: Mapping[str, Any], what: str, *, free: Collection[str] = ()
) -> None:
    """Note in a folder what its content is made with, or see that it was made with that.

    Parameters
    ----------
    folder : pathlib.Path
        Made if it is not there.
    options : mapping
        JSON values.
    what : str
        What the folder holds, for the error.
    free : collection of str, default=()
        Names of options that may differ. They may have been noted before they were free.

    Raises
    ------
    InvalidInputError
        If it holds something that was made with other options; the message names them.
    StorageError
        If it cannot be read or written.
    CorruptFileError
        If what was noted is no JSON.
    """
    raw = json.dumps(options, indent=2).encode()
    make_folder(folder)
    path = folder / OPTIONS
    # Where nothing was made, as by a command that was refused, there is nothing to protect.
    if not path.exists() or all(entry == path for entry in folder.iterdir()):
        atomic_write_bytes(path, raw)
        return
    noted = {n: v for n, v in read_json(path).items() if n in options or n not in free}
    if differing := _differing(noted, json.loads(raw)):
        message = (
            f"The folder {folder} holds {what} of other options than these: "
            f"{'; '.join(differing)}. Use another folder."
        )
        raise InvalidInputError(message)


def _differing(noted: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Say which options are others than those that were noted, with their values if short."""
    found = []
    for name in dict.fromkeys((*noted, *given)):
        there, here = noted.get(name), given.get(name)
        if isinstance(there or {}, dict) and isinstance(here or {}, dict) and (there or here):
            inner = _differing(there or {}, here or {})
            found += [f"{name}.{one}" for one in inner]
        elif there != here:
            values = [json.dumps(value, ensure_ascii=False) for value in (there, here)]
            told = f"{values[0]} there, {values[1]} here"
            found.append(f"{name} is {told if max(map(len, values)) <= SHORT else 'another'}")
    return found


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
