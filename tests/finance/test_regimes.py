"""Regimes look back only, and similarities by regime are what they are said to be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scikd.exceptions import InvalidInputError
from scikd.finance import Panel, make_panel
from scikd.finance.regimes import NAMES, Regimes, market_regimes, regime_alignment
from tests.reference import finance_regimes as reference

SHORT = {"volatility_days": 5, "trend_days": 8, "history": 10}


@pytest.fixture(scope="module")
def panel():
    return make_panel(200, 10, gaps=0.1, delistings=3, seed=2, fields=("close",)).panel


@pytest.fixture(scope="module")
def scores():
    """A student that is like one teacher on odd codes, like another on even ones."""
    random = np.random.default_rng(0)
    codes = np.repeat([0, 1, 0, 1, 2], 60)
    first, second, noise = random.standard_normal((3, len(codes), 25))
    student = np.where((codes % 2 == 1)[:, None], first, second) + 0.5 * noise
    student[random.random(student.shape) < 0.1] = np.nan
    regimes = Regimes(("a", "b", "c"), codes, np.datetime64("2000-01-03") + np.arange(len(codes)))
    return student, {"first": first, "second": second}, regimes


def test_regimes_are_those_of_the_slow_version(panel):
    for quantile in (0.3, 0.5):
        regimes = market_regimes(panel, quantile=quantile, **SHORT)
        expected = reference.market_regimes(panel, 5, 8, quantile, 10)
        np.testing.assert_array_equal(regimes.codes, expected)
        assert set(expected) == {-1, 0, 1, 2, 3}
    assert regimes.names == NAMES
    assert sum(regimes.n_dates.values()) == (regimes.codes >= 0).sum()
    assert "calm, falling: " in repr(regimes)


@settings(max_examples=40, deadline=None)
@given(row=st.integers(0, 198), seed=st.integers(0, 2**32 - 1))
def test_what_comes_later_changes_no_regime(panel, row, seed):
    random = np.random.default_rng(seed)
    close, member = panel.close.copy(), panel.member.copy()
    close[row + 1 :] *= random.lognormal(0, 1, close[row + 1 :].shape)
    close[row + 1 :][random.random(close[row + 1 :].shape) < 0.3] = np.nan
    member[row + 1 :] = random.random(member[row + 1 :].shape) < 0.5
    other = Panel(panel.dates, panel.assets, {"close": close}, member)
    before, after = (market_regimes(one, **SHORT).codes for one in (panel, other))
    np.testing.assert_array_equal(before[: row + 1], after[: row + 1])


def test_a_date_knows_no_more_than_a_panel_that_ends_there(panel):
    codes = market_regimes(panel, **SHORT).codes
    for stop in (40, 111, 199):
        part = panel.select(dates=slice(0, stop))
        np.testing.assert_array_equal(market_regimes(part, **SHORT).codes, codes[:stop])


def test_storms_are_volatile_and_booms_rise():
    random = np.random.default_rng(0)
    returns = np.concatenate(
        [
            random.normal(0, 0.005, 200),
            random.normal(0.01, 0.005, 60),  # a quiet boom
            random.normal(-0.01, 0.05, 60),  # a crash
        ]
    )
    close = 100 * np.cumprod(1 + returns)[:, None].repeat(3, axis=1)
    panel = Panel(np.busday_offset("2000-01-03", np.arange(320)), ("a", "b", "c"), {"close": close})
    codes = market_regimes(panel, trend_days=20, history=50).codes
    assert (codes[:70] == -1).all()
    assert (codes[70:] >= 0).all()
    assert (codes[225:260] % 2 == 1).all()  # rising
    assert (codes[280:] == NAMES.index("volatile, falling")).mean() > 0.8


def test_similarities_are_those_of_the_slow_version(scores):
    student, others, regimes = scores
    found = regime_alignment(student, others, regimes, n_resamples=50)
    for m, other in enumerate(others.values()):
        for r in range(3):
            expected = reference.similarity(student, other, regimes.codes, r)
            got = found.similarity[m, r, 0], found.contrast[m, r, 0]
            np.testing.assert_allclose(got, expected, atol=1e-12)
    assert found.n_dates.tolist() == [[120, 120, 60]] * 2


def test_a_student_that_changes_sides_is_seen(scores):
    found = regime_alignment(*scores, n_resamples=300)
    frame = found.to_frame().set_index(["other", "regime"])
    assert list(frame.columns[:4]) == ["n_dates", "similarity", "similarity_low", "similarity_high"]
    assert frame.loc[("first", "b"), "contrast_low"] > 0.5
    assert frame.loc[("first", "a"), "contrast_high"] < -0.2
    assert frame.loc[("second", "c"), "similarity_low"] > 0.7
    assert (frame["similarity_low"] <= frame["similarity"]).all()
    assert (frame["similarity"] <= frame["similarity_high"]).all()


def test_the_same_seed_gives_the_same_intervals(scores):
    one, same, other = (regime_alignment(*scores, n_resamples=60, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.similarity, same.similarity)
    assert not np.array_equal(one.similarity, other.similarity)
    np.testing.assert_array_equal(one.similarity[:, :, 0], other.similarity[:, :, 0])


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(0)
    codes = np.repeat([0, 1, 0, 1], 40)
    regimes = Regimes(("a", "b"), codes, np.arange(160).astype("datetime64[D]"))
    held = []
    for seed in range(60):
        student, other = random.standard_normal((2, 160, 6))
        found = regime_alignment(student, {"one": other}, regimes, n_resamples=200, seed=seed)
        held.append((found.contrast[0, :, 1] <= 0) & (found.contrast[0, :, 2] >= 0))
    assert np.mean(held) > 0.86


def test_a_regime_that_never_comes_has_no_similarity(scores):
    student, others, regimes = scores
    empty = Regimes(("a", "b", "c", "d"), regimes.codes, regimes.dates)
    found = regime_alignment(student, others, empty, n_resamples=20)
    assert np.isnan(found.similarity[:, 3]).all()
    assert found.n_dates[:, 3].tolist() == [0, 0]
    assert np.isfinite(found.similarity[:, :3]).all()


def test_the_figure_is_drawn(scores):
    pytest.importorskip("matplotlib")
    figure = regime_alignment(*scores, n_resamples=20).figure()
    (light, dark) = figure.pngs((False, True))
    assert light.startswith(b"\x89PNG")
    assert light != dark


def test_what_cannot_be_compared_is_refused(panel, scores):
    student, others, regimes = scores
    with pytest.raises(InvalidInputError, match="at least one other"):
        regime_alignment(student, {}, regimes)
    with pytest.raises(InvalidInputError, match="scores of the 300 dates of the regimes"):
        regime_alignment(student[1:], others, regimes)
    with pytest.raises(InvalidInputError, match="level between 0 and 1; got 95"):
        regime_alignment(student, others, regimes, level=95)
    silent = {**others, "silent": np.full(student.shape, np.nan)}
    with pytest.raises(InvalidInputError, match="No date has .* and of silent for three assets"):
        regime_alignment(student, silent, regimes)
    with pytest.raises(InvalidInputError, match="codes from -1 to 1, for the regimes"):
        Regimes(("a", "b"), regimes.codes, regimes.dates)
    with pytest.raises(InvalidInputError, match="Expected a code for each date"):
        Regimes(("a", "b"), regimes.codes[1:], regimes.dates)
    with pytest.raises(InvalidInputError, match=r"volatility_days >= 2, not 1; quantile between"):
        market_regimes(panel, volatility_days=1, quantile=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": "x"}, r"those of the student are a str of shape \(0,\)"),
        ({"student": [[1.0], [1.0, 2.0]]}, "those of the student are a list"),
        (
            {"others": {"b": np.ones((300, 3)), "c": None}},
            r"'b' are a .* \(300, 3\); .* 'c' are a None",
        ),
        ({"others": np.ones((300, 25))}, "mapping of name to scores; got array"),
        ({"others": [np.ones((300, 25))]}, "mapping of name to scores"),
        ({"regimes": np.zeros(300, int)}, "Regimes, which market_regimes makes; got a ndarray"),
        ({"level": "high"}, "level between 0 and 1; got 'high'"),
        ({"n_resamples": 0}, "n_resamples of at least 1"),
        ({"n_resamples": 1.5}, "n_resamples as a whole number"),
        ({"block": "long"}, "block as a number of dates or None; got .* 'long'"),
        ({"block": 0}, "a block of at least one row"),
    ],
)
def test_what_is_of_another_kind_is_refused(scores, change, message):
    given = dict(zip(("student", "others", "regimes"), scores, strict=True)) | change
    with pytest.raises(InvalidInputError, match=message):
        regime_alignment(**given)


def test_frames_are_compared_as_arrays_are(scores):
    student, others, regimes = scores
    framed = {name: pd.DataFrame(one) for name, one in others.items()}
    found = regime_alignment(pd.DataFrame(student), framed, regimes, n_resamples=5)
    expected = regime_alignment(*scores, n_resamples=5)
    np.testing.assert_array_equal(found.similarity, expected.similarity)
