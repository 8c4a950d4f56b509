"""`python -m docs.site [--out FOLDER]`: build the web site into a folder (default: site)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from docs.site.build import build


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.site", description="Build the web site of this checkout.")
    parser.add_argument("--out", type=Path, default=Path("site"), metavar="FOLDER", help="where to write it (site)")
    out = parser.parse_args().out
    try:
        build(out)
    except (OSError, ValueError) as problem:
        print(f"docs.site: {problem}", file=sys.stderr)
        return 1
    pages = sum(1 for _ in out.rglob("*.html"))
    print(f"{pages} pages in {out}: open {out / 'index.html'} in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
