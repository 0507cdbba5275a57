"""The source files that the contracts are about, and their syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import scikd

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(scikd.__file__).resolve().parent
DOMAINS = ("finance", "graphs", "md")

# Tests also run beside an installed wheel, and in an sdist, where the links have become folders.
needs_checkout = pytest.mark.skipif(
    not (ROOT / "md").is_dir(), reason="is about the checkout, and these tests stand elsewhere"
)


def package_files() -> dict[str, Path]:
    """Return every Python file of the package, by its path in it: ``scikd/md/model.py``."""
    found = {}
    for folder in (PACKAGE, *(PACKAGE / domain for domain in DOMAINS)):
        for path in folder.rglob("*.py"):  # does not follow the links to the domains
            found[(Path("scikd") / path.relative_to(PACKAGE)).as_posix()] = path
    assert len(found) > len(DOMAINS), f"found no sources in {PACKAGE}"
    return dict(sorted(found.items()))


def checkout_files(*folders: str) -> dict[str, Path]:
    """Return every Python file in folders of the checkout, by its path from the root."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path for path in sorted(found)}


@cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements that run on import, those in branches, classes and loops too.

    What stands under ``if TYPE_CHECKING:`` does not run.
    """
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                todo.extend(child.orelse)
                yield from (stmt for stmt in child.orelse)
                continue
            if isinstance(child, ast.stmt):
                yield child
            todo.append(child)


def imported(statement: ast.AST) -> list[str]:
    """Return the top-level packages that a statement imports absolutely."""
    if isinstance(statement, ast.Import):
        return [alias.name.partition(".")[0] for alias in statement.names]
    if isinstance(statement, ast.ImportFrom) and statement.level == 0 and statement.module:
        return [statement.module.partition(".")[0]]
    return []


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` for a name or an attribute, and an empty string for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""
