"""Hot loops of the core, compiled by Numba on first use.

This package imports nothing, so that ``import scikd`` never pays for Numba; import the module
that is needed, as late as possible:

* :mod:`scikd.kernels.moments`: mean, spread, median, trimmed mean and class statistics of many
  teachers in one pass over the data;
* :mod:`scikd.kernels.gram`: Gram and correlation matrices of teachers with missing predictions;
* :mod:`scikd.kernels.ranks`: average ranks within groups.

Every kernel has a naive twin in ``tests/reference/`` that it is tested against. Kernels release
the GIL and run on one thread: Numba's default threading layer ends the process when two Python
threads enter it at once, which any joblib threading backend would do. Fan out by joblib instead.
"""

from __future__ import annotations

__all__: list[str] = []
