"""conf: what Sphinx is told. The sources lie in a folder that docs/site/stage.py fills."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent

project = "DETR from scratch"
author = "The DETR from scratch authors"
html_title = "DETR from scratch"
language = "en"
extensions = ["myst_parser", "docs.site.extension"]
root_doc = "index"
nitpicky = True
highlight_language = "text"  # a block of a document that names no language holds commands
suppress_warnings = ["myst.header"]  # a page that tools write may begin at the second level
smartquotes = False  # documents and code write their own

myst_heading_anchors = 6  # as on GitHub
myst_links_external_new_tab = False

html_theme = "furo"
html_static_path = [str(HERE / "static")]
templates_path = [str(HERE / "templates")]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_use_index = False
html_domain_indices = False
pygments_style = "a11y-high-contrast-light"  # both have the contrast that WCAG asks for
pygments_dark_style = "github-dark"
html_theme_options = {"navigation_with_keys": False, "top_of_page_buttons": []}
