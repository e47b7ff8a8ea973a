"""The site: written pages, and pages made from the code's docstrings each time it is built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # the pages' makers, and the package as it is in this tree

from docstring_markup import as_restructured_text  # noqa: E402
from generated_pages import generated_pages  # noqa: E402

import hf_ltsam  # noqa: E402

project = "hf_ltsam"
author = "The hf_ltsam authors"
copyright = author
release = version = hf_ltsam.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_heading_anchors = 3
napoleon_numpy_docstring = False
napoleon_use_param = False  # names that share a description stay together
napoleon_use_rtype = False
autodoc_inherit_docstrings = False  # what is inherited from transformers and torch is documented there
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
viewcode_line_numbers = True

templates_path = ["templates"]
exclude_patterns = ["templates"]

html_theme = "furo"
html_title = "hf_ltsam"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sphinx = False


def write_generated_pages(*_: Any) -> None:
    """Into `generated/`, which git ignores, before Sphinx looks for pages."""
    pages = {HERE / "generated" / name: text for name, text in generated_pages().items()}
    for page in set((HERE / "generated").rglob("*.*")) - set(pages):
        page.unlink()  # of something that is no more
    for page, text in pages.items():
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.is_file() or page.read_text() != text:  # unchanged pages are not read again
            page.write_text(text)


def translate(app: Any, what: str, name: str, documented: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_restructured_text(lines)


def shorten(app: Any, what: str, name: str, documented: Any, options: Any, signature: str, returns: str) -> Any:
    """The settings are a table of their own; all 150 as a signature would hide them."""
    return ("(output_dir, ...)", None) if name.endswith("LTSamConfig") else None


def setup(app: Any) -> None:
    app.connect("config-inited", write_generated_pages)
    app.connect("autodoc-process-docstring", translate, priority=400)  # before napoleon reads the sections
    app.connect("autodoc-process-signature", shorten)
