# SPDX-License-Identifier: BSD-2-Clause
"""The site. `make docs` builds it; nothing is fetched, neither while building nor while reading."""

import sys
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dragon_optim import __version__

project = "dragon_optim"
author = "The dragon_optim authors"
copyright = "The dragon_optim authors"  # noqa: A001  the name that Sphinx reads
version = release = __version__

extensions = ["sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
default_role = "py:obj"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the docstrings name the types
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"dragon_optim {release}"
html_static_path = ["_static"]
html_css_files = ["math.css"]
html_math_renderer = "mathml"
html_show_sphinx = False


def _render_inline(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def _render_block(translator, node):
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


def _hide_sentinels(app, what, name, obj, options, signature, return_annotation):
    """Show the value that an argument has by default instead of the object that stands for "not given"."""
    if signature:
        signature = signature.replace("grad_scale=_GRAD_SCALE", "grad_scale=1")
    return signature, return_annotation


def setup(app):
    """Let docutils turn formulas into MathML, which browsers draw by themselves."""
    app.add_html_math_renderer("mathml", (_render_inline, None), (_render_block, None))
    app.connect("autodoc-process-signature", _hide_sentinels)
