"""Condition and effective rank of a pool."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from scikd.stacking.diagnostics import Conditioning
from scikd.stacking.gram import Gram
from scikd.stacking.redundancy import RedundancyFilter


def pool(seed, n=200, n_models=6):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    return y[:, None] + rng.uniform(0.05, 1) * rng.normal(size=(n, n_models)), y


@given(st.integers(0, 10**6))
def test_numbers_are_those_of_the_correlation_matrix(seed):
    P, y = pool(seed)
    C = np.corrcoef(P.T)
    eigenvalues = np.linalg.eigvalsh(C)[::-1]
    for found in (Conditioning.of(P), Conditioning.of_gram(Gram.of(P, y))):
        np.testing.assert_allclose(found.eigenvalues, eigenvalues, rtol=1e-9)
        assert found.condition == pytest.approx(np.linalg.cond(C))
        expected = np.linalg.cond(C + 0.3 * np.eye(6))
        assert found.penalised_condition(0.3) == pytest.approx(expected)
        assert found.effective_rank == pytest.approx(np.exp(entropy(eigenvalues)))
        assert found.participation_ratio == pytest.approx(36 / (C**2).sum())


def test_weights_are_copies_of_rows():
    P, _ = pool(0)
    w = np.random.default_rng(1).integers(0, 3, size=len(P))
    copies = Conditioning.of(np.repeat(P, w, axis=0))
    np.testing.assert_allclose(Conditioning.of(P, w).eigenvalues, copies.eigenvalues)


def test_unit_and_shift_of_each_model_do_not_matter():
    P, _ = pool(0)
    moved = P * [1, 2, 3, -4, 5, 1e3] + np.arange(6)
    np.testing.assert_allclose(Conditioning.of(moved).eigenvalues, Conditioning.of(P).eigenvalues)


def test_a_copy_has_no_finite_condition_and_a_penalty_bounds_it():
    P, _ = pool(0)
    found = Conditioning.of(np.c_[P, P[:, 0]])
    assert found.condition == np.inf
    assert found.penalised_condition(0.1) < 1 + 7 / 0.1
    assert found.effective_rank < 6


def test_constant_models_are_left_out():
    P, _ = pool(0)
    found = Conditioning.of(np.c_[P, np.full(200, 0.1)])
    np.testing.assert_allclose(found.eigenvalues, Conditioning.of(P).eigenvalues)
    assert found.n_constant == 1
    nothing = Conditioning.of(np.full((5, 2), 0.1))
    assert (nothing.n_constant, nothing.n_models, nothing.condition) == (2, 0, 1.0)


def test_missing_predictions_are_the_mean_of_the_others():
    P, _ = pool(0)
    P[0, 1] = np.delete(P[0], 1).mean()
    gaps = np.r_[P, np.full((1, 6), np.nan)]
    gaps[0, 1] = np.nan
    np.testing.assert_allclose(Conditioning.of(gaps).eigenvalues, Conditioning.of(P).eigenvalues)


def test_classes_count_as_one_column():
    rng = np.random.default_rng(0)
    P = rng.dirichlet(np.ones(3), size=(50, 4))
    flat = np.swapaxes(P, 1, 2).reshape(-1, 4)
    np.testing.assert_allclose(
        Conditioning.of(P).eigenvalues, np.linalg.eigvalsh(np.corrcoef(flat.T))[::-1]
    )


def test_on_real_predictions_pruning_shows(scikd_data):
    table = pd.read_csv(scikd_data("tabular/oof_cooling_load_18models.csv.gz"))
    table = table[table["fold"] < 4]
    P, y = table.drop(columns=["fold", "y_true"]), table["y_true"]
    gram = Gram.of(P, y)
    before = Conditioning.of_gram(gram)
    after = Conditioning.of_gram(gram.take(RedundancyFilter().fit(P, y).kept_))
    assert before.condition == pytest.approx(np.linalg.cond(np.corrcoef(P.T)), rel=1e-4)
    assert before.condition > 1000 * after.condition
    assert before.effective_rank == pytest.approx(1.10, abs=0.01)
