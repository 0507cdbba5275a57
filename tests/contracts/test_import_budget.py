"""``import scikd`` costs next to nothing, and drags in nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.contracts.source import imported, module_level, package_files, parse

SECONDS_BEYOND_NUMPY = 0.25
RUNS = 5

NOT_AFTER_IMPORT = frozenset(
    {"ase", "e3nn", "matplotlib", "numba", "pandas", "torch", "torch_geometric", "typer"}
)

# Packages of extras: a core module imports them where they are used, through scikd._extras.
NOT_AT_MODULE_LEVEL = frozenset(
    {
        "arch",
        "ase",
        "e3nn",
        "lightgbm",
        "matplotlib",
        "skfolio",
        "tblite",
        "torch",
        "torch_geometric",
        "vesin",
        "xgboost",
    }
)

PROGRAM = """
import json, sys, time
start = time.perf_counter()
import numpy
middle = time.perf_counter()
import scikd
end = time.perf_counter()
print(json.dumps({"numpy": middle - start, "scikd": end - middle, "modules": sorted(sys.modules)}))
"""


def python(program):
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def fresh_import():
    return json.loads(python(PROGRAM))


def test_import_scikd_is_quick():
    # The best of several: other work on the machine only ever makes a run slower.
    best = min(fresh_import()["scikd"] for _ in range(RUNS))
    assert best < SECONDS_BEYOND_NUMPY, f"`import scikd` takes {best:.3f} s beyond NumPy"


def test_import_scikd_loads_nothing_heavy():
    loaded = NOT_AFTER_IMPORT.intersection(fresh_import()["modules"])
    assert sorted(loaded) == []


def test_the_core_imports_no_extra_at_module_level():
    offences = [
        f"{name}:{statement.lineno}: imports {package}"
        for name, path in package_files().items()
        if name.split("/")[1] not in {"finance", "graphs", "md"}
        for statement in module_level(parse(path))
        for package in imported(statement)
        if package in NOT_AT_MODULE_LEVEL
    ]
    assert not offences, "\n".join(offences)


def test_importing_a_domain_needs_no_extra():
    program = (
        "import sys, scikd.md, scikd.graphs, scikd.finance; "
        f"print(*sorted({NOT_AFTER_IMPORT | NOT_AT_MODULE_LEVEL!r}.intersection(sys.modules)))"
    )
    assert python(program).split() == []
