"""Features and labels against loops, and that none of them looks ahead."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.finance import Features, Panel, forward_returns, last_known, make_panel, tips_features
from tests.reference import finance_features as naive

ALL = ("open_z", "high_z", "low_z", "close_z", "volume_z", "ma5", "ma10", "ma20")
SEEDS = st.integers(0, 2**32 - 1)


def made(seed=0, n_dates=45, **options):
    return make_panel(n_dates, 3, seed=seed, **{"gaps": 0.01, "delistings": 1, **options}).panel


def changed(panel, row, seed):
    """Return the panel with other values after a row, some of them missing."""
    rng = np.random.default_rng(seed)
    fields = {}
    for field, values in panel.fields.items():
        after = values.copy()
        later = rng.lognormal(0, 5, after[row + 1 :].shape)
        after[row + 1 :] = np.where(rng.random(later.shape) < 0.1, np.nan, later)
        fields[field] = after
    return Panel(panel.dates, panel.assets, fields)


@given(seed=SEEDS, look_back=st.integers(2, 25))
def test_features_are_those_of_the_loops(seed, look_back):
    panel = made(seed)
    features = tips_features(panel, look_back, averages=(2, 7))
    assert features.names == (*ALL[:5], "ma2", "ma7")
    expected = [naive.trailing_score(values, look_back) for values in panel.fields.values()]
    expected += [naive.mean_gap(panel.close, days) for days in (2, 7)]
    np.testing.assert_allclose(
        features.values, np.stack(expected, axis=2), rtol=2e-7, atol=1e-7, equal_nan=True
    )


@given(seed=SEEDS, row=st.integers(0, 43))
def test_what_comes_later_changes_no_feature(seed, row):
    panel = made(seed)
    before = tips_features(panel, 8).values[: row + 1]
    after = tips_features(changed(panel, row, seed), 8).values[: row + 1]
    np.testing.assert_array_equal(before, after)


@given(seed=SEEDS, row=st.integers(0, 43), convention=st.sampled_from(["next_close", "same_close"]))
def test_a_label_looks_as_far_ahead_as_it_says(seed, row, convention):
    panel = made(seed, gaps=0.0, delistings=0)
    ahead = last_known(3, convention)
    before = forward_returns(panel, 3, convention)
    after = forward_returns(changed(panel, row, seed), 3, convention)
    known = max(row + 1 - ahead, 0)
    np.testing.assert_array_equal(before[:known], after[:known])
    assert not np.isclose(before[known], after[known]).any()
    assert np.isnan(before[-ahead:]).all()
    assert np.isfinite(before[:-ahead]).all()


def test_one_error_in_the_data_leaves_no_trace_after_its_windows():
    panel = made(gaps=0.0, delistings=0)
    close = panel.close.copy()
    close[5] *= 1e15
    spoilt = tips_features(Panel(panel.dates, panel.assets, {"close": close}), 10).values
    clean = tips_features(Panel(panel.dates, panel.assets, {"close": panel.close}), 10).values
    assert not np.array_equal(spoilt[14], clean[14], equal_nan=True)
    np.testing.assert_array_equal(spoilt[25:], clean[25:])


@given(price=st.floats(1e-3, 1e6))
def test_a_constant_price_gives_features_of_zero(price):
    panel = made()
    fields = {"close": np.full(panel.close.shape, price), "volume": np.zeros(panel.close.shape)}
    features = tips_features(Panel(panel.dates, panel.assets, fields), 20)
    assert (features.values[19:] == 0).all()


@given(seed=SEEDS, factor=st.floats(1e-3, 1e3))
def test_features_do_not_depend_on_the_currency(seed, factor):
    panel = made(seed)
    other = Panel(panel.dates, panel.assets, {f: v * factor for f, v in panel.fields.items()})
    np.testing.assert_allclose(
        tips_features(panel).values, tips_features(other).values, rtol=1e-4, atol=1e-6
    )


def test_fields_that_are_absent_are_named():
    panel = made()
    features = tips_features(Panel(panel.dates, panel.assets, {"close": panel.close}))
    assert features.names == ("close_z", "ma5", "ma10", "ma20")
    assert features.absent == ("open_z", "high_z", "low_z", "volume_z")
    assert "absent: open_z high_z low_z volume_z; known in" in repr(features)
    assert tips_features(panel).names == ALL
    assert "absent" not in repr(tips_features(panel))


@pytest.mark.parametrize("n_dates", [1, 3, 19])
def test_a_panel_that_is_shorter_than_the_windows_has_no_features(n_dates):
    features = tips_features(made(n_dates=n_dates), averages=(20, 30))
    assert features.values.shape == (n_dates, 3, 7)
    assert np.isnan(features.values).all()


@pytest.mark.parametrize("days", [0, 1, 2.0, True, "20"])
def test_windows_that_make_no_sense_are_refused(days):
    with pytest.raises(InvalidInputError, match="windows of features of at least 2 days"):
        tips_features(made(), days)
    with pytest.raises(InvalidInputError, match="windows of features of at least 2 days"):
        tips_features(made(), averages=(5, days))


def test_features_have_a_name_each():
    with pytest.raises(InvalidInputError, match=r"shape \(n_dates, n_assets, 1\).*got \(3, 2, 2\)"):
        Features(np.zeros((3, 2, 2)), ("one",))


@given(
    seed=SEEDS,
    horizon=st.integers(2, 50),
    convention=st.sampled_from(["next_close", "next_open", "same_close", "tips"]),
)
def test_labels_are_those_of_the_loops(seed, horizon, convention):
    panel = made(seed)
    first, last = {"same_close": (0, 0), "tips": (0, -1)}.get(convention, (1, 1))
    prices = panel.open if convention == "next_open" else panel.close
    expected = naive.forward_returns(prices, horizon, first, last)
    np.testing.assert_array_equal(forward_returns(panel, horizon, convention), expected)
    assert last_known(horizon, convention) == horizon + last


def test_returns_that_are_too_large_are_no_labels():
    panel = made(gaps=0.0, delistings=0)
    labels, kept = forward_returns(panel), forward_returns(panel, largest=0.05)
    large = np.abs(labels) > 0.05
    assert large.any()
    assert np.isnan(kept[large]).all()
    np.testing.assert_array_equal(kept[~large], labels[~large])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, "close"), "convention among next_close, next_open, same_close, tips; got 'close'"),
        ((0,), "the horizon of at least 1 days"),
        ((1.5,), "the horizon of at least 1 days, as a whole number; got 1.5"),
        ((1, "tips"), "the horizon of at least 2 days"),
        ((5, "next_open"), "'next_open' need the field 'open'"),
    ],
)
def test_labels_that_make_no_sense_are_refused(arguments, message):
    panel = made()
    with pytest.raises(InvalidInputError, match=message):
        forward_returns(Panel(panel.dates, panel.assets, {"close": panel.close}), *arguments)
