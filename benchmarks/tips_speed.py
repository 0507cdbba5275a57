"""Networks of TIPS: speed against torch's transformer, and student against ensemble.

Stock-days a second of CPU time, on one thread, of `Ranker` and of `torch.nn.TransformerEncoder`
with the same sizes and as many parameters, for both read-outs; medians. Then multiply-adds and
latency of one day's scores of 500 stocks, by the student and by the seven teachers whose mean it
replaces.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Row, alternate, row
from scikd.finance.backbone import TEACHERS, Ranker, RankerSettings

__all__ = ["run"]

STOCKS = 500


class _Plain(nn.Module):
    """What one would write with torch's own layers."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        sizes = ranker.settings
        layer = nn.TransformerEncoderLayer(
            sizes.dim, sizes.n_heads, sizes.ffn, 0.0, batch_first=True, norm_first=True
        )
        self.embed = nn.Linear(sizes.n_features, sizes.dim)
        self.encoder = nn.TransformerEncoder(layer, sizes.n_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(sizes.dim)
        self.head = nn.Sequential(
            nn.Linear(sizes.dim, sizes.dim), nn.ReLU(), nn.Linear(sizes.dim, 1)
        )
        self.positions, self.readout = ranker.positions, sizes.readout

    def forward(self, windows: Tensor) -> Tensor:
        tokens = self.encoder(self.embed(windows) + self.positions)
        read = tokens.mean(dim=1) if self.readout == "mean" else tokens[:, -1]
        return self.head(self.norm(read))[:, 0]


def run(quick: bool = False) -> list[Row]:
    """Run all; about a minute, or a few seconds with `quick`."""
    repeats, stocks = (1, 50) if quick else (25, STOCKS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            return [*_against_torch(stocks, repeats), *_against_ensemble(stocks, repeats)]
    finally:
        torch.set_num_threads(threads)


def _against_torch(stocks: int, repeats: int) -> list[Row]:
    windows, rows = torch.randn(stocks, 20, 8), []
    for readout in ("mean", "last"):
        ours = Ranker(RankerSettings(readout=readout))
        plain = _Plain(ours)
        for task, make in (("scoring", _scoring), ("training", _training)):
            calls = [make(model, windows) for model in (ours, plain)]
            seconds = alternate(calls, repeats, process_time)
            value, peer = (stocks / one for one in seconds)
            one = row(
                f"{task}, read-out {readout}", value, "stock-days/s", "TransformerEncoder", peer
            )
            # A rate: ours over the peer's says how many times more ours does.
            rows.append(one | {"ratio": value / peer, "repeats": repeats})
    return rows


def _against_ensemble(stocks: int, repeats: int) -> list[Row]:
    windows, rows = torch.randn(stocks, 20, 8), []
    teachers = [make(RankerSettings()) for make in TEACHERS.values()]
    for readout in ("mean", "last"):
        student = Ranker(RankerSettings(readout=readout))
        name = f"student, read-out {readout}, {stocks} stocks"
        peer = f"{len(teachers)} teachers"
        macs = [sum(_macs(one, windows) for one in models) for models in ([student], teachers)]
        rows.append(row(f"{name}: multiply-adds", float(macs[0]), "MAC", peer, float(macs[1])))
        calls = [_scores([student], windows), _scores(teachers, windows)]
        seconds = alternate(calls, repeats, process_time)
        rows.append(row(f"{name}: latency", seconds[0], "s", peer, seconds[1], repeats=repeats))
    return rows


def _macs(model: nn.Module, windows: Tensor) -> int:
    """Count the multiply-adds of matrix products, as training computes them."""
    with FlopCounterMode(display=False) as counter:
        model.train()(windows)
    return int(counter.get_total_flops()) // 2


def _scoring(model: nn.Module, windows: Tensor) -> Callable[[], object]:
    return _scores([model], windows)


def _scores(models: list[nn.Module], windows: Tensor) -> Callable[[], object]:
    def call() -> Tensor:
        with torch.inference_mode():
            return torch.stack([model.eval()(windows) for model in models]).mean(dim=0)

    return call


def _training(model: nn.Module, windows: Tensor) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        model.train()(windows).square().mean().backward()
        optimizer.step()

    return step
