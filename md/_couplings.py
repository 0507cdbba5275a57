"""Tensor products of spherical tensors with e3nn's coefficients, channel by channel.

A spherical tensor of degrees 0 to L has ``(L + 1)²`` components, those of degree l from ``l²`` on,
each with its channels: an array (N, (L + 1)², C). A tensor of degree l changes sign under inversion
if l is odd, so a path (l1, l2, l3) exists where ``l1 + l2 + l3`` is even. Coefficients are scaled
so that components of unit variance make components of unit variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scikd._extras import require

from ._multilinear import derivative
from .kernels import couplings as kernels

__all__ = ["Couplings", "atom_products", "components", "pair_messages"]

# Operands of a product, in the order of `scikd.md.kernels.couplings`.
WEIGHTS, INPUT, HARMONICS, OUTPUT = range(4)
PAIR_KERNELS: tuple[Callable[..., None], ...] = (
    kernels.pairs_by_weights,
    kernels.pairs_by_input,
    kernels.pairs_by_strengths,
    kernels.pairs_by_output,
)
ATOM_KERNEL: Callable[..., None] = kernels.atoms_by_any


def components(degree: int) -> slice:
    """Return where the components of a degree are."""
    return slice(degree**2, (degree + 1) ** 2)


@cache
def coefficients(first: int, second: int, third: int) -> np.ndarray:
    """Return e3nn's 3j symbols times the root of ``2 l3 + 1``, shape (2 l + 1) of each degree."""
    o3 = require("e3nn.o3", extra="md", feature="An equivariant network")
    symbols = o3.wigner_3j(first, second, third, dtype=torch.float64).numpy()
    return np.asarray(math.sqrt(2 * third + 1) * symbols)


class Couplings:
    """The paths of a tensor product, and its coefficients that are not zero.

    Parameters
    ----------
    l_first, l_second, l_third : int
        Highest degrees of the two factors and of the result.
    apart : bool, default=False
        Whether paths to one degree stay apart. Then each of its components is there once for each
        of them, one after the other, so that a linear map can mix paths and channels.
    """

    def __init__(self, l_first: int, l_second: int, l_third: int, *, apart: bool = False) -> None:
        self.paths = [
            (a, b, c)
            for c in range(l_third + 1)
            for a in range(l_first + 1)
            for b in range(l_second + 1)
            if abs(a - b) <= c <= a + b and (a + b + c) % 2 == 0
        ]
        self.counts = [sum(c == l3 for _, _, l3 in self.paths) for c in range(l_third + 1)]
        """How many paths lead to each degree."""
        self.outputs: list[slice] = []
        """Where the result of each path is."""
        start, before = 0, 0
        for c, count in enumerate(self.counts):
            width = count if apart else 1
            stop = start + (2 * c + 1) * width
            self.outputs += [slice(start + n * apart, stop, width) for n in range(count)]
            start, before = stop, before + count
        self.size = start
        """Components of the result."""
        self._list_coefficients(l_second)

    def _list_coefficients(self, l_second: int) -> None:
        rows, values = [], []
        for p, (a, b, c) in enumerate(self.paths):
            block = coefficients(a, b, c)
            to = np.arange(self.size)[self.outputs[p]]
            for i, j, k in np.argwhere(np.abs(block) > 1e-12):
                rows.append((p, a * a + i, b * b + j, to[k]))
                values.append(block[i, j, k])
        self.rows = np.array(rows, dtype=np.int64)  # path, and component of each of the three
        self.values = np.array(values)
        triples = self.rows[:, [INPUT, OUTPUT, WEIGHTS]]
        self.links, link = np.unique(triples, axis=0, return_inverse=True)
        self.mixing = np.zeros(((l_second + 1) ** 2, len(self.links)))
        """From harmonics to the strengths of links."""
        self.mixing[self.rows[:, HARMONICS], link.reshape(-1)] = self.values
        self.signs = (-1.0) ** np.array([self.paths[p][1] for p in self.links[:, 2]])

    def __deepcopy__(self, memo: Any) -> Couplings:
        return self  # nothing in it changes


