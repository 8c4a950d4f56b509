"""side_menu: Furo computes the side menu anew for every page, which takes most of a build where pages are many.

All pages of one folder have the same menu, but for the mark of the current page. So it is computed once for each
folder, and the mark is set afterwards.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

from sphinx.application import Sphinx

_MENUS: dict[str, str] = {}


def share(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Before Furo asks for the menu: answer with that of the page's folder."""
    whole = context.get("toctree")
    if whole is None:
        return
    folder = posixpath.dirname(pagename)

    def menu(**wishes: Any) -> str:
        if folder not in _MENUS:
            _MENUS[folder] = _without_mark(whole(**wishes), pagename)
        return _MENUS[folder]

    context["toctree"] = menu


def _without_mark(html: str, pagename: str) -> str:
    """The menu as another page of the folder has it: no current entry, and an address in place of "#"."""
    own = posixpath.basename(pagename) + ".html"
    html = re.sub(r'href="#"', f'href="{own}"', html)
    return re.sub(r' class="([^"]*?) ?\bcurrent\b([^"]*)"', r' class="\1\2"', html)


def mark(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """After Furo: mark the current page, and open the entries above it."""
    html = context.get("furo_navigation_tree", "")
    folder = posixpath.dirname(pagename)
    parents = {child: parent for parent, children in app.env.toctree_includes.items() for child in children}
    name, own = pagename, True
    while name in parents or own:
        href = re.escape(posixpath.relpath(f"{name}.html", folder or "."))
        css = "current current-page" if own else "current"
        html = re.sub(rf'<li class="([^"]*)">(<a class="reference internal" href="{href}">)',
                      rf'<li class="\1 {css}">\2', html)
        html = re.sub(rf'(href="{href}">[^<]*</a><input )([^>]*?type="checkbox")', r'\1checked="" \2', html)
        name, own = parents.get(name, ""), False
    # A heading says its level, or screen readers do not know it.
    context["furo_navigation_tree"] = html.replace('role="heading"', 'role="heading" aria-level="2"')


def setup(app: Sphinx) -> None:
    _MENUS.clear()
    app.connect("html-page-context", share, priority=400)
    app.connect("html-page-context", mark, priority=900)
