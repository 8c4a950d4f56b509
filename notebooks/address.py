"""address: where is this repository? A notebook that Colab opens has no clone around it, and must say it.

    python -m notebooks.address https://github.com/ME/detr-scratch.git

One address stands in the first cell of every notebook (the .py and the .ipynb, whose outputs stay) and in the cells for
Colab of docs/using.md. The first notebook's source is what counts; here it is changed in all of them at once. OWNER in
it stands for an account that is not known yet: then the first cell asks for the address.
Proven in tests/test_notebooks.py. Read: address → move
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Sequence

from notebooks.execute import NAMES, ROOT

PAGES = ("docs/using.md",)
_LINE = re.compile(r'^REPOSITORY = "([^"]+)"', re.M)


def files(root: Path = ROOT) -> list[Path]:
    """Every file that holds the address."""
    return [root / "notebooks" / f"{name}{end}" for name in NAMES for end in (".py", ".ipynb")] + [
        root / page for page in PAGES]


def address(root: Path = ROOT) -> str:
    """The address as it is written now."""
    return _LINE.findall((root / "notebooks" / f"{NAMES[0]}.py").read_text(encoding="utf-8"))[0]


def move(new: str, root: Path = ROOT) -> int:
    """Write another address into all files; how many of them changed. Raises ValueError for what is no address."""
    if not re.fullmatch(r"https://[\w.-]+(/[\w.~-]+)+", new):
        raise ValueError(f"got {new!r}, wanted the address of the repository: https://github.com/ME/detr-scratch.git")
    old, changed = address(root), 0
    for path in files(root):
        text = path.read_text(encoding="utf-8")
        if old != new and old in text:
            path.write_text(text.replace(old, new), encoding="utf-8")
            changed += 1
    return changed


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", nargs="?", help="the new one (none: print the present one)")
    new = parser.parse_args(argv).address
    print(f"{move(new)} files changed" if new else address())


if __name__ == "__main__":
    main()