@dataclass(frozen=True)
class _Messages:
    """The form over pairs: weights (P, paths, C), input (N, n, C), harmonics (P, m), output."""

    couplings: Couplings
    index: Tensor

    def compute(self, which: int, shape: torch.Size, others: Sequence[Tensor]) -> Tensor:
        if others[0].device.type != "cpu":
            return self._einsum(which, shape, others)
        table, dtype = self.couplings, others[0].dtype
        mixing = torch.from_numpy(table.mixing).to(dtype)
        arrays = [x.detach().contiguous() for x in others]
        if which == HARMONICS:
            shape = torch.Size((len(arrays[0]), len(table.links)))
        else:
            at = HARMONICS - (which < HARMONICS)
            arrays[at] = arrays[at] @ mixing
        out = torch.zeros(shape, dtype=dtype)
        PAIR_KERNELS[which](
            self.index.contiguous().numpy(),
            table.links,
            table.signs.astype(out.numpy().dtype),
            *(array.numpy() for array in arrays),
            out.numpy(),
        )
        return out @ mixing.T if which == HARMONICS else out

    def _einsum(self, which: int, shape: torch.Size, others: Sequence[Tensor]) -> Tensor:
        """Do the same with arrays of both directions, pairs, components and channels."""
        receivers, senders = torch.cat([self.index, self.index.flip(0)], dim=1)
        n_pairs = self.index.shape[1]
        rows = {INPUT: senders, OUTPUT: receivers}
        degrees = torch.arange(shape[1] if which == HARMONICS else 0)
        given: dict[int, Tensor] = {}
        for k, x in zip((k for k in range(4) if k != which), others, strict=True):
            given[k] = x[rows[k]] if k in rows else torch.cat([x, x])
            degrees = torch.arange(x.shape[1]) if k == HARMONICS else degrees
        sign = (-1.0) ** degrees.double().sqrt().floor()
        turned = torch.stack([torch.ones_like(sign), sign]).to(others[0])
        turned = turned.repeat_interleave(n_pairs, dim=0)
        if HARMONICS in given:
            given[HARMONICS] = given[HARMONICS] * turned
        letters = ("ec", "eic", "ej", "ekc")
        made = _by_path(self.couplings, which, (2 * n_pairs, *shape[1:]), given, letters)
        if which in rows:
            return made.new_zeros(shape).index_add(0, rows[which], made)
        made = made * turned if which == HARMONICS else made
        return made[:n_pairs] + made[n_pairs:]


@dataclass(frozen=True)
class _Products:
    """The form on atoms: weights (N, paths, C), factors (N, n, C) and (N, m, C), output."""

    couplings: Couplings

    def compute(self, which: int, shape: torch.Size, others: Sequence[Tensor]) -> Tensor:
        table = self.couplings
        order = [k for k in range(4) if k != which]
        if others[0].device.type != "cpu":
            return self._einsum(which, shape, others)
        out = torch.zeros(shape, dtype=others[0].dtype)
        arrays = [x.detach().contiguous().numpy() for x in others]
        values = table.values.astype(out.numpy().dtype)
        ATOM_KERNEL(table.rows[:, [*order, which]], values, *arrays, out.numpy())
        return out

    def _einsum(self, which: int, shape: torch.Size, others: Sequence[Tensor]) -> Tensor:
        given = dict(zip([k for k in range(4) if k != which], others, strict=True))
        return _by_path(self.couplings, which, shape, given, ("ec", "eic", "ejc", "ekc"))


def _by_path(
    table: Couplings,
    which: int,
    shape: Sequence[int],
    given: dict[int, Tensor],
    letters: Sequence[str],
) -> Tensor:
    """Return a derivative as a sum of einsums, one for each path."""
    some = next(iter(given.values()))
    out = some.new_zeros(shape)
    equation = ",".join(letters[k] for k in given) + f",ijk->{letters[which]}"
    for p, (a, b, c) in enumerate(table.paths):
        block = torch.from_numpy(coefficients(a, b, c)).to(some)
        where = (p, components(a), components(b), table.outputs[p])
        parts = [x[:, where[k]] for k, x in given.items()]
        out[:, where[which]] += torch.einsum(equation, *parts, block)
    return out


def pair_messages(couplings: Couplings, index: Tensor, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return for each atom the sum over its neighbours of their tensors times the harmonics.

    Parameters
    ----------
    couplings : Couplings
        Paths.
    index : Tensor of shape (2, P)
        Atoms of each pair, every pair once.
    w : Tensor of shape (P, n_paths, C)
        Weight of each path.
    x : Tensor of shape (N, n, C)
        Tensors of the atoms.
    y : Tensor of shape (P, m)
        Harmonics of the directions from the first atom of each pair to the second.

    Returns
    -------
    Tensor of shape (N, couplings.size, C)
    """
    shape = torch.Size((len(x), couplings.size, x.shape[2]))
    return derivative(_Messages(couplings, index), OUTPUT, shape, (w, x, y))


def atom_products(couplings: Couplings, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the product of two tensors of each atom.

    Parameters
    ----------
    couplings : Couplings
        Paths.
    w : Tensor of shape (N, n_paths, C)
        Weight of each path.
    x, y : Tensor of shape (N, n, C)
        The factors.

    Returns
    -------
    Tensor of shape (N, couplings.size, C)
    """
    shape = torch.Size((len(x), couplings.size, x.shape[2]))
    return derivative(_Products(couplings), OUTPUT, shape, (w, x, y))
