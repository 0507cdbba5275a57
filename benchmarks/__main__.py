"""Run one benchmark by name; see `benchmarks.harness` for what the columns mean."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

import benchmarks
from benchmarks.harness import table, write_json


def available() -> list[str]:
    """List the benchmarks: every module here but the machinery."""
    names = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(
        name.replace("_", "-") for name in names if name != "harness" and not name.startswith("_")
    )


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the benchmark, print its table, and write it if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", metavar="NAME", help=f"one of: {', '.join(available())}")
    parser.add_argument("--quick", action="store_true", help="small sizes, less than 20 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    options = parser.parse_args(arguments)
    if options.name not in available():
        parser.error(f"there is no benchmark {options.name!r}; there are: {', '.join(available())}")
    rows = importlib.import_module(f"benchmarks.{options.name.replace('-', '_')}").run(
        options.quick
    )
    sys.stdout.write(table(rows))
    if options.json is not None:
        write_json(rows, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
