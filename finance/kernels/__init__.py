"""Hot loops over panels, compiled by Numba on first use.

This package imports nothing; import the module that is needed. Every kernel has a naive twin in
``tests/reference/`` that it is tested against. Kernels release the GIL and run on one thread.
"""

from __future__ import annotations

__all__: list[str] = []
