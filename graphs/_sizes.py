"""Numbers of bytes as they are written."""

from __future__ import annotations

import re
from decimal import Decimal

from scikd.exceptions import InvalidInputError

__all__ = ["parse_bytes"]

UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
UNITS |= {"KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}


def parse_bytes(size: int | str) -> int:
    """Return a number of bytes from a number or from text such as "20kB".

    Parameters
    ----------
    size : int or str
        kB, MB and GB are powers of 1000, KiB, MiB and GiB of 1024; small and large letters are the
        same.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    InvalidInputError
        If it is no size of a byte or more.

    Examples
    --------
    >>> parse_bytes("20kB")
    20000
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", str(size))
    unit = 0 if found is None else UNITS.get(found[2].upper(), 0)
    n_bytes = 0 if found is None else int(Decimal(found[1]) * unit)
    if n_bytes < 1:
        message = (
            "Expected a size such as 20000 or '20kB' (B, kB, MB, GB, KiB, MiB, GiB), of a byte or "
            f"more; got {size!r}."
        )
        raise InvalidInputError(message)
    return n_bytes
