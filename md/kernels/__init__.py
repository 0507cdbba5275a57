"""Hot loops of molecular dynamics, compiled by Numba on first use.

This package imports nothing; import the module that is needed:

* :mod:`scikd.md.kernels.network`: a GET network, forward and backward, without PyTorch;
* :mod:`scikd.md.kernels.filters`: its filters as tables of one distance;
* :mod:`scikd.md.kernels.pairs`: Coulomb, dispersion and repulsion of all pairs in one pass;
* :mod:`scikd.md.kernels.pme`: the reciprocal sum of electrostatics on a mesh.

Every result is the same to the bit for any number of threads. Kernels release the GIL, and threads
are Python's: Numba's default threading layer ends the process when two Python threads enter it at
once.
"""

from __future__ import annotations

__all__: list[str] = []
