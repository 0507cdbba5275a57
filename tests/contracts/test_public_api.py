"""``__all__`` says what is public: sorted, complete, and nothing that is not there."""

from __future__ import annotations

import ast
import importlib

import pytest

from tests.contracts.source import package_files, parse


def module_name(file):
    """Turn ``scikd/kernels/__init__.py`` into ``scikd.kernels``."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_public(file):
    parts = module_name(file).split(".")
    return not any(part.startswith("_") for part in parts)


def is_empty(tree):
    """Say whether a module defines and imports nothing, but for the guard of a domain."""
    return all(isinstance(node, ast.Expr | ast.If) for node in tree.body)


MODULES = {
    module_name(file): path
    for file, path in package_files().items()
    if is_public(file) and not is_empty(parse(path))
}


def listed(tree):
    """Return the names in ``__all__``, or None if it is not a literal list."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        if [ast.unparse(target) for target in targets] == ["__all__"]:
            return ast.literal_eval(node.value)
    return None


def defined(tree):
    """Return the public functions and classes that a module defines."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")}


def imported_from_elsewhere(tree):
    """Return the names that a module imports, but for those from a private module of scikd."""
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scikd._"))
        for alias in node.names
    }


def place(name):
    """Constants first, then classes, then the rest, each by the alphabet: ruff's order."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("name", MODULES)
def test_all_is_sorted_and_complete(name):
    tree = parse(MODULES[name])
    names = listed(tree)
    assert names is not None, f"{name} has no literal __all__"
    assert names == sorted(names, key=place), f"{name}.__all__ is not sorted"
    assert len(names) == len(set(names)), f"{name}.__all__ names something twice"
    if name.endswith(".cli"):
        return  # its functions are commands, which are named in a shell
    missing = defined(tree) - set(names)
    assert not missing, f"{name} defines {sorted(missing)}: add to __all__, or begin with '_'"
    if MODULES[name].name != "__init__.py":
        borrowed = imported_from_elsewhere(tree) & set(names)
        assert not borrowed, f"{name}.__all__ names {sorted(borrowed)}, which live elsewhere"


@pytest.mark.parametrize("name", MODULES)
def test_all_names_what_is_there(name):
    module = importlib.import_module(name)
    assert [public for public in module.__all__ if not hasattr(module, public)] == []
