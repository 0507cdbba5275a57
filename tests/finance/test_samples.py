"""Samples: which there are, and what their windows hold."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.finance import Features, Samples, forward_returns, make_panel, tips_features
from tests.reference import finance_features as naive

SEEDS = st.integers(0, 2**32 - 1)


def made(seed=0, n_dates=60, label=True, **options):
    panel = make_panel(n_dates, 4, seed=seed, gaps=0.005, delistings=1).panel
    features = tips_features(panel, 5, averages=(5,))
    labels = forward_returns(panel, 2) if label else None
    return panel, features, labels, Samples.of(panel, features, labels, look_back=6, **options)


@given(seed=SEEDS, label=st.booleans(), drop=st.booleans())
def test_samples_are_those_of_the_loops(seed, label, drop):
    panel, features, labels, _ = made(seed, label=label)
    if drop:
        panel = panel.with_members(np.random.default_rng(seed).random(panel.close.shape) < 0.5)
    samples = Samples.of(panel, features, labels, look_back=6)
    places = naive.sample_places(features.values, panel.member, labels, 6)
    assert list(zip(samples.rows.tolist(), samples.columns.tolist(), strict=True)) == places
    windows = samples.windows()
    assert windows.dtype == np.float32
    for i, (t, n) in enumerate(places):
        np.testing.assert_array_equal(windows[i], features.values[t - 5 : t + 1, n])
        if label:
            assert samples.label[i] == labels[t, n]


def test_windows_of_some_samples_are_those_of_all():
    _, _, _, samples = made()
    windows = samples.windows()
    some = np.random.default_rng(0).permutation(len(samples))[:17]
    np.testing.assert_array_equal(samples.windows(some), windows[some])
    np.testing.assert_array_equal(samples.windows(slice(3, 30, 4)), windows[3:30:4])
    mask = samples.rows % 2 == 0
    np.testing.assert_array_equal(samples.windows(mask), windows[mask])
    out = np.zeros((17, 6, 6), np.float32)
    assert samples.windows(some, out) is out
    np.testing.assert_array_equal(out, windows[some])
    with pytest.raises(InvalidInputError, match=r"out as float32 of shape \(17, 6, 6\); got float"):
        samples.windows(some, out.astype(np.float64))


def test_days_are_runs_of_samples():
    panel, _, _, samples = made()
    assert (np.diff(samples.day_ptr) > 0).all()
    assert samples.day_ptr[-1] == len(samples)
    for day, start, stop in zip(
        samples.days, samples.day_ptr[:-1], samples.day_ptr[1:], strict=True
    ):
        assert samples.day(day) == slice(start, stop)
        assert (samples.rows[start:stop] == day).all()
    assert samples.day(0) == slice(0, 0)
    np.testing.assert_array_equal(samples.groups, panel.dates[samples.rows])


def test_some_days_can_be_selected():
    panel, _, _, samples = made()
    fifth = samples.select_days(every=5)
    np.testing.assert_array_equal(fifth.days, samples.days[::5])
    np.testing.assert_array_equal(fifth.label, samples.label[np.isin(samples.rows, fifth.days)])
    first, last = panel.dates[20], panel.dates[30]
    part = samples.select_days(first=first, last=last)
    inside = (samples.groups >= first) & (samples.groups <= last)
    np.testing.assert_array_equal(part.rows, samples.rows[inside])
    with pytest.raises(InvalidInputError, match="every >= 1; got 0"):
        samples.select_days(every=0)


def test_samples_of_some_rows_reach_back_before_them():
    _, _, _, samples = made()
    _, _, _, part = made(rows=slice(25, 35))
    inside = (samples.rows >= 25) & (samples.rows < 35)
    np.testing.assert_array_equal(part.rows, samples.rows[inside])
    np.testing.assert_array_equal(part.windows(), samples.windows(inside))


def test_values_are_spread_over_the_panel():
    panel, _, labels, samples = made()
    wide = samples.spread(samples.label)
    assert wide.shape == panel.close.shape
    np.testing.assert_array_equal(wide[samples.rows, samples.columns], samples.label)
    assert np.isfinite(wide).sum() == len(samples)
    np.testing.assert_array_equal(wide[np.isfinite(wide)], labels[np.isfinite(wide)])
    with pytest.raises(InvalidInputError, match=rf"Expected {len(samples)} values"):
        samples.spread(np.zeros(3))


def test_arrays_are_what_scikit_learn_takes():
    _, _, _, samples = made()
    X, y, groups = samples.as_arrays()
    assert len(X) == len(y) == len(groups) == len(samples)
    assert X.shape[1:] == (6, samples.n_features)
    assert made(label=False)[3].as_arrays()[1] is None


def test_repr_says_what_there_is():
    _, _, _, samples = made()
    assert f"Samples({len(samples)} of {len(samples.days)} days from 2000-" in repr(samples)
    assert repr(samples).endswith("6 days x 6 features, labelled)")
    assert "Samples(0 of 0 days, 6 days" in repr(samples.take(slice(0)))


def test_finding_samples_takes_no_memory_for_windows():
    panel = make_panel(400, 50).panel
    features = tips_features(panel)
    tracemalloc.start()
    samples = Samples.of(panel, features)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    all_windows = len(samples) * samples.look_back * samples.n_features * 4
    assert peak < all_windows / 5
    assert samples.features is features.values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": Features(np.zeros((3, 4, 1)), ("a",))}, r"features of \(60, 4\).*\(3, 4\)"),
        ({"label": np.zeros((60, 3))}, r"label of \(60, 4\) dates and assets; got \(60, 3\)"),
        ({"look_back": 0}, "look_back of at least 1 day; got 0"),
        ({"look_back": 58}, "No member of the universe has 58 days of all features and a label"),
        ({"look_back": 58, "label": None}, "58 days of all features: the panel has 60 dates"),
    ],
)
def test_samples_that_cannot_be_are_refused(changes, message):
    panel, features, labels, _ = made()
    arguments = {"features": features, "label": labels, "look_back": 6, **changes}
    with pytest.raises(InvalidInputError, match=message):
        Samples.of(panel, **arguments)


def test_an_empty_universe_has_no_samples():
    panel, features, _, _ = made()
    nobody = panel.with_members(np.zeros(panel.close.shape, bool))
    with pytest.raises(InvalidInputError, match="No member of the universe"):
        Samples.of(nobody, features, look_back=6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": np.array([0])}, "one length"),
        ({"rows": np.array([4, 8])}, "with 5 dates before the first"),
        ({"rows": np.array([8, 60])}, "samples within 60 dates and 4 assets"),
        ({"columns": np.array([-1, 0])}, "samples within"),
        ({"columns": np.array([0, 4])}, "samples within"),
        ({"rows": np.array([9, 8])}, "sorted by date, then by asset, each once"),
        ({"rows": np.array([8, 8]), "columns": np.array([1, 1])}, "each once"),
    ],
)
def test_places_outside_the_features_are_refused(changes, message):
    panel, features, _, _ = made()
    places = {"rows": np.array([8, 9]), "columns": np.array([0, 0]), **changes}
    with pytest.raises(InvalidInputError, match=message):
        Samples(features.values, 6, **places, label=None, dates=panel.dates)
