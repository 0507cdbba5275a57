"""Devices by name: a GPU where there is one, and an error for what is not there."""

from __future__ import annotations

import pytest

from scikd._devices import choose_device, find_device
from scikd.exceptions import InvalidInputError

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("there", "rank", "expected"),
    [(False, None, "cpu"), (True, None, "cuda:0"), (True, "3", "cuda:3"), (False, "3", "cpu")],
)
def test_auto_takes_the_gpu_of_this_process(monkeypatch, there, rank, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device("auto") == torch.device(expected)


@pytest.mark.parametrize("function", [choose_device, find_device])
def test_a_device_is_taken_by_its_name_if_it_is_there(function):
    assert function("cpu") == torch.device("cpu")
    for name in ("no such thing", "cuda:99"):
        with pytest.raises(InvalidInputError, match=f"torch can use here, .*; got {name!r}"):
            function(name)
