"""Is it luck? Intervals, and tests that count how much was tried.

Returns are daily returns as fractions, in order of time. Intervals and tests by resampling use the
stationary bootstrap (Politis and Romano, 1994), which keeps the dependence within blocks; their
mean length is chosen from the data (Politis and White, 2004, as corrected in 2009) unless given.
They need the package arch, from the extra ``finance``.

.. warning::
   Every configuration that was tried counts, those of earlier afternoons too. Tests that are told
   of the best one only find it significant.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from scikd._extras import require
from scikd.exceptions import InvalidInputError

from .metrics import YEAR, sharpe_ratio

__all__ = [
    "ConfidenceSet",
    "Interval",
    "Overfitting",
    "backtest_overfitting",
    "confidence_set",
    "deflated_sharpe_ratio",
    "expected_best_sharpe",
    "probabilistic_sharpe_ratio",
    "sharpe_difference",
    "sharpe_interval",
    "sharpe_probability",
    "superior_ability",
]

EULER = 0.5772156649015329
FEWEST_ROWS = 8  # that a length of blocks is chosen from
ALIKE = 12  # decimals up to which returns that agree are the same
ALIKE_RATIOS = 8  # and Sharpe ratios, so that equal configurations share their rank


class Interval(NamedTuple):
    """An estimate, the ends of its interval, and the two-sided p-value of 0."""

    estimate: float
    low: float
    high: float
    p_value: float


# -- intervals -----------------------------------------------------------------------------------


def sharpe_interval(
    returns: Any,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    block: float | None = None,
    seed: int = 0,
) -> Interval:
    """Return the annual Sharpe ratio with an interval by the stationary bootstrap.

    Parameters
    ----------
    returns : array-like of shape (n,)
        Daily returns.
    level : float, default=0.95
        Share of the percentiles of the resampled ratios that the interval holds.
    n_resamples : int, default=2000
        How often to resample.
    block : float or None, default=None
        Mean length of a block, in rows; None chooses it.
    seed : int, default=0
        Of the resampling.

    Returns
    -------
    Interval
        Its p-value is the share of resampled ratios that are farther from the estimate than 0 is.
    """
    series = _table(returns, "returns", one=True)
    return _interval(lambda x: sharpe_ratio(x[:, 0]), series, level, n_resamples, block, seed)


def sharpe_difference(
    returns: Any,
    other: Any,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    block: float | None = None,
    seed: int = 0,
) -> Interval:
    """Return the difference of two annual Sharpe ratios; rows are resampled together.

    Parameters
    ----------
    returns, other : array-like of shape (n,)
        Daily returns of the same rows, such as of a strategy and of a benchmark.
    level, n_resamples, block, seed
        As in `sharpe_interval`; the block is chosen from the difference of the returns.

    Returns
    -------
    Interval
        Positive where `returns` has the higher ratio.
    """
    first, second = _table(returns, "returns", one=True), _table(other, "other", one=True)
    if first.shape != second.shape:
        message = f"Expected returns of the same rows; got {len(first)} and {len(second)}."
        raise InvalidInputError(message)
    both = np.hstack([first, second])
    block = _length(first - second, block, n_resamples)
    return _interval(
        lambda x: sharpe_ratio(x[:, 0]) - sharpe_ratio(x[:, 1]),
        both,
        level,
        n_resamples,
        block,
        seed,
    )


def _interval(
    statistic: Callable[[np.ndarray], float],
    table: np.ndarray,
    level: float,
    n_resamples: int,
    block: float | None,
    seed: int,
) -> Interval:
    if not 0.0 < level < 1.0:
        raise InvalidInputError(f"Expected a level between 0 and 1; got {level!r}.")
    bootstrap = _arch().StationaryBootstrap(
        _length(table, block, n_resamples), table, seed=np.random.default_rng(seed)
    )
    estimate = statistic(table)
    drawn = bootstrap.apply(statistic, n_resamples).ravel()
    drawn = drawn[np.isfinite(drawn)]
    if not math.isfinite(estimate) or len(drawn) == 0:
        return Interval(estimate, math.nan, math.nan, math.nan)
    low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
    p_value = float(np.mean(np.abs(drawn - estimate) >= abs(estimate)))
    return Interval(float(estimate), float(low), float(high), p_value)


def _arch() -> Any:
    return require("arch.bootstrap", extra="finance", feature="Resampling of returns")


def _length(table: np.ndarray, block: float | None, n_resamples: int) -> float:
    """Return the mean block length, chosen if it is not given, or say what cannot be resampled."""
    if n_resamples < 1 or not (block is None or 1 <= block < math.inf):
        message = (
            "Expected n_resamples of at least 1, and a block of at least one row or None; got "
            f"{n_resamples!r} and {block!r}."
        )
        raise InvalidInputError(message)
    return _block(table) if block is None else block


def _block(table: np.ndarray) -> float:
    """Return the mean block length for the column that needs the longest."""
    if len(table) < FEWEST_ROWS:
        message = (
            f"Expected at least {FEWEST_ROWS} rows to choose the length of a block from; got "
            f"{len(table)}. Take more days, or give the block."
        )
        raise InvalidInputError(message)
    moving = table[:, np.ptp(table, axis=0) > 0.0]
    if moving.shape[1] == 0:
        return 1.0
    lengths = _arch().optimal_block_length(moving)["stationary"].to_numpy()
    return float(np.clip(np.nanmax(lengths), 1.0, len(table) / 2))


# -- the Sharpe ratio, given how much was tried --------------------------------------------------


def sharpe_probability(
    sharpe: float, benchmark: float, n: int, skewness: float = 0.0, kurtosis: float = 3.0
) -> float:
    """Return the probability that the true Sharpe ratio is above a benchmark's.

    Bailey and Lopez de Prado, "The Sharpe ratio efficient frontier", Journal of Risk 15 (2012),
    equation 11.

    Parameters
    ----------
    sharpe, benchmark : float
        Observed ratio and that to beat; of one row, not annual.
    n : int
        Number of rows.
    skewness, kurtosis : float, default=0.0, 3.0
        Of the returns; those of a normal distribution by default.
    """
    spread = 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
    if spread <= 0.0 or n < 2:
        return math.nan
    return _normal((sharpe - benchmark) * math.sqrt((n - 1) / spread))


def expected_best_sharpe(n_trials: float, variance: float) -> float:
    """Return the Sharpe ratio expected of the best of trials that are all worth nothing.

    Bailey and Lopez de Prado, "The deflated Sharpe ratio", Journal of Portfolio Management 40
    (2014), equation 1.

    Parameters
    ----------
    n_trials : float
        Number of independent trials, at least 1.
    variance : float
        Variance of their Sharpe ratios, in the unit of which the result is.
    """
    if n_trials < 1 or variance < 0:
        message = (
            "Expected at least 1 trial and a variance of at least 0; got "
            f"{n_trials!r} and {variance!r}."
        )
        raise InvalidInputError(message)
    if n_trials == 1:
        return 0.0
    from scipy.special import ndtri  # noqa: PLC0415 - only this function pays for the import

    first, second = ndtri(1.0 - 1.0 / n_trials), ndtri(1.0 - 1.0 / (n_trials * math.e))
    return float(math.sqrt(variance) * ((1.0 - EULER) * first + EULER * second))


def probabilistic_sharpe_ratio(returns: Any, *, benchmark: float = 0.0) -> float:
    """Return the probability that the true annual Sharpe ratio is above a benchmark's.

    As `sharpe_probability`, with moments of the sample (ddof 1 for the ratio, population moments
    for skewness and kurtosis).

    Parameters
    ----------
    returns : array-like of shape (n,)
        Daily returns.
    benchmark : float, default=0.0
        Annual Sharpe ratio to beat.
    """
    series = _table(returns, "returns", one=True)[:, 0]
    sharpe = sharpe_ratio(series) / math.sqrt(YEAR)
    if math.isnan(sharpe):
        return math.nan
    rest = (series - series.mean()) / series.std()
    skewness, kurtosis = float(np.mean(rest**3)), float(np.mean(rest**4))
    return sharpe_probability(sharpe, benchmark / math.sqrt(YEAR), len(series), skewness, kurtosis)


def deflated_sharpe_ratio(returns: Any, trials: Any, *, n_trials: float | None = None) -> float:
    """Return the probability that the true Sharpe ratio is above what luck gives the best.

    Parameters
    ----------
    returns : array-like of shape (n,)
        Daily returns of the strategy that was chosen.
    trials : array-like of shape (n_configurations,)
        Annual Sharpe ratios of all configurations that were tried, the chosen one among them.
    n_trials : float or None, default=None
        Number of independent ones among them; None takes all, which is careful where they are
        alike.

    Returns
    -------
    float
        Above 0.95 is commonly called significant.
    """
    ratios = _table(trials, "trials", one=True)[:, 0]
    variance = float(ratios.var(ddof=1)) if len(ratios) > 1 else 0.0
    bar = expected_best_sharpe(len(ratios) if n_trials is None else n_trials, variance)
    return probabilistic_sharpe_ratio(returns, benchmark=bar)


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


# -- overfitting ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Overfitting:
    """What becomes out of sample of the best configuration in sample.

    Parameters
    ----------
    probability : float
        Share of the splits in which it is below the median of all, those in which it is the median
        counting one half; 0.5 is expected of luck.
    logits : numpy.ndarray of shape (n_splits,)
        Of its relative rank out of sample; positive above the median.
    in_sample, out_of_sample : numpy.ndarray of shape (n_splits,)
        Its annual Sharpe ratio.
    """

    probability: float
    logits: np.ndarray
    in_sample: np.ndarray
    out_of_sample: np.ndarray

    @property
    def probability_of_loss(self) -> float:
        """Share of the splits in which it loses out of sample."""
        return float(np.mean(self.out_of_sample < 0.0))


def backtest_overfitting(returns: Any, *, n_blocks: int = 16) -> Overfitting:
    """Return the probability of backtest overfitting.

    By combinatorially symmetric cross-validation: the rows are cut into blocks, every half of the
    blocks serves once to choose the configuration with the highest Sharpe ratio, and the other half
    to see how it ranks (Bailey, Borwein, Lopez de Prado and Zhu, "The probability of backtest
    overfitting", Journal of Computational Finance 20, 2017).

    Parameters
    ----------
    returns : array-like of shape (n, n_configurations) or mapping of str to array-like
        Daily returns of every configuration that was tried, at least two.
    n_blocks : int, default=16
        An even number of blocks; of equal length, but for a row.

    Returns
    -------
    Overfitting
        For the 12,870 splits of 16 blocks.

    Raises
    ------
    InvalidInputError
        If the blocks are odd in number, or have less than two rows each.
    """
    table, _ = _named(returns)
    if n_blocks < 2 or n_blocks % 2 or len(table) < 2 * n_blocks or n_blocks > 20:
        message = (
            "Expected an even number of blocks from 2 to 20, of at least two rows each; got "
            f"{n_blocks} for {len(table)} rows."
        )
        raise InvalidInputError(message)
    blocks = np.array_split(table, n_blocks)
    halves = np.zeros((math.comb(n_blocks, n_blocks // 2), n_blocks))
    for row, half in enumerate(itertools.combinations(range(n_blocks), n_blocks // 2)):
        halves[row, half] = 1.0
    inside, outside = (_sharpe_of_blocks(blocks, part) for part in (halves, 1.0 - halves))
    best = np.argmax(np.where(np.isnan(inside), -np.inf, inside), axis=1)
    splits = np.arange(len(best))
    chosen = outside[splits, best][:, None]
    rank = (outside < chosen).sum(axis=1) + 0.5 * ((outside == chosen).sum(axis=1) + 1)
    share = rank / (table.shape[1] + 1)
    logits = np.log(share / (1.0 - share))
    return Overfitting(
        float(np.mean((1.0 - np.sign(logits)) / 2.0)),
        logits,
        inside[splits, best],
        outside[splits, best],
    )


def _sharpe_of_blocks(blocks: list[np.ndarray], halves: np.ndarray) -> np.ndarray:
    """Return the annual Sharpe ratio of each configuration on each half of the blocks."""
    n = halves @ np.array([len(block) for block in blocks], dtype=float)
    centre = np.concatenate(blocks).mean(axis=0)  # taken off, so that squares lose no digits
    total = halves @ np.array([(block - centre).sum(axis=0) for block in blocks])
    squares = halves @ np.array([((block - centre) ** 2).sum(axis=0) for block in blocks])
    mean = total / n[:, None]
    variance = (squares - n[:, None] * mean**2) / (n[:, None] - 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (mean + centre) / np.sqrt(np.maximum(variance, 0.0)) * math.sqrt(YEAR)
    return np.round(np.where(variance > 0.0, ratio, 0.0), ALIKE_RATIOS)


# -- many against one ----------------------------------------------------------------------------


def superior_ability(
    returns: Any,
    benchmark: Any,
    *,
    n_resamples: int = 1000,
    block: float | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Test whether any configuration earns more than a benchmark (Hansen's SPA, 2005).

    Parameters
    ----------
    returns : array-like of shape (n, n_configurations) or mapping of str to array-like
        Daily returns of every configuration that was tried.
    benchmark : array-like of shape (n,)
        Daily returns to beat, such as of equal weights.
    n_resamples, block, seed
        As in `sharpe_interval`; the block is chosen from the differences to the benchmark.

    Returns
    -------
    dict of str to float
        p-values "lower", "consistent" (the one to report) and "upper", of the hypothesis that none
        has a higher mean return; 1 if all are the benchmark itself.
    """
    table, _ = _named(returns)
    bar = _table(benchmark, "benchmark", one=True)
    if len(bar) != len(table):
        message = f"Expected {len(table)} returns of the benchmark; got {len(bar)}."
        raise InvalidInputError(message)
    length = _length(table - bar, block, n_resamples)
    other = np.round(table - bar, ALIKE).any(axis=0)
    if not other.any():
        return dict.fromkeys(("lower", "consistent", "upper"), 1.0)
    test = _arch().SPA(
        -bar[:, 0],
        -table[:, other],
        block_size=math.ceil(length),
        reps=n_resamples,
        seed=np.random.default_rng(seed),
    )
    test.compute()
    return {name: float(value) for name, value in test.pvalues.items()}


@dataclass(frozen=True)
class ConfidenceSet:
    """The configurations among which is the best.

    Parameters
    ----------
    included : tuple of str
        Those that cannot be told from the best.
    p_values : dict of str to float
        Level up to which each configuration is in the set.
    """

    included: tuple[str, ...]
    p_values: dict[str, float]


def confidence_set(
    returns: Any,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    block: float | None = None,
    seed: int = 0,
) -> ConfidenceSet:
    """Return the model confidence set of mean returns (Hansen, Lunde and Nason, 2011).

    Parameters
    ----------
    returns : array-like of shape (n, n_configurations) or mapping of str to array-like
        Daily returns of at least two configurations; columns of an array are named "0", "1", ....
        Those with the same returns are in the set together.
    level : float, default=0.95
        Probability with which the best is in the set.
    n_resamples, block, seed
        As in `sharpe_interval`; the block is chosen from the returns less their mean.
    """
    if not 0.0 < level < 1.0:
        raise InvalidInputError(f"Expected a level between 0 and 1; got {level!r}.")
    table, names = _named(returns)
    _, first, same = np.unique(
        np.round(table, ALIKE), axis=1, return_index=True, return_inverse=True
    )
    if len(first) == 1:  # nothing to compare
        return ConfidenceSet(tuple(names), dict.fromkeys(names, 1.0))
    distinct = table[:, np.sort(first)]
    length = _length(distinct - distinct.mean(axis=1, keepdims=True), block, n_resamples)
    test = _arch().MCS(
        -distinct,
        1.0 - level,
        reps=n_resamples,
        block_size=math.ceil(length),
        seed=np.random.default_rng(seed),
    )
    test.compute()
    place = np.argsort(np.argsort(first))[same.ravel()]  # of each configuration among the tested
    p_values = test.pvalues["Pvalue"]
    return ConfidenceSet(
        tuple(name for name, i in zip(names, place, strict=True) if i in test.included),
        {name: float(p_values[i]) for name, i in zip(names, place, strict=True)},
    )


# -- checks --------------------------------------------------------------------------------------


def _table(values: Any, name: str, *, one: bool = False) -> np.ndarray:
    """Return values as columns; with `one`, of a single series."""
    array = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.size == 0 or (one and array.shape[1] > 1):
        shape = "(n,)" if one else "(n, n_configurations)"
        message = f"Expected {name} of shape {shape}, not empty; got {np.shape(values)}."
        raise InvalidInputError(message)
    bad = int(np.sum(~np.isfinite(array)))
    if bad:
        raise InvalidInputError(f"Expected {name} without NaN and infinity; got {bad} of them.")
    return array


def _named(returns: Any) -> tuple[np.ndarray, list[str]]:
    """Return the columns of two configurations or more, and their names."""
    if isinstance(returns, Mapping):
        names = [str(name) for name in returns]
        lengths = {name: len(series) for name, series in returns.items()}
        if len(set(lengths.values())) > 1:
            message = f"Expected returns of the same rows; their numbers differ: {lengths}."
            raise InvalidInputError(message)
        table = _table(np.array(list(returns.values()), dtype=np.float64).T, "returns")
    else:
        table = _table(returns, "returns")
        names = [str(number) for number in range(table.shape[1])]
    if table.shape[1] < 2:
        message = "Expected returns of at least two configurations; got 1."
        raise InvalidInputError(message)
    return table, names
