"""The panel: what it takes, what it refuses, and what it gives back."""

from __future__ import annotations

import copy

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scikd.exceptions import CorruptFileError, DoubtfulInputWarning, InvalidInputError
from scikd.finance import Panel, make_panel
from scikd.persistence import save_bundle

DAYS = np.array(["2020-01-02", "2020-01-03", "2020-01-06"], dtype="datetime64[D]")
CLOSE = np.array([[10.0, 20.0], [11.0, np.nan], [12.0, 21.0]])


def panel(**changes):
    return Panel(**{"dates": DAYS, "assets": ("A", "B"), "fields": {"close": CLOSE}, **changes})


def long_frame(**columns):
    frame = pd.DataFrame(
        {
            "date": ["2020-01-02", "2020-01-03", "2020-01-02", "2020-01-03"],
            "ticker": ["B", "B", "A", "A"],
            "close": [1.0, 2.0, 3.0, 4.0],
        }
    )
    return frame.assign(**columns)


def same(first, second):
    assert first.assets == second.assets
    assert first.fields.keys() == second.fields.keys()
    np.testing.assert_array_equal(first.dates, second.dates)
    np.testing.assert_array_equal(first.member, second.member)
    for field, values in first.fields.items():
        np.testing.assert_array_equal(values, second.fields[field])


def test_it_holds_what_it_was_given_and_nobody_can_change_it():
    close = CLOSE.copy()
    made = panel(fields={"volume": CLOSE, "close": close})
    close[0, 0] = 99.0
    assert made.close[0, 0] == 10.0
    assert list(made.fields) == ["close", "volume"]
    assert (made.n_dates, made.n_assets, made.open) == (3, 2, None)
    with pytest.raises(ValueError, match="read-only"):
        made.close[0, 0] = 1.0
    with pytest.raises(TypeError, match="item assignment"):
        made.fields["open"] = CLOSE
    assert made.member.tolist() == [[True, True], [True, False], [True, True]]


@pytest.mark.parametrize(
    "view_of",
    [
        lambda base: base[:],
        lambda base: base.view()[:3][:],
        lambda base: np.frombuffer(memoryview(base).cast("B")).reshape(base.shape),
    ],
)
def test_what_a_locked_view_is_of_cannot_change_it(view_of):
    base = CLOSE.copy()
    view = view_of(base)
    view.flags.writeable = False
    made = panel(fields={"close": view})
    base[0, 0] = 99.0
    assert made.close[0, 0] == 10.0


def test_what_nobody_can_write_to_is_not_copied():
    close = CLOSE.copy()
    close.flags.writeable = False
    kept = np.frombuffer(CLOSE.tobytes()).reshape(CLOSE.shape)  # bytes never change
    for values in (close, close[:], kept):
        assert np.shares_memory(panel(fields={"close": values}).close, values)


def test_returns_are_those_of_adjacent_rows():
    np.testing.assert_allclose(
        panel().returns(), [[np.nan, np.nan], [0.1, np.nan], [12 / 11 - 1, np.nan]]
    )


