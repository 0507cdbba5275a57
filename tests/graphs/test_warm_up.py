"""Kernels are made ready before the work that is timed, and it is said."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from scikd.exceptions import InvalidInputError
from scikd.graphs._warm_up import warm_up
from scikd.graphs.mirage import Mirage

# In a process of its own, as tests before this one may have used any kernel.
PROGRAM = """
import sys
from scikd.graphs import Mirage, load_molecules
from scikd.graphs._warm_up import warm_up
from scikd.graphs.kernels import dag, itemsets, refinement, transactions

def ready():
    return {
        (name, signature)
        for module in (dag, itemsets, refinement, transactions)
        for name, kernel in vars(module).items()
        for signature in getattr(kernel, "signatures", ())
    }

mirage, shards = Mirage(1, **eval(sys.argv[1])), sys.argv[2] == "shards"
warm_up(mirage, shards=shards)
before, graphs = ready(), load_molecules().select(range(400))
mirage.fit_shards([lambda: graphs]) if shards else mirage.fit(graphs)
print(len(before), ready() - before)
"""


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({"budget": "2kB"}, "whole"),
        ({"budget": "2kB"}, "shards"),
        ({"mode": "published", "min_support": 0.1}, "whole"),
    ],
)
def test_no_kernel_is_left_to_compile(options, how):
    program = [sys.executable, "-c", PROGRAM, repr(options), how]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    number, left = done.stdout.split(maxsplit=1)
    assert int(number) > 5
    assert left.strip() == "set()"


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_hops": 0},
        {"budget": 10, "min_support": 500},
        {"min_support": {"a": 20, "b": 0.5}, "contrast": 1e9},
        {"mode": "published", "max_sets": 1},
        {"degrees": True, "itemsets": "all", "labels": "class"},
    ],
)
def test_all_options_can_be_made_ready_for(options, shards, caplog):
    mirage = Mirage(**options)
    with caplog.at_level(logging.INFO, "scikd.graphs"):
        warm_up(mirage, shards=shards)
    assert "Preparing compiled kernels: some seconds the first time" in caplog.messages[0]
    assert caplog.messages[-1].startswith("Ready after ")
    assert not hasattr(mirage, "distilled_")
    assert mirage.get_params() == Mirage(**options).get_params()


@pytest.mark.parametrize("options", [{"n_hops": "auto"}, {"mode": "lossless"}])
def test_what_needs_all_graphs_is_made_ready_for(options):
    warm_up(Mirage(**options))
    with pytest.raises(InvalidInputError, match="need all graphs at once"):
        warm_up(Mirage(**options), shards=True)
