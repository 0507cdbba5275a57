"""Axes of figures on time."""

from __future__ import annotations

from typing import Any

__all__ = ["date_ticks", "legend", "plain_log_ticks"]


def legend(axes: Any, columns: int = 1, place: str = "best") -> None:
    """Write names in the colours of their lines."""
    axes.legend(fontsize=8.0, frameon=False, ncol=columns, loc=place, labelcolor="linecolor")


def date_ticks(axes: Any) -> None:
    """Write dates as short as they can be."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - an extra

    locator: Any = AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter: Any = ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)


def plain_log_ticks(axes: Any) -> None:
    """Write values on a logarithmic axis without exponents."""
    from matplotlib.ticker import (  # noqa: PLC0415 - as above
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullLocator,
    )

    low, high = axes.get_ylim()
    narrow = high / low < 8.0
    axes.yaxis.set_major_locator(MaxNLocator(6) if narrow else LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