def test_repr_says_what_it_holds():
    text = repr(panel(name="two"))
    assert "'two', 3 dates from 2020-01-02 to 2020-01-06, 2 assets, fields close" in text
    assert "16.7% of closes missing (1 of them between" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dates": DAYS[::-1]}, r"dates that increase; row 1 \(2020-01-03\) follows 2020-01-06"),
        ({"dates": DAYS[[0, 0, 1]]}, r"dates that increase; row 1"),
        ({"dates": [*DAYS[:2], "NaT"]}, r"Date 2 is missing"),
        ({"dates": ["x", "y", "z"]}, r"dates as an array of datetime64\[D\]"),
        ({"dates": []}, r"Expected dates and assets; got dates \(0,\)"),
        ({"assets": ("B", "A")}, r"distinct and sorted"),
        ({"assets": ("A", "A")}, r"distinct and sorted"),
        ({"assets": (1, 2)}, r"names of assets as text; got 1"),
        ({"fields": {"open": CLOSE}}, r"close among them; got open"),
        ({"fields": {"close": CLOSE, "vwap": CLOSE}}, r"Expected fields among open high"),
        ({"fields": {"close": CLOSE[:2]}}, r"close of shape \(3, 2\) \(dates, assets\); got"),
        ({"fields": {"close": [["a", 1]] * 3}}, r"close as an array of float64"),
        ({"fields": {"close": -CLOSE}}, r"close is negative in 5 cells \('A' on 2020-01-02; "),
        ({"fields": {"close": CLOSE - 11}}, r"changes its sign within 1 assets.*subtraction"),
        ({"fields": {"close": CLOSE - 10}}, r"is 0 in 1 cells \('A' on 2020-01-02\).*missing_zero"),
        ({"fields": {"close": CLOSE * np.inf}}, r"close is infinite in 5 cells"),
        ({"fields": {"close": CLOSE, "volume": -CLOSE}}, r"volume is negative in 5 cells"),
        ({"member": np.ones((3, 2))}, r"mask of bool and shape \(3, 2\); got float64"),
        ({"member": np.ones((2, 2), bool)}, r"shape \(3, 2\); got bool of shape \(2, 2\)"),
    ],
)
def test_what_cannot_be_used_is_refused(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        panel(**changes)


def test_all_faults_are_named_at_once():
    with pytest.raises(InvalidInputError, match="open is 0 in 1 .*; close is infinite in 1 "):
        panel(fields={"open": CLOSE - 10, "close": np.where(CLOSE == 12, np.inf, CLOSE)})


def test_a_long_frame_is_spread_over_dates_and_assets():
    made = Panel.from_long(long_frame(volume=[0, 5, 6, 7]), name="n")
    assert made.assets == ("A", "B")
    assert made.close.tolist() == [[3.0, 1.0], [4.0, 2.0]]
    assert made.fields["volume"].tolist() == [[6.0, 0.0], [7.0, 5.0]]
    assert made.name == "n"


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.rename(columns={"date": "Date", "ticker": "Symbol", "close": "Close"}),
        lambda frame: frame.sort_values("date"),
        lambda frame: frame.sort_values(["ticker", "date"]),
        lambda frame: frame.set_index(["date", "ticker"]),
        lambda frame: frame.set_index(["ticker", "date"]),
        lambda frame: frame.set_index(["date", "ticker"]).rename_axis([None, None]),
        lambda frame: frame.assign(date=pd.to_datetime(frame["date"])),
        lambda frame: frame.assign(date=pd.to_datetime(frame["date"])).set_index("date"),
        lambda frame: frame.assign(date=frame["date"].str.replace("-", "")),
        lambda frame: frame.assign(date=frame["date"].str.replace("-", "").astype(int)),
        lambda frame: frame.assign(date=frame["date"].str.replace("-", "/")),
        lambda frame: frame.assign(date=frame["date"] + [" 00:00:00-05:00", "T00:00-04:00"] * 2),
        lambda frame: frame.assign(date=pd.to_datetime(frame["date"]).dt.date),
        lambda frame: frame.assign(
            date=pd.to_datetime(frame["date"] + " 16:00").dt.tz_localize("America/New_York")
        ),
        lambda frame: frame.rename(columns={"close": "adj_close"}),
        lambda frame: frame.astype({"close": "Float64", "ticker": "category"}),
    ],
)
def test_usual_spellings_of_a_long_frame_are_understood(change):
    same(Panel.from_long(change(long_frame())), Panel.from_long(long_frame()))


def test_other_names_of_columns_can_be_given():
    frame = long_frame().rename(columns={"date": "d", "ticker": "who"})
    same(Panel.from_long(frame, date="d", asset="who"), Panel.from_long(long_frame()))
    with pytest.raises(InvalidInputError, match="no column 'when' among"):
        Panel.from_long(frame, date="when")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"close": [1.0]}, "pandas DataFrame with rows of dates; got a dict"),
        (long_frame().iloc[:0], "got one without rows"),
        (long_frame().drop(columns="date"), "Found no column for date among"),
        (long_frame().drop(columns="ticker"), "Found no column for asset among"),
        (long_frame().drop(columns="close"), "Found no close among the columns"),
        (long_frame(Close=1.0, CLOSE=2.0).drop(columns="close"), "can all be the close"),
        (long_frame(close=["1", "2", "3", "x"]), "Expected numbers in close"),
        (long_frame(date="tomorrow"), "Expected dates such as 2015-01-12 .* rows; got 'tomorrow'"),
        (long_frame(date="01/02/2020"), "got '01/02/2020'"),
        (long_frame(date="2020-13-02"), "in the rows: Month out of range"),
        (long_frame(date=[None, "2020-01-03"] * 2), r"2 have none \(0, 2\)"),
        (long_frame(date=[1, 2, 1, 2]), "Expected dates such as 2015-01-12"),
        (long_frame(ticker=["A", None, "B", "C"]), "1 have none, such as row 1"),
        (long_frame(ticker=["A", "", "B", "C"]), "1 have none, such as row 1"),
        (
            pd.concat([long_frame(), long_frame().iloc[[2]]]),
            r"1 rows repeat one, such as 'A' on 2020-01-02 \(row 4\)",
        ),
        (
            long_frame().iloc[[0, 2, 3, 1]].iloc[::-1],
            r"of 'A' row 2 \(2020-01-02\) follows row 1 \(2020-01-03\), and 2 rows in all .* Sort",
        ),
        (long_frame().iloc[::-1].set_index(["date", "ticker"]), r"of 'A' row 1 .*follows row 0"),
        (long_frame(close=[1, 2, 0, 4]), r"close is 0 in 1 cells \(row 2, 'A' on 2020-01-02\)"),
        (long_frame(close=[1, 2, -3, 4]), r"changes its sign.*row 2, 'A' on 2020-01-02.*returns="),
        (long_frame(open=[1, 0, 3, 4]), r"open is 0 in 1 cells \(row 1, 'B' on 2020-01-03\)"),
    ],
)
def test_a_long_frame_that_cannot_be_used_is_refused(frame, message):
    with pytest.raises(InvalidInputError, match=message):
        Panel.from_long(frame)


