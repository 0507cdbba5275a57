"""Losses over days agree with loops, their gradients with differences, and nothing poisons them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.finance import losses
from scikd.finance.losses import (
    distillation_loss,
    mean_ranks,
    rank_correlation_loss,
    soft_ranks,
    teacher_distribution,
)
from tests.reference import finance_losses as naive

METHODS = ("pairwise", "linear")
days = st.lists(
    st.lists(st.integers(-6, 6).map(lambda i: i / 2), min_size=1, max_size=7),
    min_size=1,
    max_size=5,
)


def tensors(rows):
    flat = torch.tensor([value for day in rows for value in day], dtype=torch.float64)
    return flat, torch.tensor(np.cumsum([0, *map(len, rows)]))


def random_days(seed, sizes=(5, 1, 4, 7)):
    random = np.random.default_rng(seed)
    rows = [random.normal(size=size).tolist() for size in sizes]
    return tensors(rows)


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None)
@given(rows=days, sharpness=st.sampled_from([0.5, 1.0, 3.0]))
def test_soft_ranks_are_those_of_loops(method, rows, sharpness):
    scores, ptr = tensors(rows)
    expected = [r for day in rows for r in naive.soft_ranks(day, method, sharpness)]
    found = soft_ranks(scores, ptr, method, sharpness=sharpness)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(rows=days)
def test_exact_ranks_share_the_mean_of_ties(rows):
    values, ptr = tensors(rows)
    assert mean_ranks(values, ptr).tolist() == [r for day in rows for r in naive.mean_ranks(day)]


def test_sharp_soft_ranks_are_ranks():
    scores, ptr = random_days(0)
    sharp = soft_ranks(scores, ptr, sharpness=1e6)
    np.testing.assert_allclose(sharp, mean_ranks(scores, ptr), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None)
@given(rows=days, data=st.data())
def test_the_rank_loss_is_that_of_loops(method, rows, data):
    scores, ptr = tensors(rows)
    n = len(scores)
    labels = torch.tensor(data.draw(st.lists(st.integers(-2, 2), min_size=n, max_size=n))).double()
    expected = naive.rank_correlation_loss(scores.tolist(), labels.tolist(), ptr.tolist(), method)
    found = float(rank_correlation_loss(scores, labels, ptr, method))
    assert found == pytest.approx(expected, abs=1e-9)
    assert -1 - 1e-9 <= found <= 1 + 1e-9


@settings(deadline=None)
@given(rows=days, smoothing=st.sampled_from([0.0, 0.9, 1.0]))
def test_the_distillation_loss_is_that_of_loops(rows, smoothing):
    scores, ptr = tensors(rows)
    target = torch.flip(scores, dims=[0]) / 7
    expected = naive.distillation_loss(
        scores.tolist(), target.tolist(), ptr.tolist(), 0.01, smoothing
    )
    found = distillation_loss(scores, target, ptr, 0.01, smoothing)
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("largest", [2**22, 40, 3])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_differences(monkeypatch, method, largest):
    monkeypatch.setattr(losses, "LARGEST_TABLE", largest)
    scores, ptr = random_days(1)
    labels = random_days(2)[0]
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: soft_ranks(s, ptr, method, sharpness=1.7), scores)
    assert torch.autograd.gradcheck(lambda s: rank_correlation_loss(s, labels, ptr, method), scores)
    assert torch.autograd.gradcheck(lambda s: distillation_loss(s, labels, ptr, 0.3, 0.5), scores)


@pytest.mark.parametrize("largest", [1, 30, 200])
def test_the_size_of_tables_changes_nothing(monkeypatch, largest):
    scores, ptr = random_days(3, sizes=(9, 2, 30, 1, 11, 12))
    expected = soft_ranks(scores, ptr)
    monkeypatch.setattr(losses, "LARGEST_TABLE", largest)
    assert torch.allclose(soft_ranks(scores, ptr), expected, rtol=0, atol=1e-12)
    for rows, columns, _ in losses._tables(ptr.diff()):
        assert rows.numel() * columns.shape[1] <= max(largest, 30 * rows.shape[0])


@pytest.mark.parametrize("method", METHODS)
def test_days_that_order_nothing_teach_nothing(method):
    scores = torch.zeros(6, requires_grad=True)
    ptr = torch.tensor([0, 1, 4, 6])
    labels = torch.tensor([1.0, 2.0, 2.0, 2.0, 1.0, 3.0])
    loss = rank_correlation_loss(scores, labels, ptr, method)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.isfinite(scores.grad).all()
    assert not scores.grad[:4].any()


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_does_not_mix_days(method):
    scores, ptr = random_days(4, sizes=(6, 6))
    labels = random_days(5, sizes=(6, 6))[0]
    shifted = labels + torch.tensor([0.0, 100.0], dtype=torch.float64).repeat_interleave(6)
    alone = [rank_correlation_loss(scores[s], labels[s], torch.tensor([0, 6]), method)
             for s in (slice(6), slice(6, 12))]  # fmt: skip
    assert float(rank_correlation_loss(scores, shifted, ptr, method)) == pytest.approx(
        float(sum(alone)) / 2
    )


def test_the_scale_of_scores_does_not_matter_to_linear_ranks():
    scores, ptr = random_days(6)
    expected = soft_ranks(scores, ptr, "linear")
    assert torch.allclose(soft_ranks(1e-6 * scores + 3, ptr, "linear"), expected, atol=1e-6)


def test_what_is_taught_sums_to_one_even_where_softmax_overflows():
    target, ptr = random_days(7)
    shares = teacher_distribution(1e5 * target.float(), ptr)
    sums = torch.zeros(4).index_add(0, torch.repeat_interleave(ptr.diff()), shares)
    assert torch.allclose(sums, torch.ones(4))
    best = int(target[:5].argmax())
    assert float(shares[best]) == pytest.approx(0.1 + 0.9 / 5)


@pytest.mark.parametrize(
    "ptr", [[0, 3], [1, 6], [0, 3, 3, 6], [0], [0, 7], [[0, 6]], [0.0, 6.0], [6, 0, 6]]
)
def test_days_that_do_not_fit_are_refused(ptr):
    with pytest.raises(InvalidInputError, match="Expected day_ptr to rise from 0 to the number"):
        rank_correlation_loss(torch.zeros(6), torch.zeros(6), torch.tensor(ptr))


def test_other_bad_input_is_refused():
    scores, ptr = random_days(8)
    with pytest.raises(InvalidInputError, match="labels of shape .17,., as the scores; got .16,."):
        rank_correlation_loss(scores, scores[1:], ptr)
    with pytest.raises(InvalidInputError, match="method 'pairwise' or 'linear'; got 'exact'"):
        soft_ranks(scores, ptr, "exact")
    with pytest.raises(InvalidInputError, match="temperature above 0 .* temperature=0 and"):
        distillation_loss(scores, scores, ptr, temperature=0)
    with pytest.raises(InvalidInputError, match="smoothing=1.5"):
        distillation_loss(scores, scores, ptr, smoothing=1.5)
