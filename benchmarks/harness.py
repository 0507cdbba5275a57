"""What every benchmark shares: rows, fair timing, peak memory, a table, a JSON file.

A benchmark is a module ``benchmarks/NAME.py`` with ``run(quick: bool) -> list[Row]``.

Times are medians over several runs of ours and of the peer in alternation, in one process, so that
a slow spell of a shared machine hits both alike. Both are called once before the clock starts:
Numba compiles on the first call (or loads what it compiled earlier), the peer imports and fills
its caches. So no row contains compilation.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NotRequired, TypedDict

from scikd._memory import PeakMemory

__all__ = [
    "Row",
    "alternate",
    "peak_rss",
    "peak_traced",
    "peer_python",
    "row",
    "run_worker",
    "table",
    "timed_row",
    "write_json",
]

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SCIKD_DATA") or ROOT.parent / "shared" / "data")


class Row(TypedDict):
    """One measured number, and the peer's.

    `ratio` is ``peer_value / value``: of times and of memory it says how many times less ours
    takes, so bigger is better for us. `peer`, `peer_value` and `ratio` are None where there is
    nothing to compare with. Further keys may follow.
    """

    name: str
    value: float
    unit: str
    peer: str | None
    peer_value: float | None
    ratio: float | None
    repeats: NotRequired[int]
    note: NotRequired[str]


def row(
    name: str,
    value: float,
    unit: str,
    peer: str | None = None,
    peer_value: float | None = None,
    **extra: Any,
) -> Row:
    """Make a row, with its ratio."""
    ratio = peer_value / value if peer_value is not None and value > 0 else None
    made: dict[str, Any] = {
        "name": name,
        "value": value,
        "unit": unit,
        "peer": peer,
        "peer_value": peer_value,
        "ratio": ratio,
        **extra,
    }
    return made  # type: ignore[return-value]


def _seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    """Time one call, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        start = clock()
        function()
        return clock() - start
    finally:
        gc.enable()


def alternate(
    functions: Sequence[Callable[[], object]],
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Return the median seconds of each function, after one warm-up call of each.

    Parameters
    ----------
    functions : sequence of callable
        Called in turn: first all once to warm up, then all `repeats` times.
    repeats : int, default=5
        Number of timed rounds.
    clock : callable, default=time.perf_counter
        `time.process_time` counts the work of this process alone, whatever else the machine does.
    """
    for function in functions:
        function()
    rounds = [[_seconds(function, clock) for function in functions] for _ in range(repeats)]
    return [median(times) for times in zip(*rounds, strict=True)]


def timed_row(
    name: str,
    ours: Callable[[], object],
    peer: str,
    theirs: Callable[[], object],
    repeats: int = 5,
) -> Row:
    """Time ours against the peer's and make a row in seconds."""
    value, peer_value = alternate([ours, theirs], repeats)
    return row(name, value, "s", peer, peer_value, repeats=repeats)


def peak_traced(function: Callable[[], object]) -> int:
    """Return the bytes that a call allocates at its peak, as Python and NumPy report them.

    Arrays that Numba makes inside compiled code, and buffers of BLAS, are not seen: see `peak_rss`.
    """
    gc.collect()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _measure(target: str, arguments: list[Any]) -> int:
    """Measure in this process what `peak_rss` asks for; it runs in the fresh one."""
    module, name = target.split(":")
    work = getattr(importlib.import_module(module), name)(*arguments)
    with PeakMemory() as memory:
        result = work()
    del result
    if math.isnan(memory.n_bytes):
        msg = "the system does not tell how much memory a process takes; peak_rss needs Linux"
        raise OSError(msg)
    return int(memory.n_bytes)


def peak_rss(target: str, *arguments: Any) -> int:
    """Return the bytes by which a fresh process grows at the peak of a call, results included.

    Counts what is really in memory, whoever allocated it. Linux only.

    Parameters
    ----------
    target : str
        ``"module:function"``. The function gets `arguments` and returns the callable to measure;
        what it prepares (data, compiled kernels) is not counted.
    *arguments
        Anything that JSON can carry.
    """
    code = "import json, sys; from benchmarks.harness import _measure; "
    code += "print('peak', _measure(sys.argv[1], json.loads(sys.argv[2])))"
    command = [sys.executable, "-c", code, target, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode != 0:
        msg = f"measuring {target}{arguments} failed:\n{done.stderr}"
        raise RuntimeError(msg)
    return int(done.stdout.split("peak")[-1])


def peer_python(environment: str) -> Path | None:
    """Return the interpreter of an environment in the folder SCIKD_PEERS; None if there is none."""
    folder = os.environ.get("SCIKD_PEERS")
    python = Path(folder or "") / environment / "bin" / "python"
    return python if folder and python.is_file() else None


def run_worker(python: Path, script: Path, *arguments: str) -> None:
    """Run a script in an environment of peers, on one thread; raise RuntimeError if it fails."""
    done = subprocess.run(  # noqa: S603 - the environment that the user named
        [str(python), str(script), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        msg = f"{script.name} failed in {python}:\n{done.stderr}"
        raise RuntimeError(msg)


def _cell(value: object) -> str:
    """Format one cell."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned table; numbers to the right, keys of any row as columns."""
    columns = list(dict.fromkeys(key for one in rows for key in one))
    cells = [[_cell(one.get(column)) for column in columns] for one in rows]
    numeric = [all(isinstance(one.get(c), int | float | None) for one in rows) for c in columns]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [columns, ["-" * width for width in widths], *cells]
    aligned = (
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )
    return "\n".join(aligned) + "\n"


def write_json(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as a JSON list; the file is complete or is not touched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(list(rows), stream, indent=2)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)  # mkstemp makes it readable by its owner only
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