def test_zeros_become_missing_where_told_so():
    made = Panel.from_long(long_frame(open=[1, 0, 3, 4], volume=0), missing_zero=True)
    np.testing.assert_array_equal(made.open, [[3, 1], [4, np.nan]])
    assert (made.fields["volume"] == 0).all()


def test_prices_are_scaled_by_the_adjusted_close():
    frame = long_frame(open=[2.0, 2.0, 2.0, 2.0], volume=7, adj_close=[0.5, 2.0, 3.0, 2.0])
    made = Panel.from_long(frame)
    assert made.close.tolist() == [[3.0, 0.5], [2.0, 2.0]]
    assert made.open.tolist() == [[2.0, 1.0], [1.0, 2.0]]
    assert (made.fields["volume"] == 7).all()
    assert Panel.from_long(frame, adjusted=False).close.tolist() == [[3.0, 1.0], [4.0, 2.0]]
    with pytest.raises(InvalidInputError, match="needs an adjusted close"):
        Panel.from_long(long_frame(), adjusted=True)
    with pytest.raises(InvalidInputError, match="adjusted to be 'auto', True or False; got 'yes'"):
        Panel.from_long(frame, adjusted="yes")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"high": [9, 9, 9, 1], "low": [1, 1, 1, 2]},
            r"close above high in 1 cells \(row 3, 'A' on 2020-01-03\); high below low in 1 cells",
        ),
        ({"high": [9, 9, 2, 9]}, r"close above high in 1 cells \(row 2, 'A' on 2020-01-02\)"),
        ({"low": [3, 1, 1, 1]}, r"close below low in 1 cells \(row 0, 'B' on 2020-01-02\)"),
        ({"low": 1, "open": 0.5}, r"open below low in 4 cells \(.*; \.\.\.\)"),
    ],
)
def test_prices_that_contradict_each_other_are_kept_with_a_warning(columns, message):
    frame = long_frame(**columns)
    with pytest.warns(DoubtfulInputWarning, match=f"contradict each other: {message}") as caught:
        made = Panel.from_long(frame)
    assert [one.filename for one in caught] == [__file__]
    assert made.close.tolist() == [[3.0, 1.0], [4.0, 2.0]]


def test_prices_that_are_rounded_do_not_contradict_each_other():
    close = np.array([1.0, 2.0, 3.0, 4.0])
    Panel.from_long(long_frame(high=close * (1 - 5e-5), low=[1.00005, np.nan, 3.0, 1.0]))


def test_a_missing_adjusted_close_takes_no_price_away():
    frame = long_frame(adj_close=[np.nan, np.nan, 3.0, np.nan])
    message = (
        r"adjusted close beside each close; there is none in 3 cells \(row 3, 'A' on 2020-01-03; "
        r".*'B' on 2020-01-02; .*, of 2 assets \('A', 'B'\).* Fill adj_close .* adjusted=False"
    )
    matching = r"(?s)" + message.replace("row 3, 'A' on 2020-01-03; .*", ".*")
    with pytest.raises(InvalidInputError, match=matching):
        Panel.from_long(frame)
    assert Panel.from_long(frame, adjusted=False).close.tolist() == [[3.0, 1.0], [4.0, 2.0]]
    both = frame.assign(close=frame["adj_close"])  # a row without any price is no fault
    np.testing.assert_array_equal(Panel.from_long(both).close, [[3.0, np.nan], [np.nan, np.nan]])


