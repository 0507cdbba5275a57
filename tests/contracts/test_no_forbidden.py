"""What must not stand in the sources: ways to run code from a file, silence, and bulk."""

from __future__ import annotations

import ast
import subprocess

import pytest

from tests.contracts.source import (
    ROOT,
    checkout_files,
    dotted,
    needs_checkout,
    package_files,
    parse,
)

LARGEST_FILE = 5_000_000

UNSAFE_LOADERS = frozenset(
    f"{module}.{function}"
    for module in ("pickle", "cPickle", "_pickle", "cloudpickle", "dill")
    for function in ("load", "loads", "Unpickler")
) | {"joblib.load", "pandas.read_pickle", "pd.read_pickle", "shelve.open"}


def unsafe_names(tree):
    """Yield imports such as ``from pickle import loads``, which would hide the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if f"{node.module}.{alias.name}" in UNSAFE_LOADERS:
                    yield node.lineno, f"from {node.module} import {alias.name}"


def unsafe_calls(tree):
    aliases = {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.asname
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, _, rest = dotted(node.func).partition(".")
        name = f"{aliases.get(first, first)}.{rest}" if rest else first
        if name in UNSAFE_LOADERS:
            yield node.lineno, name
        constants = (k for k in node.keywords if isinstance(k.value, ast.Constant))
        keywords = {k.arg: k.value.value for k in constants}
        if keywords.get("allow_pickle"):
            yield node.lineno, "allow_pickle=True"
        if keywords.get("weights_only") is False:
            yield node.lineno, "weights_only=False"


def swallowed(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            everything = node.type is None or dotted(node.type) in {"Exception", "BaseException"}
            if everything and all(isinstance(statement, ast.Pass) for statement in node.body):
                yield node.lineno, "an except that hides every error"


def prints(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) == "print":
            yield node.lineno, "print"


RULES = (unsafe_names, unsafe_calls, swallowed, prints)


def may_print(name):
    """Say whether a file is a command line, which talks to a person."""
    return name.startswith("benchmarks/") or name.endswith(("/cli.py", "/__main__.py"))


def offences(files):
    for name, path in files.items():
        for rule in RULES:
            if rule is prints and may_print(name):
                continue
            yield from (f"{name}:{line}: {what}" for line, what in rule(parse(path)))


def test_the_package_holds_nothing_forbidden():
    found = list(offences(package_files()))
    assert not found, "\n".join(found)


@needs_checkout
def test_the_rest_of_the_checkout_holds_nothing_forbidden():
    found = list(offences(checkout_files("benchmarks", "examples", "data", "docs")))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle\npickle.load(file)",
        "import pickle as p\np.loads(data)",
        "from pickle import loads",
        "import joblib\njoblib.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path, weights_only=False)",
        "try:\n    f()\nexcept:\n    pass",
        "try:\n    f()\nexcept Exception:\n    pass",
        "print(1)",
    ],
)
def test_each_rule_finds_what_it_forbids(code):
    assert [found for rule in RULES for found in rule(ast.parse(code))] != []


@pytest.mark.parametrize(
    "code",
    [
        "import json\njson.load(file)",
        "np.load(path, allow_pickle=False)",
        "torch.load(path, weights_only=True)",
        "try:\n    f()\nexcept KeyError:\n    pass",
    ],
)
def test_no_rule_finds_what_is_allowed(code):
    assert [found for rule in RULES for found in rule(ast.parse(code))] == []


@needs_checkout
def test_no_large_file_is_in_git():
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - from PATH
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip("is about the git repository, and this folder is none")
    paths = [ROOT / name.decode() for name in listing.stdout.split(b"\0") if name]
    large = [
        f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes"
        for path in paths
        if path.is_file() and path.stat().st_size > LARGEST_FILE
    ]
    assert not large, "\n".join(large)
