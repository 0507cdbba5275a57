"""Pairs of atoms, found by going through all images one by one."""

from __future__ import annotations

import itertools

import numpy as np
from ase.geometry import complete_cell


def ordered_pairs(positions, cell, pbc, cutoff):
    """Return {(i, j, shift)} of every ordered pair closer than a cutoff, images included."""
    box = complete_cell(np.where(np.asarray(pbc)[:, None], cell, 0.0))
    fractional = positions @ np.linalg.inv(box)
    heights = 1 / np.linalg.norm(np.linalg.inv(box), axis=0)
    ranges = []
    for axis in range(3):
        # Atoms may lie anywhere, so their own distance adds to what the cutoff reaches.
        reach = int(np.ceil(cutoff / heights[axis] + np.ptp(fractional[:, axis])))
        ranges.append(range(-reach, reach + 1) if pbc[axis] else range(1))
    pairs = set()
    for shift in itertools.product(*ranges):
        offset = np.array(shift) @ box
        for i, j in itertools.product(range(len(positions)), repeat=2):
            itself = i == j and not any(shift)
            if not itself and np.linalg.norm(positions[j] + offset - positions[i]) < cutoff:
                pairs.add((i, j, shift))
    return pairs


def both_ways(i, j, shifts):
    """Turn a half list into ordered pairs; an error if it holds a pair twice."""
    pairs = set()
    shifts = np.asarray(shifts).astype(int).tolist()
    for a, b, shift in zip(i.tolist(), j.tolist(), shifts, strict=True):
        for pair in ((a, b, tuple(shift)), (b, a, tuple(-s for s in shift))):
            assert pair not in pairs, f"{pair} is there twice"
            pairs.add(pair)
    return pairs
