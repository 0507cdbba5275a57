"""Files of prices, members and scores."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from scikd.exceptions import CorruptFileError, DoubtfulInputWarning, InvalidInputError, StorageError
from scikd.finance import Panel, align_scores, make_panel, read_members, read_panel, read_scores


@pytest.fixture(scope="module")
def panel():
    return make_panel(12, 3, gaps=0.1).panel


@pytest.fixture(scope="module")
def scores(panel):
    rng = np.random.default_rng(0)
    values = rng.normal(size=panel.close.shape)
    values[rng.random(values.shape) < 0.2] = np.nan
    return values


def long_scores(panel, scores, asset="asset", score="score"):
    t, n = np.nonzero(np.isfinite(scores))
    names = np.array(panel.assets)[n]
    return pd.DataFrame({"date": panel.dates[t], asset: names, score: scores[t, n]})


def wide_scores(panel, scores):
    return pd.DataFrame(scores, index=pd.DatetimeIndex(panel.dates), columns=panel.assets)


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz", "p.tsv", "p.parquet"])
def test_long_prices_are_read(tmp_path, panel, name):
    frame = panel.to_long().drop(columns="member")
    if name.endswith("parquet"):
        frame.to_parquet(tmp_path / name)
    else:
        frame.to_csv(tmp_path / name, index=False, sep="\t" if "tsv" in name else ",")
    back = read_panel(tmp_path / name)
    assert back.name == "p"
    assert back.fields.keys() == panel.fields.keys()
    np.testing.assert_allclose(back.close, panel.close, rtol=1e-15)


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_wide_prices_are_read(tmp_path, panel, name):
    frame = wide_scores(panel, panel.close)
    frame.to_parquet(tmp_path / name) if "parquet" in name else frame.to_csv(tmp_path / name)
    back = read_panel(tmp_path / name, name="mine")
    assert (back.name, list(back.fields)) == ("mine", ["close"])
    np.testing.assert_allclose(back.close, panel.close, rtol=1e-15)


def test_wide_parquet_may_have_dates_of_any_kind_in_its_index(tmp_path, panel):
    frame = wide_scores(panel, panel.close)
    for kind in (panel.dates.astype(object), panel.dates.astype(str)):
        frame.set_axis(kind, axis=0).to_parquet(tmp_path / "p.parquet")
        np.testing.assert_array_equal(read_panel(tmp_path / "p.parquet").dates, panel.dates)


def test_names_of_assets_stay_text(tmp_path):
    (tmp_path / "p.csv").write_text(
        "date,code,close,volume\n2020-01-02,000001,1,NA\n2020-01-02,NA,2,5\n2020-01-02,nan,3,\n"
    )
    back = read_panel(tmp_path / "p.csv")
    assert back.assets == ("000001", "NA", "nan")
    np.testing.assert_array_equal(back.fields["volume"], [[np.nan, 5, np.nan]])


@pytest.mark.parametrize("ticker", ["CODE", "Stock", "ASSET", "symbol"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_wide_table_may_have_a_ticker_that_reads_like_a_column_of_assets(
    tmp_path, panel, scores, ticker, ending
):
    assets = ["A0", ticker, "LOW"]

    def written(values):
        frame = wide_scores(panel, values).set_axis(assets, axis=1).rename_axis("date")
        path = tmp_path / f"p.{ending}"
        frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path)
        return path

    read = read_panel(written(panel.close))
    assert read.assets == tuple(sorted(assets))
    np.testing.assert_allclose(read.close[:, read.assets.index(ticker)], panel.close[:, 1])
    own = dict(zip(assets, scores.T, strict=True))
    found = read_scores(written(scores), read)
    np.testing.assert_allclose(found, np.column_stack([own[name] for name in read.assets]))


@pytest.mark.parametrize(
    "text",
    [
        "date,code,close\n2020-01-02,7,1\n2020-01-03,7,2\n",  # one asset with a number for a name
        "date,code,close\n2020-01-02,7,1\n2020-01-03,8,2\n",
        "date,code,ret\n2020-01-02,7,0.1\n2020-01-03,8,0.1\n",
    ],
)
def test_a_long_table_may_name_its_assets_by_numbers(tmp_path, text):
    (tmp_path / "p.csv").write_text(text)
    options = {} if "close" in text else {"returns": "ret", "returns_unit": "fraction"}
    assert read_panel(tmp_path / "p.csv", **options).assets[0] == "7"


def test_a_long_table_without_prices_is_told_from_a_wide_one(tmp_path):
    (tmp_path / "p.csv").write_text("date,ticker,px\n2020-01-02,A,1\n2020-01-03,A,2\n")
    with pytest.raises(InvalidInputError, match="Found no close"):
        read_panel(tmp_path / "p.csv")


def test_long_scores_may_have_any_name_where_dates_repeat(tmp_path, panel):
    days = panel.dates[[0, 0, 1]].astype(str)
    frame = pd.DataFrame({"date": days, "code": ["7", "8", "7"], "mine": [1.0, 2.0, 3.0]})
    frame.to_csv(tmp_path / "s.csv", index=False)
    numbered = Panel(panel.dates, ("7", "8"), {"close": panel.close[:, :2]})
    found = read_scores(tmp_path / "s.csv", numbered)
    assert found[[0, 0, 1], [0, 1, 0]].tolist() == [1.0, 2.0, 3.0]


def test_options_are_passed_on(tmp_path):
    (tmp_path / "p.csv").write_text("day,who,close\n2020-01-02,07,0\n2020-01-03,07,2\n")
    back = read_panel(tmp_path / "p.csv", asset="who", missing_zero=True)
    assert back.assets == ("07",)
    np.testing.assert_array_equal(back.close, [[np.nan], [2]])


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.csv", None, StorageError, "Could not read .*none.csv: No such file"),
        ("p.json", b"{}", InvalidInputError, "ends in .csv, .*; got .*p.json"),
        ("p.csv", b"", CorruptFileError, "p.csv is empty: .* Write it again"),
        ("p.csv", b"\n\n", CorruptFileError, "p.csv is empty"),
        ("p.parquet", b"", CorruptFileError, "p.parquet is empty"),
        ("p.csv.gz", gzip.compress(b""), CorruptFileError, "p.csv.gz is empty"),
        (
            "p.csv",
            b"date;asset;open;close\n2020-01-02;A;1,5;2,5\n",
            InvalidInputError,
            r"p.csv separated by ','; it seems to be by ';' .*'date;asset;open;close'.*sep=';'",
        ),
        ("p.csv", b"date;A\n2020-01-02;1.5\n", InvalidInputError, "seems to be by ';'"),
        ("p.txt", b"date\tA\n2020-01-02\t1\n", InvalidInputError, r"by '\\t' .*ends in .tsv"),
        ("p.tsv", b"date,A\n2020-01-02,1\n", InvalidInputError, r"by ','.*sep=','"),
        ("p.csv", b"date,asset\n1,2,3,4\n1\n1,2,3,4,5,6\n", CorruptFileError, "garbled"),
        ("p.csv", b"\xff\xfe\x00", CorruptFileError, "garbled"),
        ("p.csv.gz", gzip.compress(b"date,asset\n" * 999)[:20], CorruptFileError, "garbled"),
        ("p.csv.gz", b"date,asset,close", CorruptFileError, "garbled"),
        ("p.parquet", b"PAR1", CorruptFileError, "garbled"),
        ("p.csv", b"date,A,A\n2020-01-02,1,2\n", InvalidInputError, "each column .* A are repeat"),
        ("p.csv", b"close\n1\n", InvalidInputError, "dates in the first column"),
        ("p.csv", b"x,A\n7,1\n", InvalidInputError, "Expected dates such as 2015-01-12"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        read_panel(tmp_path / name)


def test_members_are_read(tmp_path, panel):
    (tmp_path / "m.csv").write_text(
        "ticker,start_date,end_date\nA0,2000-01-04,2000-01-06\nNA,1999-01-01,\nA1,1999-01-01,\n"
    )
    table = read_members(tmp_path / "m.csv")
    assert table["asset"].tolist() == ["A0", "NA", "A1"]
    assert table["end"].isna().tolist() == [False, True, True]
    member = panel.with_members(table).member
    assert member[:, 1].all()
    assert not member[:, 2].any()
    assert np.flatnonzero(member[:, 0]).tolist() == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda panel, scores: scores,
        lambda panel, scores: scores.tolist(),
        wide_scores,
        lambda panel, scores: wide_scores(panel, scores).iloc[:, ::-1],
        long_scores,
        lambda panel, scores: long_scores(panel, scores, "ticker", "prediction"),
        lambda panel, scores: long_scores(panel, scores, "symbol", "mine"),
        lambda panel, scores: long_scores(panel, scores).assign(rank=1),
        lambda panel, scores: long_scores(panel, scores).sample(frac=1, random_state=0),
        lambda panel, scores: long_scores(panel, scores).set_index(["date", "asset"]),
        lambda panel, scores: long_scores(panel, scores).set_index(["date", "asset"])["score"],
    ],
)
def test_scores_of_any_form_are_laid_over_the_panel(panel, scores, change):
    np.testing.assert_array_equal(align_scores(change(panel, scores), panel), scores)


def test_some_dates_and_assets_may_have_no_scores(panel, scores):
    part = align_scores(wide_scores(panel, scores).iloc[3:6, [2]], panel)
    np.testing.assert_array_equal(part[3:6, 2], scores[3:6, 2])
    assert np.isfinite(part).sum() == np.isfinite(scores[3:6, 2]).sum()


@pytest.mark.parametrize("form", ["long", "wide"])
def test_scores_are_read(tmp_path, panel, scores, form):
    frame = long_scores(panel, scores) if form == "long" else wide_scores(panel, scores)
    frame.to_csv(tmp_path / "s.csv", index=form == "wide")
    np.testing.assert_allclose(read_scores(tmp_path / "s.csv", panel), scores, rtol=1e-15)


def strangers(panel, scores):
    """Return scores of which two assets and three dates are not in the panel."""
    extra = pd.DataFrame(
        {
            "date": ["1999-01-01", "2030-01-01", "2030-01-02", "2000-01-03", "2000-01-03"],
            "asset": ["A0", "A0", "A0", "Y", "Z"],
            "score": 1.0,
        }
    )
    return pd.concat([long_scores(panel, scores).astype({"date": str}), extra])


def test_scores_of_strangers_are_counted_or_dropped(panel, scores):
    frame = strangers(panel, scores)
    message = (
        r"2 of their assets are not in the panel \(Y, Z\), 2 of their dates are after the last "
        r"price of 2000-01-18 \(2030-01-01, 2030-01-02\), and 1 of their dates are no dates of the "
        r"panel \(1999-01-01\)"
    )
    with pytest.raises(InvalidInputError, match=message):
        align_scores(frame, panel)
    np.testing.assert_array_equal(align_scores(frame, panel, unknown="drop"), scores)


@pytest.mark.parametrize(
    ("asset", "day", "said"),
    [
        ("Z", None, r"1 of their assets are not in the panel \(Z\)"),
        (None, "2030-01-01", r"1 of their dates are after the last price of .* \(2030-01-01\)"),
        (None, "1999-01-01", r"1 of their dates are no dates of the panel \(1999-01-01\)"),
    ],
)
def test_only_strangers_that_there_are_are_counted(panel, scores, asset, day, said):
    wide = wide_scores(panel, scores)
    if asset is not None:
        wide[asset] = 1.0
    else:
        wide.loc[pd.Timestamp(day)] = 1.0
    with pytest.raises(InvalidInputError, match=rf"fit the prices: {said}\. Correct them"):
        align_scores(wide.sort_index(), panel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, s: s[:-1], r"scores of shape \(12, 3\) \(dates, assets\); got \(11, 3\)"),
        (lambda p, s: [["a"]], "Expected scores as numbers"),
        (lambda p, s: s * np.nan, "There is no score at all"),
        (lambda p, s: s + np.inf, r"\d+ are infinite, such as that of 'A0' on 2000-01-0"),
        (lambda p, s: long_scores(p, s).iloc[[0, 0]], "1 rows repeat one"),
        (lambda p, s: long_scores(p, s, score="a").assign(b=1), r"one column of scores.*'a', 'b'"),
        (lambda p, s: wide_scores(p, s).iloc[::-1], "Expected dates that increase"),
        (lambda p, s: wide_scores(p, s).astype(object).fillna("x"), "numbers in score"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(panel, scores, change, message):
    with pytest.raises(InvalidInputError, match=message):
        align_scores(change(panel, scores), panel)


def test_there_are_two_ways_to_treat_strangers(panel, scores):
    with pytest.raises(InvalidInputError, match="'raise' or 'drop'; got 'ignore'"):
        align_scores(scores, panel, unknown="ignore")


# ------------------------------------------------------------------------ files from outside


def test_sp500_is_adjusted_and_masked_to_its_members(scikd_data):
    folder = scikd_data("finance")
    contradictions = "close below low in 1 cells .*'DXC' on 2018-06-01.; open above high in 2 cells"
    with pytest.warns(DoubtfulInputWarning, match=contradictions):
        panel = read_panel(folder / "us_sp500_yahoo_482_2015_2020.csv.gz")
    assert (panel.n_dates, panel.n_assets) == (1259, 482)
    assert list(panel.fields) == ["open", "high", "low", "close", "volume"]
    n = panel.assets.index("A")
    assert panel.close[0, n] == 38.22322
    np.testing.assert_allclose(panel.open[0, n], 40.61 * 38.22322 / 40.11)
    assert (panel.fields["volume"] == 0).sum() == 434
    masked = panel.with_members(read_members(folder / "sp500_ticker_start_end.csv"))
    joined = masked.member[:, panel.assets.index("AMD")]
    np.testing.assert_array_equal(joined, panel.dates >= np.datetime64("2017-03-20"))
    # As a separate count on the same files found: 80 names that were not in yet, 5.4 % of cells.
    assert (~masked.member[0]).sum() == 80
    priced = ~np.isnan(panel.close)
    assert round((priced & ~masked.member).sum() / priced.sum(), 3) == 0.054


def test_returns_of_sse50_are_refused_where_they_come_from_negative_prices(scikd_data):
    path = scikd_data("finance/cn_sse50_qfq_50_1990_2022.csv.gz")
    with pytest.raises(InvalidInputError, match="close changes its sign within 26 assets"):
        read_panel(path)
    options = {"returns": "pct_change", "returns_unit": "percent"}
    with pytest.raises(InvalidInputError, match="computed from prices that were adjusted by sub"):
        read_panel(path, **options)
    frame = pd.read_csv(path, dtype={"ticker": str})
    recent = Panel.from_long(frame[frame["date"] >= "2016-01-01"], **options)
    assert (recent.n_assets, list(recent.fields)) == (50, ["close", "volume"])
    one = frame[(frame["ticker"] == "600519") & (frame["date"] > "2016-01-04")]
    rows = np.searchsorted(recent.dates, one["date"].to_numpy(dtype="datetime64[D]"))
    found = recent.returns()[rows, recent.assets.index("600519")]
    np.testing.assert_allclose(found, one["pct_change"] / 100, atol=1e-12)


def test_ftse_has_a_close_only(scikd_data):
    panel = read_panel(scikd_data("finance/uk_ftse100_adjclose_64_2000_2023.csv.gz"))
    assert (panel.n_dates, panel.n_assets, list(panel.fields)) == (5960, 64, ["close"])
    assert panel.close[0, panel.assets.index("AAL.L")] == 535.354


def test_japan_has_missing_cells(scikd_data):
    panel = read_panel(scikd_data("finance/jp_tse_100_2023_2025.csv.gz"))
    assert (panel.n_dates, panel.n_assets) == (519, 100)
    assert not panel.member[np.isnan(panel.close)].any()


def test_csi300_keeps_days_without_trade(scikd_data):
    panel = read_panel(scikd_data("finance/cn_csi300_yahoo_280_2025_2026.csv.gz"))
    assert panel.assets[0] == "000001"
    still = panel.fields["volume"] == 0
    assert still.sum() == 129
    assert np.isfinite(panel.close[still]).all()


def test_prices_of_skfolio_are_a_panel():
    datasets = pytest.importorskip("skfolio.datasets")
    frame = datasets.load_sp500_dataset()
    panel = Panel.from_wide(frame)
    assert (panel.n_dates, panel.n_assets, list(panel.fields)) == (*frame.shape, ["close"])
    np.testing.assert_array_equal(panel.close, frame[list(panel.assets)])
