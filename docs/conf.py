"""Sphinx: the book, of the whole repository (`make site`)."""

from importlib import metadata
from pathlib import Path

from stabutils.publishing import book

project = "stabutils"
author = "The stabutils authors"
release = metadata.version("stabutils")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "stabutils.publishing.book",
]
root_doc = "docs/article"
include_patterns = [
    "*.md",
    "docs/**.md",
    "notebooks/[0-9]*.ipynb",
    "records/*/[0-9]*.ipynb",
    "course/README.md",
    "course/solutions/[0-9]*.ipynb",
    *book.course(Path(__file__).resolve().parents[1]),
    "examples/*.md",
]
exclude_patterns = ["**/.ipynb_checkpoints"]

nb_execution_mode = "off"  # executed notebooks are committed, published ones in records/
nb_merge_streams = True
nb_code_prompt_show = "Show code"
nb_code_prompt_hide = "Hide code"
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # docstrings say it in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
html_math_renderer = "mathml"

html_theme = "sphinx_book_theme"
html_title = "Your classifier disagrees with itself"
html_static_path = ["_static"]
html_context = {"default_mode": "light"}
html_theme_options = {"use_download_button": False, "navbar_persistent": []}
html_css_files = ["book.css"]
html_additional_pages = {"index": "front.html"}  # leads to the article
templates_path = ["_templates"]
html_show_search_summary = False  # it would fetch pages, which a browser forbids without a server
html_copy_source = False
html_show_sourcelink = False
