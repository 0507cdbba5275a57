"""Products of small matrices on the calling thread.

OpenBLAS spreads what is larger than 64 x 64 x 64 over threads that wait for each other by
spinning; on a machine with other work to do, each such call was seen to take a hundred times as
long. The matrices of stacking are that small, or come in blocks that are.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


@cache
def _controller() -> ThreadpoolController:
    """Find the loaded libraries, once: that takes longer than many a product."""
    import scipy.linalg  # noqa: F401, PLC0415 - brings a BLAS of its own

    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """Keep BLAS to the calling thread, within a ``with`` or in a decorated function."""
    limited: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limited
