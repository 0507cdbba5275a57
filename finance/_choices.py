"""What a backtest did, and what it cannot tell, in words."""

from __future__ import annotations

from .analysis import Analysis
from .strategy import Strategy

__all__ = ["choices", "warnings_of"]


def choices(analysis: Analysis) -> list[str]:
    """Return paragraphs on selection, execution, costs, universe and look-ahead."""
    strategy, facts = analysis.strategy, analysis.facts
    return [
        f"Choice. {_selection(strategy)} {_holding(strategy)} {_limits(strategy)}".rstrip(),
        f"Execution. {_execution(analysis)}",
        f"Costs. {_costs(analysis)}",
        f"Universe. {_universe(analysis)}",
        (
            f"Scores. There are scores on {facts['n_scored']:,} days from {facts['first_score']} "
            f"to {facts['last_score']}, of {facts['mean_scores']:.0f} members on average and of "
            f"{facts['fewest_scores']} at least. A day without any decides nothing: what is held "
            "stays. Equal scores are ordered by the names of the assets."
        ),
        (
            "Look-ahead. A score dated t may use what is known after the close of t, and not more. "
            "Nothing on this page can see whether that is so: a signal that was fitted, scaled or "
            "selected on later data looks good here, too."
        ),
        (
            "Not in these numbers: the effect of the own orders on prices, taxes, dividends unless "
            "prices are adjusted for them, interest on cash, and whether short sales were possible."
        ),
    ]


def warnings_of(analysis: Analysis) -> list[str]:
    """Return what a reader has to know before anything else."""
    strategy, facts, found = analysis.strategy, analysis.facts, []
    if strategy.lag == 0:
        found.append(
            "Caution: orders are executed at the very close that made the score. Nobody can do "
            "that; the section on the bill says what is left a day later."
        )
    if strategy.cost_bps == 0:
        found.append("Caution: without costs.")
    wanted = _names_wanted(strategy)
    if round(facts["mean_scores"]) < wanted:
        found.append(
            f"Caution: {wanted} assets are asked for, and {facts['mean_scores']:.0f} members have "
            "a score on average. The share of those that are missing lies in cash."
        )
    if facts["without_choice"]:
        found.append(
            f"Caution: on {facts['without_choice']:,} of {facts['n_scored']:,} days all scores are "
            "equal, and the order of the names decides."
        )
    if facts["jumps"]:
        more = len(facts["jumps"]) - 3
        few = ", ".join(f"{asset} {move:+,.0%} on {day}" for day, asset, move in facts["jumps"][:3])
        found.append(
            f"Caution: the prices jump by more than 50 % in a day: {few}"
            f"{f', and {more} more' if more > 0 else ''}. If these are errors of data, "
            "the numbers on this page rest on them, those of the benchmarks as well."
        )
    if not facts["members_given"] and facts["ended"] == 0 and facts["n_assets"] > 1:
        found.append(
            f"Caution: every asset still has a price at the end, {facts['last_price']}, and no "
            "members by date were given. If the universe was put together afterwards, what went "
            "down and out of it is missing, and all numbers are too good, those of the benchmarks "
            "as well."
        )
    return found


def _names_wanted(strategy: Strategy) -> int:
    """Return how many assets a choice needs, where the strategy gives their number."""
    if strategy.select == "top_k":
        return strategy.k
    return 2 * strategy.k if strategy.select == "long_short" and strategy.quantile is None else 0


def _selection(strategy: Strategy) -> str:
    by_share = strategy.quantile is not None and strategy.select != "top_k"
    how_many = f"{strategy.quantile:.0%}" if by_share else f"{strategy.k}"
    weights = (
        "in equal parts"
        if strategy.weighting == "equal"
        else f"weighted by the softmax of the scores (temperature {strategy.temperature:g})"
    )
    if strategy.select == "weights":
        return f"The scores are the weights themselves, times {strategy.gross:g}."
    if strategy.select == "long_short":
        return (
            f"The best {how_many} of the members with a score are bought and the worst {how_many} "
            f"sold short, {weights}, half of {strategy.gross:g} in each leg."
        )
    return f"The best {how_many} of the members with a score are held, {weights}."


def _holding(strategy: Strategy) -> str:
    if strategy.hold == 1:
        return "Every day with scores all of it is renewed."
    kept = f"Each choice is held for {strategy.hold} days"
    if strategy.phases == "average":
        return f"{kept}, in {strategy.hold} sleeves of which one is renewed each day."
    return f"{kept}, and renewed by phase {strategy.phases} only."


def _limits(strategy: Strategy) -> str:
    limits = []
    if strategy.max_weight is not None:
        limits.append(f"no weight is above {strategy.max_weight:.1%}")
    if strategy.max_turnover is not None:
        limits.append(f"no renewal trades more than {strategy.max_turnover:.1%} of its money")
    text = " and ".join(limits)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _execution(analysis: Analysis) -> str:
    lag, at = analysis.strategy.lag, "open" if analysis.facts["at_open"] else "close"
    if lag == 0:
        return "At the close of the score itself, which is a look into the future."
    when = "the day after the score" if lag == 1 else f"{lag} days after the score"
    count = analysis.facts["n_trades"]
    trades = f" {count:,} trades in all." if count >= 0 else ""
    return (
        f"At the {at} of {when}. An asset without a price there is not traded; what is held stays "
        f"until it has one.{trades}"
    )


def _costs(analysis: Analysis) -> str:
    strategy = analysis.strategy
    text = f"{strategy.cost_bps:g} basis points of every buy and every sale."
    if analysis.facts["short"]:
        text += f" {strategy.borrow_bps_per_year:g} basis points a year on what is sold short."
    return f"{text} Costs are taken out of the money that is invested, so they compound."


def _universe(analysis: Analysis) -> str:
    facts, strategy = analysis.facts, analysis.strategy
    members = (
        "Members by date were given, and only they are bought."
        if facts["members_given"]
        else "No members by date were given: whatever has a price may be bought."
    )
    if facts["ended"]:
        gone = (
            f"{facts['ended']} assets have no price at the end any more; what is held of them is "
            f"paid out at the last price{_delisting(strategy)}."
        )
    else:
        gone = "No asset loses its price before the end."
    span = f"{facts['first_price']} to {facts['last_price']}"
    return f"{facts['n_assets']:,} assets from {span}. {members} {gone}"


def _delisting(strategy: Strategy) -> str:
    share = strategy.delisting_return
    return f" {'less' if share < 0 else 'plus'} {abs(share):.0%}" if share else ""
