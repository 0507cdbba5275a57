"""GET on the processor: site energies, charges, forces and virial in fused, compiled passes.

No array has a row for each edge but the geometry of the neighbour list: every message is used where
it is made. In the first pass each layer gathers messages block by block of atoms and updates the
atoms of the block; the second, hand-written, takes derivatives back the same way. Atoms gather what
they send as well as what they receive, so that threads share nothing and the result is the same to
the bit for any number of them.

Threads are Python's own, around kernels that release the GIL: Numba's threading layers are not used
(see `scikd.kernels`).
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import joblib
import numpy as np

from scikd.exceptions import InvalidInputError

from . import _edges, _nodes
from ._edges import Edges
from ._lanes import Lanes
from ._nodes import BLOCK, State
from ._weights import Weights
from .filters import FilterTable

__all__ = ["Network", "Outputs"]

logger = logging.getLogger(__name__)

_TOLERANCES = {"float32": 1e-5, "float64": 1e-9}  # of the filter's table
_PREPARED: set[tuple[str, int, int, int]] = set()  # kinds of network that were run already


class Outputs(NamedTuple):
    """What the network says of N atoms."""

    energies: np.ndarray
    """Site energies, shape (N,), float64, in eV."""
    charges: np.ndarray
    """Raw charges, shape (N,), float64, in e."""


class Network:
    """A GET network, compiled.

    Parameters
    ----------
    weights : mapping of str to array_like
        State dict of `scikd.md.get.GET`.
    n_heads : int
        Attention heads.
    cutoff : float
        In Å.
    envelope : {"polynomial", "cosine"}
        See `scikd.md.get.RadialBasis`.
    max_charge : float
        Bound of the raw charges in e.
    dtype : {"float32", "float64"}
        Precision of the network; sums over atoms are float64 always. In float32 the filter is read
        from a table that is off by at most 1e-5 of its largest value and slope, in float64 by 1e-9.
    threads : int or None
        Threads to use; None takes the processors there are. No result depends on it.

    Attributes
    ----------
    weights : Weights
        In the order of the kernels.
    table : FilterTable
        The filter.
    pool : ThreadPoolExecutor or None
        The threads, if there is more than one.

    Notes
    -----
    Not to be used by two threads at once: buffers belong to the object.
    """

    def __init__(
        self,
        weights: Mapping[str, Any],
        *,
        n_heads: int,
        cutoff: float,
        envelope: str,
        max_charge: float,
        dtype: Any = "float32",
        threads: int | None = None,
    ) -> None:
        name = np.dtype(dtype).name
        if name not in _TOLERANCES:
            message = f"Expected dtype 'float32' or 'float64'; got {dtype!r}."
            raise InvalidInputError(message)
        self.threads = joblib.cpu_count() if threads is None else int(threads)
        if self.threads < 1:
            message = f"Expected threads to be at least 1, or None for all; got {threads!r}."
            raise InvalidInputError(message)
        self.cutoff, self.max_charge, self.dtype = float(cutoff), float(max_charge), np.dtype(name)
        self.weights = Weights(weights, n_heads, name)
        self.table = FilterTable.build(weights, self.cutoff, envelope, _TOLERANCES[name])
        self._cosine = envelope == "cosine"
        self._coefficients = self.weights.permuted(self.table.coefficients)
        dim, hid = self.weights.dim, self.weights.energy_head.first.shape[1]
        self._wide, self._narrow, self._hidden = (Lanes(name, n) for n in (dim, n_heads, hid))
        self._zero = np.zeros((1, dim), self.dtype)
        self.pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None
        self._n_atoms = -1
        self._kind = (name, dim, n_heads, hid)

    # -- pairs and buffers -----------------------------------------------------------------------

    def set_pairs(self, i: np.ndarray, j: np.ndarray, order: np.ndarray) -> None:
        """Take a new half list of pairs; those beyond the cutoff are left out later.

        Parameters
        ----------
        i, j : numpy.ndarray of shape (P,)
            The atoms of each pair, every pair once.
        order : numpy.ndarray of shape (N,)
            The atoms in the order in which to store and compute them. It is fastest when
            neighbours stand close together; results are given for the atoms as they were.
        """
        n_edges, n_atoms = 2 * len(i), len(order)
        self._order = np.asarray(order, dtype=np.int64)
        place = np.empty(n_atoms, np.int64)
        place[self._order] = np.arange(n_atoms)
        first, self._links = _edges.link_pairs(place[i], place[j], n_atoms)
        self._slots = np.empty((n_edges, 2), np.int32)
        self._edges = Edges(
            first=first,
            end=first[:-1].copy(),
            sender=np.empty(n_edges, np.int32),
            interval=np.empty(n_edges, np.int32),
            reverse=np.empty(n_edges, np.int32),
            geometry=np.empty((n_edges, _edges.N_COLUMNS), self.dtype),
            gradient=np.empty((n_edges, 4), self.dtype),
        )
        if n_atoms != self._n_atoms:
            self._allocate(n_atoms)

    def _allocate(self, n_atoms: int) -> None:
        """Make the arrays that have a row for each atom."""
        self._n_atoms = n_atoms
        dim, hidden = self.weights.dim, self.weights.energy_head
        own_row = np.arange(n_atoms, dtype=np.int32)

        def empty(*shape: int) -> np.ndarray:
            return np.empty(shape, self.dtype)

        self._states = [
            State(
                h=empty(n_atoms, dim),
                rows=own_row.copy() if k == 0 else own_row,
                qkv=self.weights.first_qkv if k == 0 else empty(n_atoms, 3 * dim),
                o=empty(n_atoms, layer.out.shape[1]),
                p=empty(3 * n_atoms, layer.vec.shape[1]),
                gs=empty(n_atoms, dim),
                gm=empty(3 * n_atoms, dim),
            )
            for k, layer in enumerate(self.weights.layers)
        ]
        self._final, self._gh = empty(n_atoms, dim), empty(n_atoms, dim)
        self._vectors = empty(3 * n_atoms, dim)
        self._z = empty(2, len(hidden.bias), n_atoms, hidden.first.shape[1])
        self._seeds, self._said = empty(2, n_atoms), np.empty((2, n_atoms))

    def _run(self, kernel: Callable[..., None], *args: Any) -> None:
        """Run a kernel over all atoms, in as many pieces as there are threads."""
        n_blocks = -(-self._n_atoms // BLOCK)
        pieces = min(self.threads, n_blocks)
        ends = [min(n_blocks * k // pieces * BLOCK, self._n_atoms) for k in range(pieces + 1)]
        if self.pool is None or pieces == 1:
            kernel(0, self._n_atoms, *args)
            return
        spans = itertools.pairwise(ends[1:])
        waiting = [self.pool.submit(kernel, a, b, *args) for a, b in spans]
        kernel(ends[0], ends[1], *args)  # this thread works too
        for future in waiting:
            future.result()

    # -- the two passes --------------------------------------------------------------------------

    def forward(self, positions: np.ndarray, numbers: np.ndarray, offsets: np.ndarray) -> Outputs:
        """Return site energies and raw charges.

        Parameters
        ----------
        positions : numpy.ndarray of shape (N, 3)
            In Å, float64.
        numbers : numpy.ndarray of shape (N,)
            Atomic numbers.
        offsets : numpy.ndarray of shape (P, 3)
            Lattice vectors in Å, float64: the pairs of `set_pairs` are from ``positions[i]`` to
            ``positions[j] + offsets``.
        """
        with self._announced():
            self._forward(positions[self._order], numbers[self._order], offsets)
        return Outputs(self._unsorted(self._said[0]), self._unsorted(self._charges))

    def _unsorted(self, values: np.ndarray) -> np.ndarray:
        """Return what belongs to atoms as they are stored for atoms as they were given."""
        result = np.empty_like(values)
        result[self._order] = values
        return result

    @contextmanager
    def _announced(self) -> Iterator[None]:
        """Say when kernels are about to be compiled, or read from the cache."""
        if self._kind in _PREPARED:
            yield
            return
        name, dim, n_heads, _ = self._kind
        logger.info(
            "Preparing compiled GET for %s, %d channels, %d heads: some seconds the first time, "
            "from a cache later.",
            *(name, dim, n_heads),
        )
        started = time.perf_counter()
        yield
        _PREPARED.add(self._kind)
        logger.info("Ready after %.1f s.", time.perf_counter() - started)

    def _forward(self, positions: np.ndarray, numbers: np.ndarray, offsets: np.ndarray) -> None:
        per_length = self.table.n_intervals
        measure = (per_length, self.cutoff, self._cosine, self._slots)
        self._run(_edges.measure_edges, positions, self._links, offsets, self._edges, *measure)
        self._run(_edges.finish_edges, self._edges, self._links, self._slots)
        states, layers = self._states, self.weights.layers
        states[0].rows[:] = numbers
        np.take(self.weights.embedding, numbers, axis=0, out=states[0].h, mode="clip")
        constant = (self._wide, self._narrow, self._edges, self._coefficients)
        for k, (now, layer) in enumerate(zip(states, layers, strict=True)):
            last = k == len(layers) - 1
            after, qkv = (self._final, None) if last else (states[k + 1].h, states[k + 1].qkv)
            following = None if last else layers[k + 1]
            receive = None if last else True
            self._run(
                _nodes.forward_layer,
                *(*constant, now, layer, receive, self._vectors, after, following, qkv),
            )
        heads = (self.weights.energy_head, self.weights.charge_head)
        self._run(_nodes.forward_heads, self._hidden, heads, self._final, self._z, self._said)
        bound = self.max_charge
        self._charges = bound * np.tanh(
            (self._said[1] + self.weights.charge_prior[numbers]) / bound
        )

    def backward(self, seeds: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return forces and virial of what `forward` computed last.

        Parameters
        ----------
        seeds : numpy.ndarray of shape (N,) or None
            Derivatives in eV/e, by the raw charges, of the energy that is to be added to the site
            energies; None is zero, for the forces of the site energies alone.

        Returns
        -------
        forces : numpy.ndarray of shape (N, 3)
            In eV/Å.
        virial : numpy.ndarray of shape (3, 3)
            Minus the derivative of the energy by a strain, in eV.
        """
        self._seeds[0] = 1.0
        self._seeds[1] = 0.0
        if seeds is not None:
            self._seeds[1] = seeds[self._order] * (1.0 - (self._charges / self.max_charge) ** 2)
        states, layers = self._states, self.weights.layers
        per_length = self.dtype.type(self.table.n_intervals / self.cutoff)
        heads = (self.weights.energy_head, self.weights.charge_head)
        constant = (self._wide, self._narrow, self._edges, self._coefficients, per_length)
        self._run(
            _nodes.backward_heads,
            *(self._wide, self._hidden, heads, self._z, self._seeds, self._zero, self._gh),
            *(states[-1], layers[-1], states[-2].gm),
        )
        for k in range(len(layers) - 1, 0, -1):
            gm = None if k == len(layers) - 1 else states[k].gm
            before = states[max(k - 2, 0)].gm
            self._run(
                _nodes.backward_layer,
                *(*constant, gm, states[k], layers[k], self._gh),
                *(states[k - 1], layers[k - 1], before),
            )
        self._run(_nodes.backward_first, *constant, states[0])
        forces = np.zeros((self._n_atoms, 3))
        parts = np.zeros((-(-self._n_atoms // BLOCK), 9))
        self._run(_edges.gather_forces, self._edges, forces, parts, BLOCK)
        return self._unsorted(forces), parts.sum(axis=0).reshape(3, 3)
