"""Imports point downwards, as the contracts in pyproject.toml say."""

from __future__ import annotations

import subprocess
import sys

from tests.contracts.source import ROOT, needs_checkout

# In a process of its own: import-linter sets up logging, and would silence loggers made before it.
PROGRAM = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(config_filename="pyproject.toml", no_cache=True))
"""


@needs_checkout
def test_import_contracts_are_kept():
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
