"""What an error tells the user to install brings what was missing."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from tests.contracts.source import ROOT, needs_checkout, package_files, parse

pytestmark = needs_checkout

# Import names that are not those of the distribution.
DISTRIBUTIONS = {"freud": "freud-analysis", "torch_sim": "torch-sim-atomistic", "yaml": "pyyaml"}


def normal(name):
    return re.sub("[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def extras():
    """Give the distributions of each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        name: {normal(re.match(r"[\w.-]+", line)[0]) for line in lines}
        for name, lines in project["optional-dependencies"].items()
    }


def required():
    """Yield file, module and extra of every call of `require` that names them."""
    for name, path in package_files().items():
        for node in ast.walk(parse(path)):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "require"):
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            module, extra = node.args[0], given["extra"]
            if isinstance(module, ast.Constant) and isinstance(extra, ast.Constant):
                yield f"{name}:{node.lineno}", module.value, extra.value


def test_an_extra_that_is_named_brings_the_package(extras):
    found = list(required())
    assert len(found) > 20
    wrong = []
    for where, module, extra in found:
        package = module.partition(".")[0]
        if normal(DISTRIBUTIONS.get(package, package)) not in extras[extra]:
            wrong.append(f"{where}: {extra} does not bring {package}")
    assert not wrong, "\n".join(wrong)


def test_commands_that_read_yaml_are_of_a_domain_whose_extra_brings_it(extras):
    from scikd.finance.cli import BUILT as FINANCE
    from scikd.graphs.cli import BUILT as GRAPHS
    from scikd.md.cli import BUILT as MD

    commands = [*FINANCE.values(), *GRAPHS.values(), *MD.values()]
    readers = [built.options for built in commands if built.file]
    assert readers
    for options in readers:
        assert "pyyaml" in extras[options.split(".")[1]], options
