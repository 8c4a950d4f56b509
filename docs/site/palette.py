"""palette: the colours of drawings and of pages to play with, on a light and on a dark page.

Text and page follow the theme (Furo's variables); the accents are chosen for each of the two backgrounds, so that text
in them has a contrast of at least 4.5 to 1 (WCAG 2.1, criterion 1.4.3). Proven in tests/site/test_drawings.py.
"""

from __future__ import annotations

LIGHT = {"ink": "var(--color-foreground-primary, #1c1e21)", "soft": "var(--color-foreground-secondary, #5a5c63)",
         "paper": "var(--color-background-primary, #ffffff)", "card": "var(--color-background-secondary, #f8f9fb)",
         "line": "#b4b9c0", "blue": "#1b5fc1", "orange": "#a84a00", "green": "#14713f", "red": "#b3261e",
         "violet": "#6c3dc4", "on-blue": "#ffffff"}
DARK = {"ink": "var(--color-foreground-primary, #cfd0d0)", "soft": "var(--color-foreground-secondary, #9ca0a5)",
        "paper": "var(--color-background-primary, #131416)", "card": "var(--color-background-secondary, #1a1c1e)",
        "line": "#565c63", "blue": "#7db3ff", "orange": "#ffad66", "green": "#69d39d", "red": "#ff8f86",
        "violet": "#c5a6ff", "on-blue": "#0d1320"}


def themed(selector: str) -> str:
    """CSS rules that define the colours as variables (--blue …) for the elements of `selector`, on either page."""
    light, dark = (";".join(f"--{name}:{value}" for name, value in colours.items()) for colours in (LIGHT, DARK))
    return (f"{selector}{{{light};color-scheme:light}}"
            f'body[data-theme="dark"] {selector}{{{dark};color-scheme:dark}}'
            f'@media screen and (prefers-color-scheme:dark){{body:not([data-theme="light"]) {selector}'
            f'{{{dark};color-scheme:dark}}}}')
