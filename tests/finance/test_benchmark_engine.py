"""The benchmark of the engine runs without its peers, and says with what it compares."""

from __future__ import annotations

import numpy as np

from benchmarks import finance_engine
from scikd.finance import Strategy, backtest


def test_it_runs_without_peers(monkeypatch):
    monkeypatch.delenv("SCIKD_PEERS", raising=False)
    rows = finance_engine.run(quick=True)
    assert {one["unit"] for one in rows} == {"s", "ns per cell"}
    assert all(one["value"] > 0 for one in rows)
    alone = [one for one in rows if one["peer"] == "ours, one by one"]
    assert alone
    assert all(one["peer"] is None for one in rows if one not in alone)


def test_the_peer_is_told_to_hold_what_ours_holds():
    scores, panel = finance_engine._market(60, 12)
    strategy = Strategy(k=3, cost_bps=0, price="close")
    result = backtest(scores, panel, strategy)
    targets = finance_engine._targets(scores, strategy)
    assert np.isnan(targets[0]).all()
    np.testing.assert_allclose(result.weights, targets[1:], atol=1e-12)