@given(st.lists(st.floats(-0.5, 1.0), min_size=2, max_size=30), st.sampled_from([0.01, 1.0]))
def test_an_index_made_from_returns_has_these_returns(returns, unit):
    frame = pd.DataFrame(
        {
            "date": pd.date_range("2020-01-01", periods=len(returns)),
            "asset": "A",
            "close": -1.0,
            "open": 0.0,
            "change": np.array(returns) / unit,
        }
    )
    frame.loc[0, "change"] = np.nan
    name = {0.01: "percent", 1.0: "fraction"}[unit]
    made = Panel.from_long(frame.drop(columns="close"), returns="change", returns_unit=name)
    assert list(made.fields) == ["close"]
    assert made.close[0, 0] == 100.0
    np.testing.assert_allclose(made.returns()[1:, 0], returns[1:], atol=1e-12)


def test_an_index_from_returns_goes_on_after_a_gap():
    frame = long_frame(ret=[0.5, 0.5, 0.5, 0.5]).drop(index=1)
    frame = pd.concat([frame, pd.DataFrame({"date": ["2020-01-06"], "ticker": "B", "ret": 1.0})])
    made = Panel.from_long(frame, returns="ret", returns_unit="fraction")
    nan = np.nan
    np.testing.assert_array_equal(made.close, [[100, 100], [150, nan], [nan, 200]])


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"ret": 0.1}, {}, "returns_unit='percent'.*got None"),
        ({"ret": 0.1}, {"returns_unit": "bp"}, "got 'bp'"),
        ({"ret": -150.0}, {"returns_unit": "percent"}, r"-100 % or less in 2 cells \(row 3, 'A'"),
        ({"ret": [0.1, np.nan] * 2}, {"returns_unit": "fraction"}, "there is none in 2 cells"),
        ({}, {"returns_unit": "fraction"}, "no column 'ret' among"),
        (
            {"close": [-2.0, -1.0, -4.0, -1.0], "ret": [0.0, 50.0, 0.0, 75.0]},
            {"returns_unit": "percent"},
            "2 of 2 are the change of the close over its size",
        ),
    ],
)
def test_returns_that_cannot_be_used_are_refused(changes, options, message):
    with pytest.raises(InvalidInputError, match=message):
        Panel.from_long(long_frame(**changes), returns="ret", **options)


def wide_frame(values=CLOSE, days=DAYS, assets=("A", "B")):
    return pd.DataFrame(values, index=pd.DatetimeIndex(days), columns=list(assets))


def test_wide_frames_of_several_fields_are_taken():
    volume = wide_frame(np.ones((2, 1)), DAYS[:2], ["B"])
    made = Panel.from_wide(wide_frame()[["B", "A"]], volume=volume)
    nan = np.nan
    np.testing.assert_array_equal(made.close, CLOSE)
    np.testing.assert_array_equal(made.fields["volume"], [[nan, 1], [nan, 1], [nan, nan]])


@pytest.mark.parametrize("swap", [False, True])
def test_a_wide_frame_with_fields_in_its_columns_is_taken_apart(swap):
    fields = {"Open": wide_frame() * 2, "Close": wide_frame(), "Adj Close": wide_frame() / 2}
    frame = pd.concat(fields, axis=1)
    made = Panel.from_wide(frame.swaplevel(axis=1) if swap else frame)
    np.testing.assert_array_equal(made.close, CLOSE / 2)
    np.testing.assert_array_equal(made.open, CLOSE)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({"close": CLOSE}, "close as a pandas DataFrame of dates x assets; got a ndarray"),
        ({"close": wide_frame().iloc[:0]}, r"Expected dates x assets; close has the shape \(0, 2"),
        ({"close": wide_frame().iloc[::-1]}, r"row 1 \(2020-01-03\) follows 2020-01-06, and 2"),
        ({"close": wide_frame(days=DAYS[[0, 0, 1]])}, "out of order or repeated"),
        ({"close": wide_frame(assets=("A", "A"))}, "one column for each asset; close repeats A"),
        (
            {"close": wide_frame(), "open": wide_frame(assets=("A", "C"))},
            r"assets of close; it has 1 further assets \(C\)\. Leave",
        ),
        ({"close": wide_frame() * 0}, r"close is 0 in 5 cells \('A' on 2020-01-02; "),
        ({"close": pd.concat({"x": wide_frame()}, axis=1)}, r"got \[\('x', 'A'\), \('x', 'B'\)\]"),
    ],
)
def test_wide_frames_that_cannot_be_used_are_refused(frames, message):
    with pytest.raises(InvalidInputError, match=message):
        Panel.from_wide(**frames)


def intervals(rows):
    return pd.DataFrame(rows, columns=["ticker", "start_date", "end_date"])


