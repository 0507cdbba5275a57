"""A domain has one import name, ``scikd.<domain>``; any other is refused."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import pytest

from tests.contracts.source import DOMAINS, PACKAGE, ROOT, needs_checkout


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_full_name_is_importable(domain):
    module = importlib.import_module(f"scikd.{domain}")
    assert module.__name__ == f"scikd.{domain}"


@pytest.mark.parametrize("domain", DOMAINS)
def test_another_name_is_refused(domain):
    spec = importlib.util.spec_from_file_location(domain, PACKAGE / domain / "__init__.py")
    with pytest.raises(ImportError, match=rf"got '{domain}': write `import scikd\.{domain}`"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@needs_checkout
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_bare_import_from_the_root_of_the_checkout_is_refused(domain):
    run = subprocess.run(
        [sys.executable, "-c", f"import {domain}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"write `import scikd.{domain}`" in run.stderr


@needs_checkout
@pytest.mark.parametrize("domain", DOMAINS)
def test_the_link_is_relative(domain):
    link = ROOT / "scikd" / domain
    assert link.is_symlink()
    assert link.readlink().as_posix() == f"../{domain}"
