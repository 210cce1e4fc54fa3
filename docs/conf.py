"""The documentation site: ``make docs``.

The source is the repository itself, so that README.md, CONTRIBUTING.md and the pages of this folder
link to each other by the same relative paths here and on the repository's host.
"""

import inspect
import re
import sys
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.ext import autosummary
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

import chartae

LOGGER = logging.getLogger(__name__)

project = "chartae"
copyright = "the authors of chartae"
release = chartae.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**"]
# Folders without pages are named too, so that their files are not searched.
exclude_patterns = [".*", "benchmarks", "examples", "src", "tests", "docs/_build", "docs/site"]
root_doc = "docs/index"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"  # `RHVAE` in a docstring is a link, where the name is on a page
highlight_language = "none"

autodoc_inherit_docstrings = False  # the methods of a contract are on the page of its base class
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autosummary_generate = False
# The first sentence of a docstring, which the tables show, does not end with these.
autosummary.WELL_KNOWN_ABBREVIATIONS += ("Alg.", "ch.", "eq.")
napoleon_use_ivar = True  # attributes are fields of their class, without an entry for each
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"chartae {release}"
html_extra_path = ["site"]  # the page that leads from the root of the site to the landing page
html_math_renderer = "mathml"
html_copy_source = False


class Api(SphinxDirective):
    """Document public names of a module: a table of their first lines, then each in full."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        module = import_module(name)
        rst = [f".. currentmodule:: {name}", "", ".. autosummary::", "   :nosignatures:", ""]
        rst += [f"   {item}" for item in self.content]
        for item in self.content:
            rst += ["", *entry(item, getattr(module, item))]
        return self.parse_text_to_nodes("\n".join(["```{eval-rst}", *rst, "```"]))


def entry(name: str, item: object) -> list[str]:
    """Return the directive that documents a name."""
    if inspect.isclass(item):
        return [f".. autoclass:: {name}", "   :members:", "   :show-inheritance:"]
    if inspect.isfunction(item):
        return [f".. autofunction:: {name}"]
    return [f".. autodata:: {name}", "   :no-value:"]


def document_data(
    app: Sphinx, what: str, name: str, item: object, options: Any, lines: list[str]
) -> None:
    """Give a constant the text below its definition, which is in another module."""
    if what == "data":
        short = name.rpartition(".")[2]
        homes = [m for m in sorted(sys.modules) if m.partition(".")[0] == "chartae"]
        holders = [m for m in homes if vars(sys.modules[m]).get(short) is item]
        texts = [ModuleAnalyzer.for_module(m).find_attr_docs().get(("", short)) for m in holders]
        lines[:] = next(filter(None, texts), [])
        if not lines:
            LOGGER.warning("%s has no documentation", name)


def keep_colons(
    app: Sphinx, what: str, name: str, item: object, options: Any, lines: list[str]
) -> None:
    """Start texts of attributes with a comment: napoleon takes a word before a colon as a type."""
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]


def without_ranges(
    app: Sphinx,
    what: str,
    name: str,
    item: object,
    options: Any,
    signature: str | None,
    result: str | None,
) -> tuple[str | None, str | None]:
    """Shorten types with a range, as ``Annotated[int, Range(...)]``; the text gives the range."""
    return re.sub(r"Annotated\[(\w+), [^\[\]]*\]", r"\1", signature or "") or None, result


def nest_models(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the pages of the models below their index, which is also read without Sphinx."""
    if page == "docs/models/README":
        source[0] += "\n```{toctree}\n:glob:\n:hidden:\n\n*\n```\n"


def write_math(translator: HTML5Translator, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show without a script."""
    block = isinstance(node, nodes.math_block)
    try:
        formula = tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        LOGGER.warning("%s: %s", error, node.astext(), location=node)
        raise nodes.SkipNode from None
    formula = formula.replace("<mo>‖</mo>", '<mo stretchy="false">‖</mo>')  # else of two heights
    # Exponents reach out of the box of a formula, which would get a scroll bar without the padding.
    translator.body.append(f'<div style="padding: 1ex 0">{formula}</div>\n' if block else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Connect the functions above to Sphinx."""
    app.add_directive("api", Api)
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("autodoc-process-docstring", document_data)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", without_ranges)
    app.connect("source-read", nest_models)
