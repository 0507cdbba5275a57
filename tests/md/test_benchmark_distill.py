"""The benchmark of distillation: scatter of runs and of models told apart, parts kept apart."""

import numpy as np
import pytest

from benchmarks._md_electrolytes import LIQUIDS, Scale, clusters
from benchmarks.md_distill import scatter
from scikd.md.molecules import parse_mixture


def simulated(random, of_models, of_runs, shape):
    """Return densities of liquids, models and runs with known scatter."""
    n_liquids, n_models, _ = shape
    liquids = random.uniform(1.0, 1.3, n_liquids)[:, None, None]
    models = random.normal(0, of_models, (n_liquids, n_models, 1))
    return liquids + models + random.normal(0, of_runs, shape)


def test_scatter_of_many_models_is_found():
    """Where there are many, both standard deviations come out as they were put in."""
    found = scatter(simulated(np.random.default_rng(0), 0.02, 0.01, (40, 50, 4)))
    assert found.runs["value"] == pytest.approx(0.01, rel=0.05)
    assert found.models["value"] == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("of_models", [0.0, 0.01, 0.03])
def test_intervals_hold_as_often_as_they_say(of_models):
    """With three models, four liquids and two runs, as in the benchmark."""
    random = np.random.default_rng(1)
    held = []
    for _ in range(200):
        found = scatter(simulated(random, of_models, 0.015, (4, 3, 2))).models
        held.append(found["low"] <= of_models <= found["high"])
    assert np.mean(held) > 0.9


def test_offsets_of_liquids_are_no_scatter():
    """Liquids may have any density."""
    values = simulated(np.random.default_rng(2), 0.01, 0.01, (4, 3, 2))
    shifted = values + np.arange(4)[:, None, None]
    found = scatter(values).models
    assert scatter(shifted).models == pytest.approx(found)
    assert scatter(values * 2).models == pytest.approx({k: 2 * v for k, v in found.items()})


def test_parts_of_the_clusters_share_nothing():
    """What is judged on was not learnt from, and a part of a part comes from all over it."""
    test, train = clusters("test"), clusters("train")
    known = {float(energy) for energy in train.energy}
    assert not known & {float(energy) for energy in test.energy}
    few = clusters("train", 16)
    assert few.n_structures == 16
    assert set(few.numbers.tolist()) == set(train.numbers.tolist())


def test_the_scales_can_be_packed(monkeypatch, tmp_path):
    """Every liquid holds each of its species at the size of the boxes."""
    monkeypatch.setenv("SCIKD_RUNS", str(tmp_path))
    scale = Scale.of("md-distill", quick=False)
    assert scale.folder == tmp_path
    assert Scale.of("md-distill", quick=True).folder != tmp_path
    for liquid in LIQUIDS:
        assert all(parse_mixture(liquid).counts(n_atoms=scale.n_atoms).values())
