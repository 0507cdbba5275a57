"""Memory at its peak: what is allocated and freed again counts, whoever allocates it."""

from __future__ import annotations

import math
from pathlib import Path

import numba
import numpy as np
import pytest

from scikd import _memory
from scikd._memory import PeakMemory

MIB = 2**20
needs_linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the system does not tell its memory"
)


@numba.njit
def total_of_ones(size):
    return np.ones(size).sum()


@needs_linux
def test_what_is_freed_again_counts():
    with PeakMemory() as memory:
        np.ones(8 * MIB).sum()
    assert 60 * MIB < memory.n_bytes < 80 * MIB


@needs_linux
def test_what_compiled_code_allocates_counts():
    total_of_ones(1)
    with PeakMemory() as memory:
        total_of_ones(8 * MIB)
    assert 60 * MIB < memory.n_bytes < 80 * MIB


@needs_linux
def test_what_was_freed_before_is_not_used_again_unseen():
    # Pieces so small that the C library keeps them when they are freed.
    for _ in range(2):
        with PeakMemory() as memory:
            pieces = [np.ones(1000) for _ in range(8000)]
        assert memory.n_bytes > 55 * MIB
        del pieces


@needs_linux
def test_an_earlier_peak_does_not_count():
    np.ones(16 * MIB).sum()
    with PeakMemory() as memory:
        np.ones(1000).sum()
    assert memory.n_bytes < 8 * MIB


def test_a_system_that_does_not_tell_gives_nan(monkeypatch, tmp_path):
    monkeypatch.setattr(_memory, "PROCESS", tmp_path / "nothing")
    with PeakMemory() as memory:
        np.ones(1000).sum()
    assert math.isnan(memory.n_bytes)