def test_members_come_from_intervals_without_their_ends():
    rows = [
        ("A", "2019-01-01", "2020-01-03"),
        ("A", "2020-01-06", None),
        ("B", "2020-01-03", "2020-01-04"),
        ("Z", "2000-01-01", None),
    ]
    made = panel().with_members(intervals(rows))
    assert made.member.tolist() == [[True, False], [False, True], [True, False]]


def test_members_come_from_a_mask_or_a_frame_of_flags():
    mask = np.array([[True, False], [False, True], [True, True]])
    np.testing.assert_array_equal(panel().with_members(mask).member, mask)
    flags = wide_frame(mask).drop(index=pd.Timestamp("2020-01-06")).assign(Z=True)
    made = panel().with_members(flags)
    assert made.member.tolist() == [[True, False], [False, True], [False, False]]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (np.ones((3, 2)), "mask of bool"),
        ("members.csv", r"read_members reads from a file; got a str of <U11 and shape \(\)"),
        ([[True], [True, False]], "mask of bool .* got a list of object"),
        (pd.Series([True, True, False]), r"got a Series of bool and shape \(3,\)"),
        (intervals([("Z", "2000-01-01", None)]), r"shares no asset with the panel: it has \['Z'\]"),
        (intervals([("A", "2020-01-03", "2020-01-02")]), "row 0 runs from 2020-01-03 to 2020-01-0"),
        (intervals([("A", None, None)]), "starts of intervals; 1 have none"),
        (intervals([("A", "2020-01-03", None)]).drop(columns="end_date"), "one column for the end"),
        (wide_frame(np.ones((3, 2), bool), assets="YZ"), "shares no asset"),
        (wide_frame(np.full((3, 2), 2)), "True or False, or 0 or 1"),
        (wide_frame(np.ones((3, 2), bool), assets="AA"), "each date and asset once"),
    ],
)
def test_members_that_cannot_be_used_are_refused(members, message):
    with pytest.raises(InvalidInputError, match=message):
        panel().with_members(members)


def test_dates_and_assets_can_be_selected():
    made = panel().select(dates=("2020-01-03", None), assets=["B"])
    assert (made.n_dates, made.assets) == (2, ("B",))
    same(made, panel().select(slice(1, None), ["B"]))
    same(panel().select((None, "2020-01-05")), panel().select(slice(2)))
    tokyo = pd.Timestamp("2020-01-03", tz="Asia/Tokyo")
    same(panel().select((tokyo, None)), panel().select(slice(1, None)))
    same(panel().select(), panel())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assets": ["A", "Z"]}, r"no assets \['Z'\] \(1 are unknown\)"),
        ({"dates": ("2021-01-01", None)}, "Expected dates and assets"),
        ({"dates": "2020"}, "slice of rows or .first, last.; got '2020'"),
    ],
)
def test_what_is_not_there_cannot_be_selected(options, message):
    with pytest.raises(InvalidInputError, match=message):
        panel().select(**options)


@given(st.integers(0, 5))
def test_a_panel_comes_back_from_a_long_frame_a_wide_one_and_other_processes(seed):
    made = make_panel(30, 4, seed=seed, gaps=0.2, delistings=2).panel
    frame = made.to_long()
    assert frame["member"].all()
    mixed = frame.sample(frac=1, random_state=seed)
    back = Panel.from_long(mixed.sort_values("date"))  # assets of a date in any order
    days = np.isin(made.dates, back.dates)
    assert np.isnan(made.close[~days]).all()
    np.testing.assert_array_equal(back.close, made.close[days])
    wide = {
        name: pd.DataFrame(values, index=pd.DatetimeIndex(made.dates), columns=made.assets)
        for name, values in made.fields.items()
    }
    same(Panel.from_wide(**wide), made)
    same(copy.deepcopy(made), made)


def test_a_panel_can_be_sent_to_other_processes():
    made = panel()
    (back,) = joblib.Parallel(n_jobs=2)([joblib.delayed(Panel.select)(made)])
    same(back, made)


def test_a_saved_panel_is_loaded_again(tmp_path):
    made = panel(name="kept").with_members(np.eye(3, 2, dtype=bool))
    back = Panel.load(made.save(tmp_path / "panel"))
    same(back, made)
    assert back.name == "kept"


def test_a_bundle_that_holds_no_valid_panel_is_refused(tmp_path):
    arrays = {"dates": np.array([2, 1]), "member": np.ones((2, 1), bool)}
    save_bundle(
        tmp_path / "panel",
        kind="scikd.finance.panel",
        parameters={"assets": ["A"], "name": ""},
        arrays={**arrays, "field.close": np.ones((2, 1))},
    )
    with pytest.raises(CorruptFileError, match="holds no valid panel: Expected dates that"):
        Panel.load(tmp_path / "panel")
