"""page: one widget as a page of its own, built of the same parts as the site builds it of.

    python -m docs.site.play.page OUT        writes a page for each widget into the folder OUT
"""

from __future__ import annotations

import html
import json
import sys
from pathlib import Path

from docs.site.play import WIDGETS, Widget
from scratch.whole_file import write_text

# What Furo brings: its colours on a light and on a dark page, and a plain body.
_FURO = ("body{--color-foreground-primary:#000;--color-foreground-secondary:#5a5c63;--color-background-primary:#fff;"
         "--color-background-secondary:#f8f9fb;margin:0;padding:1rem;max-width:46rem;margin:auto;"
         "font-family:system-ui,sans-serif;background:var(--color-background-primary);"
         "color:var(--color-foreground-primary)}")
_FURO_DARK = ("{--color-foreground-primary:#cfd0d0;--color-foreground-secondary:#9ca0a5;"
              "--color-background-primary:#131416;--color-background-secondary:#1a1c1e}")


def data_element(widget: Widget) -> str:
    """The element that holds the widget's numbers. No text in it can end it: "<" is written as an escape."""
    content = json.dumps(widget.data(), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{widget.name}-data">{content}</script>'


def standalone_page(widget: Widget, theme: str = "auto") -> str:
    """A whole page with the widget alone; theme: "light", "dark", or "auto" for what the reader's system prefers."""
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(widget.title)}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><style>'
            f'{_FURO}body[data-theme="dark"]{_FURO_DARK}'
            f'@media(prefers-color-scheme:dark){{body:not([data-theme="light"]){_FURO_DARK}}}'
            f'</style></head><body data-theme="{theme}"><main><h1>{html.escape(widget.title)}</h1>\n{widget.html}'
            f'{data_element(widget)}\n<script>{widget.script_file.read_text(encoding="utf-8")}</script>'
            "</main></body></html>\n")


if __name__ == "__main__":
    for one in WIDGETS:
        write_text(Path(sys.argv[1]) / f"{one.name}.html", standalone_page(one))
