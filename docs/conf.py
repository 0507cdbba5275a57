"""Configuration of the documentation: `make docs`."""

from __future__ import annotations

import re
from typing import Any

from docutils.utils.math.latex2mathml import tex2mathml

import scikd

project = "scikd"
author = "the scikd authors"
copyright = author  # noqa: A001 - the name that Sphinx looks for
version = release = scikd.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "py:obj"  # docstrings name classes and functions in single backticks
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # types stand in the numpydoc sections
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = "scikd"
html_static_path = ["_static"]
html_css_files = ["scikd.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options: dict[str, Any] = {
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
}
html_sidebars = {"*": [], "api": ["sidebar-nav-bs"], "generated/*": ["sidebar-nav-bs"]}
html_math_renderer = "mathml"


def _inline(writer: Any, node: Any) -> None:
    writer.body.append(tex2mathml(node.astext()))


def _block(writer: Any, node: Any) -> None:
    writer.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')


def _visit(draw: Any) -> Any:
    def visit(writer: Any, node: Any) -> None:
        from docutils.nodes import SkipNode  # noqa: PLC0415 - how docutils says "done"

        draw(writer, node)
        raise SkipNode

    return visit


# Shapes in docstrings, "(n, *shape)" and "(n_features_in_,)", are no markup.
_STAR = re.compile(r"(?<=[ (])\*(?=\w+\))")
_UNDERSCORE = re.compile(r"(?<=\()(\w+)_(?=,\))")


def _escape_shapes(_app: Any, _what: str, _name: str, _obj: Any, _opts: Any, lines: Any) -> None:
    for i, line in enumerate(lines):
        if "``" not in line:
            lines[i] = _UNDERSCORE.sub(r"\1\\_", _STAR.sub(r"\\*", line))


def setup(app: Any) -> None:
    """Draw formulas as MathML, which browsers know, so that pages need no script from elsewhere."""
    app.connect("autodoc-process-docstring", _escape_shapes, priority=400)  # before numpydoc
    app.add_html_math_renderer("mathml", (_visit(_inline), None), (_visit(_block), None))
