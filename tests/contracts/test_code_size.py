"""Files and functions stay short. Docstrings, comments and blank lines are not counted."""

from __future__ import annotations

import ast
import io
import tokenize

from tests.contracts.source import checkout_files, needs_checkout

LINES_IN_FILE = 300
LINES_IN_FUNCTION = 60
FOLDERS = ("scikd", "md", "graphs", "finance", "benchmarks")

# Path from the root, or path::function, to the reason why it may be longer.
ALLOWED: dict[str, str] = {}

NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}
SCOPES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


EXAMPLE = '''"""A docstring
of two lines."""

# A comment.
text = """two
lines"""


def f():
    """Another docstring."""
    return (
        text
    )
'''


def code_lines(source, tree):
    """Return the numbers of the lines that hold code."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for scope in (node for node in ast.walk(tree) if isinstance(node, SCOPES)):
        # A string that stands alone documents what is before it, as the first one does its scope.
        for statement in scope.body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                lines.difference_update(range(statement.lineno, statement.end_lineno + 1))
    return lines


def sizes(name, source):
    """Yield what is measured: its name, its length, and how long it may be."""
    tree = ast.parse(source)
    lines = code_lines(source, tree)
    yield name, len(lines), LINES_IN_FILE
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = lines.intersection(range(node.lineno, node.end_lineno + 1))
            yield f"{name}::{node.name}", len(own), LINES_IN_FUNCTION


def measured():
    for name, path in checkout_files(*FOLDERS).items():
        yield from sizes(name, path.read_text(encoding="utf-8"))


@needs_checkout
def test_files_and_functions_are_short():
    long = [
        f"{name}: {length} lines of code, at most {limit}"
        for name, length, limit in measured()
        if length > limit and name not in ALLOWED
    ]
    assert not long, "\n".join(long)


@needs_checkout
def test_nothing_is_allowed_in_vain():
    needed = {name for name, length, limit in measured() if length > limit}
    assert set(ALLOWED) - needed == set()


def test_only_code_is_counted():
    assert list(sizes("m.py", EXAMPLE)) == [
        ("m.py", 6, LINES_IN_FILE),
        ("m.py::f", 4, LINES_IN_FUNCTION),
    ]
