"""Hot loops over panels, compiled by Numba on first use.

This package imports nothing; import the module that is needed:

* :mod:`scikd.finance.kernels.selection`: the best or worst assets of every row of scores;
* :mod:`scikd.finance.kernels.trailing`: statistics of the last days;
* :mod:`scikd.finance.kernels.windows`: windows of features;
* :mod:`scikd.finance.kernels.weighting`: their weights;
* :mod:`scikd.finance.kernels.backtest`: the book that comes to these weights, drifts and pays.

Every kernel has a naive twin in ``tests/reference/`` that it is tested against. Kernels release
the GIL and run on one thread.
"""

from __future__ import annotations

__all__: list[str] = []
