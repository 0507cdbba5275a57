"""Splits: no label of training overlaps one of the test, and nothing looks ahead."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, check_cv, cross_val_score

from scikd.exceptions import InvalidInputError
from scikd.finance import Chronological, CombinatorialPurged, WalkForward, last_known

CALENDAR = np.busday_offset("2020-01-01", np.arange(400), roll="forward")


def groups_of(n_days, seed=0, every=1):
    """Return dates of samples, several of each day, out of order."""
    rng = np.random.default_rng(seed)
    days = CALENDAR[: n_days * every : every]
    return rng.permutation(np.repeat(days, rng.integers(1, 4, n_days)))


def places(dates):
    return np.searchsorted(CALENDAR, dates)


def gaps(train, test):
    """Return for each day of training how many days it is from the nearest day of the test."""
    return np.abs(places(np.unique(train))[:, None] - places(np.unique(test))).min(axis=1)


@st.composite
def walks(draw):
    options = {
        "purge": draw(st.integers(0, 8)),
        "embargo": draw(st.integers(0, 3)),
        "rolling": draw(st.booleans()),
        "calendar": draw(st.sampled_from([None, CALENDAR])),
    }
    if draw(st.booleans()):
        options |= {"n_splits": draw(st.integers(1, 5)), "train_size": draw(st.integers(1, 30))}
        options["test_size"] = draw(st.sampled_from([None, 3, 10]))
    else:
        options |= {"n_splits": None, "train_size": draw(st.integers(1, 40))}
        options["test_size"] = draw(st.integers(1, 30))
    return WalkForward(**options)


@given(splitter=walks(), seed=st.integers(0, 99), every=st.sampled_from([1, 3]))
def test_walking_forward_never_looks_ahead(splitter, seed, every):
    groups = groups_of(100, seed, every)
    splits = list(splitter.split(np.zeros(len(groups)), groups=groups))
    assert len(splits) == splitter.get_n_splits(groups=groups) > 0
    tested = []
    for train, test in splits:
        assert groups[train].max() < groups[test].min()
        assert gaps(groups[train], groups[test]).min() > splitter.purge + splitter.embargo
        assert not set(groups[train]) & set(groups[test])
        tested.append(np.unique(groups[test]))
        if splitter.rolling:
            assert len(np.unique(groups[train])) <= splitter.train_size
        else:
            assert groups[train].min() == groups.min()
    together = np.concatenate(tested)
    np.testing.assert_array_equal(together, np.unique(groups)[-len(together) :])


def test_no_more_is_purged_than_need_be():
    groups = groups_of(60, every=5)
    exact = WalkForward(3, purge=6, calendar=CALENDAR).split(None, groups=groups)
    careful = WalkForward(3, purge=6).split(None, groups=groups)
    for (train, test), (less, same_test) in zip(exact, careful, strict=True):
        np.testing.assert_array_equal(test, same_test)
        assert gaps(groups[train], groups[test]).min() == 10
        assert gaps(groups[less], groups[test]).min() == 35


def test_rolling_training_keeps_its_length():
    groups = groups_of(100)
    splitter = WalkForward(None, purge=6, train_size=30, test_size=10, rolling=True)
    for train, test in splitter.split(None, groups=groups):
        assert len(np.unique(groups[train])) == 30
        assert len(np.unique(groups[test])) <= 10
        assert gaps(groups[train], groups[test]).min() == 7


@given(
    purge=st.integers(0, 6),
    embargo=st.integers(0, 5),
    folds=st.sampled_from([(3, 2), (5, 2), (6, 4)]),
    calendar=st.sampled_from([None, CALENDAR]),
)
def test_combinations_of_folds_are_purged_on_both_sides(purge, embargo, folds, calendar):
    pytest.importorskip("skfolio")
    n_folds, n_test_folds = folds
    groups = groups_of(120, every=3)
    splitter = CombinatorialPurged(
        n_folds, n_test_folds, purge=purge, embargo=embargo, calendar=calendar
    )
    splits = list(splitter.split(np.zeros(len(groups)), groups=groups))
    assert len(splits) == splitter.get_n_splits()
    assert len(splits) == len(list(itertools.combinations(range(n_folds), n_test_folds)))
    times_tested = np.zeros(len(groups), int)
    for train, test in splits:
        times_tested[test] += 1
        distance = places(groups[train])[:, None] - places(groups[test])
        assert np.abs(distance).min() > purge
        after = distance[distance > 0]
        assert not after.size or after.min() > purge + embargo
    assert (times_tested == splitter.n_paths).all()
    assert splitter.path_ids().shape == (len(splits), n_test_folds)
    assert set(splitter.path_ids().ravel()) == set(range(splitter.n_paths))


def test_cuts_at_dates_leave_out_what_the_labels_reach_into():
    groups = groups_of(100)
    splitter = Chronological(CALENDAR[49], CALENDAR[69], purge=6)
    train, valid, test = (groups[part] for part in splitter.parts(groups))
    assert (train.min(), train.max()) == (CALENDAR[0], CALENDAR[43])
    assert (valid.min(), valid.max()) == (CALENDAR[50], CALENDAR[63])
    assert (test.min(), test.max()) == (CALENDAR[70], CALENDAR[99])
    ((first, second),) = splitter.split(None, groups=groups)
    np.testing.assert_array_equal(groups[first], train)
    np.testing.assert_array_equal(groups[second], valid)
    assert splitter.get_n_splits() == 1


def test_without_a_test_all_that_follows_is_validation():
    groups = groups_of(30)
    train, valid, test = Chronological(str(CALENDAR[9]), purge=2).parts(groups)
    assert groups[train].max() == CALENDAR[7]
    assert (groups[valid].min(), groups[valid].max()) == (CALENDAR[10], CALENDAR[29])
    assert not len(test)


def test_purging_comes_from_the_label():
    for splitter in (
        WalkForward.for_label(3, "same_close", n_splits=4),
        CombinatorialPurged.for_label(3, "same_close", n_folds=4),
        Chronological.for_label(3, "same_close", train_end="2020-01-31"),
    ):
        assert splitter.purge == last_known(3, "same_close") == 3
    assert WalkForward.for_label().purge == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda groups: groups.astype("datetime64[ns]"),
        lambda groups: groups.astype(str),
        lambda groups: groups.astype(object),
        pd.DatetimeIndex,
        places,
    ],
)
def test_dates_may_be_of_any_kind(change):
    groups = groups_of(60)
    expected = WalkForward(3, purge=2).split(None, groups=groups)
    found = WalkForward(3, purge=2).split(None, groups=change(groups))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("routing", [False, True])
def test_scikit_learn_searches_with_them(routing):
    rng = np.random.default_rng(0)
    groups = groups_of(60)
    X, y = rng.normal(size=(len(groups), 3)), rng.normal(size=len(groups))
    splitter = WalkForward(3, purge=2)
    assert check_cv(splitter) is splitter
    with sklearn.config_context(enable_metadata_routing=routing):
        search = GridSearchCV(Ridge(), {"alpha": [1.0, 10.0]}, cv=splitter)
        search.fit(X, y, groups=groups)
        given = {"params": {"groups": groups}} if routing else {"groups": groups}
        scores = cross_val_score(Ridge(), X, y, cv=splitter, **given)
    assert search.n_splits_ == len(scores) == 3
    assert repr(splitter).startswith("WalkForward(calendar=None, embargo=0, n_splits=3, purge=2")


GROUPS = groups_of(30)


@pytest.mark.parametrize(
    ("splitter", "groups", "message"),
    [
        (WalkForward(purge=1), None, "pass groups=dates"),
        (WalkForward(purge=1), GROUPS[:5], rf"dates of {len(GROUPS)} samples; got \(5,\)"),
        (WalkForward(purge=1), np.linspace(0, 1, len(GROUPS)), "groups of dates.*float64"),
        (WalkForward(purge=1), np.full(len(GROUPS), np.datetime64("NaT", "D")), "none of them mis"),
        (
            WalkForward(purge=1),
            ["then"] * len(GROUPS),
            "dates such as .* in the groups; got 'then'",
        ),
        (WalkForward(purge=-1), GROUPS, "purge as a whole number of at least 0; got -1"),
        (WalkForward(purge=1, embargo=0.5), GROUPS, "embargo as a whole number"),
        (WalkForward(purge=1, calendar=CALENDAR[:9]), GROUPS, "21 dates of the samples are not in"),
        (WalkForward(0, purge=1), GROUPS, "n_splits as a whole number of at least 1; got 0"),
        (WalkForward(40, purge=1), GROUPS, r"test_size \(of 30 dates\).*got 0"),
        (WalkForward(3, purge=1, test_size=10), GROUPS, "3 tests of 10 dates leave none of 30"),
        (WalkForward(5, purge=6), GROUPS, "Split 0 of WalkForward.* no dates for training"),
        (WalkForward(purge=1, rolling=True), GROUPS, "train_size as a whole number.*got None"),
        (WalkForward(None, purge=1), GROUPS, r"test_size \(without n_splits\).*got None"),
        (WalkForward(None, purge=1, test_size=5, train_size=30), GROUPS, "samples have 30 dates"),
        (Chronological("2019-01-01", purge=1), GROUPS, "Split 0.*no dates for training"),
        (Chronological("2030-01-01", purge=1), GROUPS, "Split 0.*no dates for test"),
        (Chronological("2020-01-15", "2020-01-10", purge=1), GROUPS, "is before train_end"),
        (Chronological("2020-01-15", purge=1), places(GROUPS), "Expected dates as groups, to cut"),
        (Chronological("then", purge=1), GROUPS, "as dates such as 2018-12-31; got 'then'"),
        (CombinatorialPurged(10, purge=2), GROUPS, "Folds of 3 dates are too short to purge 2"),
    ],
)
def test_what_cannot_be_split_is_refused(splitter, groups, message):
    with pytest.raises(InvalidInputError, match=message):
        list(splitter.split(np.zeros(len(GROUPS)), groups=groups))


ZONED = {
    "series": pd.Series,
    "index": lambda days: days,
    "objects": lambda days: np.array(list(days), dtype=object),
    "text": lambda days: [day.isoformat() for day in days],
}


@pytest.mark.parametrize("clock", ["0h", "16h"])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("form", ZONED)
def test_a_day_is_what_it_is_in_its_time_zone(form, zone, clock):
    def zoned(dates):
        return (pd.DatetimeIndex(dates) + pd.Timedelta(clock)).tz_localize(zone)

    end = np.datetime64("2020-01-20")
    for plain, zonal in (
        (WalkForward(3, purge=1), WalkForward(3, purge=1)),
        (
            WalkForward(3, purge=1, calendar=CALENDAR),
            WalkForward(3, purge=1, calendar=ZONED[form](zoned(CALENDAR))),
        ),
        (Chronological(end, purge=1), Chronological(zoned([end])[0], purge=1)),
    ):
        expected = list(plain.split(None, groups=GROUPS))
        found = list(zonal.split(None, groups=ZONED[form](zoned(GROUPS))))
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


def test_what_skfolio_refuses_is_our_error():
    pytest.importorskip("skfolio")
    with pytest.raises(InvalidInputError, match="Cannot make these splits: `n_test_folds`"):
        CombinatorialPurged(3, 1, purge=2).get_n_splits()
