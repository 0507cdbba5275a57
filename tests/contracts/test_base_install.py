"""With only the base dependencies installed, every core module can be imported."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest

from tests.contracts.source import ROOT, needs_checkout

pytestmark = [pytest.mark.slow, needs_checkout]

# Domains may need their extra; asking for one by name then says so.
PROGRAM = """
import importlib, json, pkgutil, sys
import scikd

def failed(name):
    raise ImportError(f"could not import the package {name}")

names, problems = [], {}
for module in pkgutil.walk_packages(scikd.__path__, "scikd.", onerror=failed):
    if module.name.split(".")[1] in {"md", "graphs", "finance"} or "__main__" in module.name:
        continue
    names.append(module.name)
    try:
        importlib.import_module(module.name)
    except Exception as error:
        problems[module.name] = repr(error)
print(json.dumps({"file": scikd.__file__, "names": names, "problems": problems}))
"""


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Install the locked base dependencies and the project apart; return the interpreter."""
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install = (python, "-m", "pip", "install", "--quiet")
    run(*install, "-c", ROOT / "requirements.lock", *project["dependencies"], cwd=folder)
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel")
    run(*build, "--outdir", folder / "dist", ROOT, cwd=folder)
    run(*install, "--no-deps", *(folder / "dist").glob("*.whl"), cwd=folder)
    return python


def test_every_core_module_is_importable(bare, tmp_path):
    result = json.loads(run(bare, "-W", "error", "-c", PROGRAM, cwd=tmp_path))
    assert result["problems"] == {}
    assert "scikd.ensemble" in result["names"]
    assert result["file"].startswith(str(bare.parents[1]))


def test_the_declared_dependencies_are_the_ones_needed(bare, tmp_path):
    run(bare, "-m", "pip", "check", cwd=tmp_path)


def test_no_extra_came_along(bare, tmp_path):
    listing = json.loads(run(bare, "-m", "pip", "list", "--format", "json", cwd=tmp_path))
    extras = {"ase", "e3nn", "lightgbm", "matplotlib", "torch"}
    assert extras.intersection(package["name"].lower() for package in listing) == set()
