"""What a run of dynamics says: its log, the drift of its energy, and a figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scikd._plots import PALETTE, render
from scikd.exceptions import CorruptFileError, StorageError

from ._trajectory import COLUMNS, LOG

__all__ = ["energy_drift", "plot_dynamics", "read_log"]

DRIFT_BLOCKS = 20
PANELS = (
    ("temperature_K", "temperature (K)"),
    ("density_g_cm3", "density (g/cm³)"),
    ("pressure_bar", "pressure (bar)"),
    ("conserved_eV", "conserved energy (meV/atom)"),
)


def read_log(path: str | Path) -> pd.DataFrame:
    """Read the log of a run.

    Parameters
    ----------
    path : str or pathlib.Path
        The log, or the folder of the run.

    Returns
    -------
    pandas.DataFrame
        Columns step, time_ps (negative while equilibrating), temperature_K, density_g_cm3,
        pressure_bar, volume_A3, potential_eV, total_eV, conserved_eV; NaN where one has no meaning.

    Raises
    ------
    StorageError
        If it cannot be read.
    CorruptFileError
        If it is no such log.
    """
    path = Path(path)
    path = path / LOG if path.is_dir() else path
    try:
        log = pd.read_csv(path)
    except OSError as error:
        message = f"Could not read the log {path}: {error.strerror}. Check the path."
        raise StorageError(message) from error
    except ValueError as error:
        message = f"{path} is no log of a run: {error}"
        raise CorruptFileError(message) from error
    if tuple(log.columns) != COLUMNS:
        message = f"{path} is no log of a run: expected the columns {', '.join(COLUMNS)}."
        raise CorruptFileError(message)
    return log


def energy_drift(times: Any, energies: Any) -> tuple[float, float]:
    """Return the slope of an energy over time, and its standard error.

    Parameters
    ----------
    times : array-like of shape (n,)
        At equal steps.
    energies : array-like of shape (n,)
        The energies.

    Returns
    -------
    slope, error : float
        In the unit of the energies over that of the times; NaN for less than four values.

    Notes
    -----
    A straight line through the means of up to 20 blocks, which forget one another sooner than
    single values do.
    """
    time, energy = (np.asarray(x, dtype=np.float64).ravel() for x in (times, energies))
    n_blocks = min(DRIFT_BLOCKS, len(time))
    if n_blocks < 4:
        return math.nan, math.nan
    t, e = (np.array([p.mean() for p in np.array_split(x, n_blocks)]) for x in (time, energy))
    t, e = t - t.mean(), e - e.mean()
    slope = float(t @ e / (t @ t))
    error = math.sqrt(float(np.sum((e - slope * t) ** 2)) / (n_blocks - 2) / float(t @ t))
    return slope, error


def plot_dynamics(log: pd.DataFrame, n_atoms: int) -> bytes:
    """Plot temperature, density, pressure and conserved energy over time.

    Parameters
    ----------
    log : pandas.DataFrame
        What `read_log` returned.
    n_atoms : int
        How many atoms there are.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    shown = [(name, label) for name, label in PANELS if log[name].notna().any()]
    time = log["time_ps"].to_numpy()

    def draw(panels: list[Any]) -> None:
        for axes, (name, label) in zip(panels, shown, strict=True):
            values = log[name].to_numpy()
            if name == "conserved_eV":
                start = values[time >= 0][:1] if (time >= 0).any() else values[:1]
                values = (values - start) / n_atoms * 1e3
            for part, alpha in ((time <= 0, 0.45), (time >= 0, 1.0)):
                axes.plot(time[part], values[part], color=PALETTE[0], alpha=alpha, linewidth=0.9)
            if name != "conserved_eV" and (time >= 0).any():
                mean = values[time >= 0].mean()
                axes.axhline(mean, color=PALETTE[1], linewidth=1.0, linestyle="--")
                axes.set_title(f"mean {mean:.4g}")
            axes.set_ylabel(label)
            axes.set_xlabel("time (ps)")
            axes.grid()

    rows = (len(shown) + 1) // 2
    layout = (rows, 2) if len(shown) % 2 == 0 else (len(shown), 1)
    return render(draw, (4.6 * layout[1], 2.9 * layout[0]), layout)[0]
