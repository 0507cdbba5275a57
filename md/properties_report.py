"""A page on a liquid: numbers with errors, what is missing and why, and curves."""

from __future__ import annotations

from typing import Any

import numpy as np

from scikd.report import PALETTE, Figure, Item, Report, Section, Table

from .properties import LiquidProperties

__all__ = ["properties_report"]

MOST_DOTS = 2000
PANEL = (3.4, 2.7)  # inches
METHODS = {
    "Green-Kubo": "The running integral of the autocorrelation of the pressure. The band is the "
    "result with its error, which comes from the spectrum and not from a plateau read off here.",
}


def properties_report(found: LiquidProperties, *, title: str = "Properties of a liquid") -> Report:
    """Return a page of the properties of a liquid.

    Parameters
    ----------
    found : LiquidProperties
        What `scikd.md.properties.compute_properties` returned.
    title : str, default="Properties of a liquid"
        Title of the page.
    """
    trajectory = found.trajectory
    held = "constant volume" if trajectory.constant_volume else "a box that changes"
    at = "" if trajectory.temperature is None else f" at {trajectory.temperature:.4g} K"
    subtitle = (
        f"{found.composition}; {len(trajectory.numbers):,} atoms, {trajectory.duration_ps:.4g} ps"
        f"{at}, {held}"
    )
    sections = [Section("Numbers", _tables(found), summary=_finding(found))]
    structure = _structure(found)
    if structure:
        sections.append(Section("Structure", structure))
    motion = _motion(found)
    if motion:
        sections.append(Section("Motion", motion))
    return Report(title, sections, subtitle=subtitle)


def _finding(found: LiquidProperties) -> str:
    told = ("density", "viscosity", "conductivity")
    parts = [f"{name} {found.estimates[name]}" for name in told if name in found.estimates]
    missing = f"{len(found.refusals)} could not be had" if found.refusals else ""
    text = "; ".join(filter(None, [*parts, missing]))
    return text[:1].upper() + text[1:] + "." if text else ""


def _tables(found: LiquidProperties) -> list[Item]:
    items: list[Item] = []
    if found.estimates:
        rows = [[name, str(value)] for name, value in found.estimates.items()]
        note = (
            "Standard errors: the true value lies within 1.96 of them in 95 of 100 cases. They "
            "tell of the length of the trajectory, not of the force field."
        )
        items.append(Table("Results", ["property", "value"], rows, note=note))
    if found.refusals:
        rows = [[name, reason] for name, reason in found.refusals.items()]
        items.append(Table("Not to be had from this trajectory", ["property", "reason"], rows))
    return items


def _structure(found: LiquidProperties) -> list[Item]:
    items: list[Item] = []
    if found.density_series is not None and not found.trajectory.constant_volume:
        items.append(Figure("Density", lambda axes: _draw_density(axes, found)))
    if found.distributions:
        count = len(found.distributions)
        items.append(
            Figure(
                "Radial distributions",
                lambda grid: _draw_distributions(grid, found),
                note="Between molecules; the shade is the standard error, the dashed line the mean "
                "number of neighbours.",
                size=(PANEL[0] * count, PANEL[1]),
                panels=(1, count),
            )
        )
    return items


def _motion(found: LiquidProperties) -> list[Item]:
    items: list[Item] = []
    if found.diffusions:
        note = (
            "Mean squared displacement; the dashed lines have the slope of the result. Times up to "
            "a tenth of the trajectory are shown; beyond, the curve is little more than chance."
        )
        items.append(Figure("Diffusion", lambda axes: _draw_diffusion(axes, found), note=note))
    viscosity = found.viscosity
    if viscosity is not None and len(viscosity.times_ps):
        note = METHODS[viscosity.method]
        items.append(Figure("Viscosity", lambda axes: _draw_viscosity(axes, found), note=note))
    return items


def _thinned(*columns: Any) -> list[np.ndarray]:
    step = max(len(columns[0]) // MOST_DOTS, 1)
    return [np.asarray(column)[::step] for column in columns]


def _draw_density(axes: Any, found: LiquidProperties) -> None:
    if found.density_series is None:
        return
    times, values = _thinned(*found.density_series)
    axes.plot(times, values, color=PALETTE[0], linewidth=0.8)
    mean = found.estimates.get("density")
    if mean is not None:
        axes.axhline(mean.value, color="black", linewidth=1.0)
        axes.axhspan(
            mean.value - mean.error, mean.value + mean.error, color=PALETTE[1], alpha=0.4, lw=0
        )
    axes.set_xlabel("time (ps)")
    axes.set_ylabel("density (g/cm³)")


def _draw_distributions(grid: Any, found: LiquidProperties) -> None:
    for axes, curve in zip(grid, found.distributions, strict=True):
        axes.plot(curve.distances, curve.values, color=PALETTE[0], linewidth=1.2)
        low, high = curve.values - curve.errors, curve.values + curve.errors
        axes.fill_between(curve.distances, low, high, color=PALETTE[0], alpha=0.3, linewidth=0)
        if curve.first_minimum is not None:
            axes.axvline(curve.first_minimum, color="black", linewidth=0.7, alpha=0.5)
        right = axes.twinx()
        right.plot(curve.distances, curve.numbers, "--", color=PALETTE[1], linewidth=1.0)
        shell = curve.first_minimum or curve.distances[-1]
        inside = np.interp(shell, curve.distances, curve.numbers)
        right.set_ylim(0.0, max(2.5 * inside, 1.0))
        right.tick_params(labelsize=9)
        right.spines["top"].set_visible(False)
        axes.set_ylim(bottom=0.0)
        axes.set_title(f"{curve.pair[0]} - {curve.pair[1]}")
        axes.set_xlabel("distance (Å)")
        axes.set_ylabel("g")


def _draw_diffusion(axes: Any, found: LiquidProperties) -> None:
    for place, diffusion in enumerate(found.diffusions):
        colour = PALETTE[place % len(PALETTE)]
        part = slice(1, max(len(diffusion.times_ps) // 10, 3))
        times, curve = _thinned(diffusion.times_ps[part], diffusion.displacements[part])
        axes.plot(times, curve, color=colour, linewidth=1.4, label=diffusion.species)
        slope = 6.0 * diffusion.coefficient.value / 1e-4  # Å²/ps
        offset = float(np.median(curve - slope * times))
        axes.plot(times, slope * times + offset, "--", color=colour, linewidth=0.9)
    axes.legend(fontsize=9, frameon=False)
    axes.set_xlabel("time (ps)")
    axes.set_ylabel("displacement² (Å²)")
    axes.grid()


def _draw_viscosity(axes: Any, found: LiquidProperties) -> None:
    viscosity = found.viscosity
    if viscosity is None:
        return
    times, running = _thinned(viscosity.times_ps, viscosity.running)
    axes.plot(times, running, color=PALETTE[0], linewidth=1.2)
    value, error = viscosity.coefficient.value, viscosity.coefficient.error
    axes.axhline(value, color="black", linewidth=1.0)
    axes.axhspan(value - error, value + error, color=PALETTE[1], alpha=0.3, linewidth=0)
    axes.set_ylim(min(0.0, float(running.min())), 1.8 * value)
    axes.set_xlabel("time (ps)")
    axes.set_ylabel("viscosity (cP)")
