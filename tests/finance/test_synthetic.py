"""Made-up markets: their signal is as strong as their closed form says."""

from __future__ import annotations

import numpy as np
import pytest

from scikd.exceptions import InvalidInputError
from scikd.finance import forward_returns, make_panel, tips_features


def test_the_same_seed_gives_the_same_market():
    first, second = make_panel(50, 5, seed=3), make_panel(50, 5, seed=3)
    np.testing.assert_array_equal(first.panel.close, second.panel.close)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert not np.array_equal(first.panel.close, make_panel(50, 5, seed=4).panel.close)


def test_gaps_and_delistings_leave_the_other_prices_alone():
    whole = make_panel(100, 20).panel
    panel = make_panel(100, 20, gaps=0.1, delistings=4).panel
    there = ~np.isnan(panel.close)
    np.testing.assert_array_equal(panel.close[there], whole.close[there])
    assert panel.fields.keys() == whole.fields.keys()
    assert all(np.array_equal(np.isnan(values), ~there) for values in panel.fields.values())
    last = np.array([np.flatnonzero(column)[-1] for column in there.T])
    assert ((last >= 49) & (last < 90)).sum() >= 3
    assert 0.05 < np.mean(~there[:49]) < 0.15


def test_prices_lie_within_their_day():
    fields = make_panel(300, 20).panel.fields
    assert (fields["high"] >= np.maximum(fields["open"], fields["close"])).all()
    assert (fields["low"] <= np.minimum(fields["open"], fields["close"])).all()


def test_only_the_fields_that_are_asked_for_are_there():
    assert list(make_panel(5, 2, fields=["volume"]).panel.fields) == ["close", "volume"]


@pytest.mark.parametrize("signal", [-0.3, 0.0, 0.1])
@pytest.mark.parametrize("horizon", [1, 5])
def test_the_scores_correlate_with_tradable_returns_as_they_should(signal, horizon):
    market = make_panel(4000, 50, signal=signal)
    labels = forward_returns(market.panel, horizon)
    known = np.isfinite(labels)
    found = np.corrcoef(market.scores[known], labels[known])[0, 1]
    assert market.information_coefficient(horizon) == signal / np.sqrt(horizon)
    # Five standard errors, wider as labels of five days overlap.
    error = np.sqrt(horizon / known.sum())
    assert abs(found - market.information_coefficient(horizon)) < 5 * error


def test_the_return_before_the_next_close_is_not_known():
    market = make_panel(4000, 50, signal=0.5)
    returns = market.panel.returns()
    for ahead, expected in ((0, 0.0), (1, 0.0), (2, 0.5), (3, 0.0)):
        later = returns[1 + ahead :]
        found = np.corrcoef(market.scores[1 : len(later) + 1].ravel(), later.ravel())[0, 1]
        assert abs(found - expected) < 0.015


def test_the_sharpe_ratio_of_the_scores_is_the_closed_form():
    market = make_panel(8000, 30, signal=0.02)
    labels = forward_returns(market.panel, 1)[:-2]
    daily = (market.scores[:-2] * labels).sum(axis=1)
    found = daily.mean() / daily.std() * np.sqrt(252)
    error = np.sqrt(252 / len(daily))
    assert abs(found - market.sharpe_ratio()) < 4 * error
    assert market.sharpe_ratio() > 6 * error


def test_the_signal_can_be_read_from_the_volume():
    market = make_panel(300, 20, signal=0.1)
    features = tips_features(market.panel)
    volume = features.values[19:, :, features.names.index("volume_z")]
    assert np.corrcoef(volume.ravel(), market.scores[19:].ravel())[0, 1] > 0.8


def test_repr_says_how_strong_the_signal_is():
    assert "PlantedMarket(signal 0.1, Panel('synthetic 0', 5 dates" in repr(
        make_panel(5, 2, signal=0.1)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_dates": 0}, "n_dates and n_assets of at least 1, not 0 and 50"),
        ({"signal": 1.5}, "signal from -1 to 1, not 1.5"),
        ({"volatility": 0.5}, "volatility above 0 and up to 0.1, not 0.5"),
        ({"gaps": 1.0}, "gaps from 0 up to below 1, not 1.0"),
        ({"delistings": 51}, "delistings from 0 to 50, not 51"),
        ({"fields": ["vwap"]}, "fields among .* not vwap"),
        ({"signal": -2, "gaps": -1}, "not -2; gaps from 0"),
    ],
)
def test_markets_that_cannot_be_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        make_panel(**options)
