"""Rows of blocks end to end, against lists of lists."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from scikd.md._ragged import starts_of, take_rows


@given(st.data())
def test_rows_of_chosen_blocks_are_those_of_lists(data):
    sizes = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    chosen = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=8))
    numbers = iter(range(sum(sizes)))
    blocks = [[next(numbers) for _ in range(size)] for size in sizes]
    whole = torch.tensor(sizes)
    rows, places = take_rows(whole, torch.tensor(chosen, dtype=torch.int64))
    assert rows.tolist() == [row for block in chosen for row in blocks[block]]
    assert places.tolist() == [k for k, block in enumerate(chosen) for _ in blocks[block]]
    starts = starts_of(whole).tolist()
    assert all(starts[k] == block[0] for k, block in enumerate(blocks) if block)
