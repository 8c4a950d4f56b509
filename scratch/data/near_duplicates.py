"""near_duplicates: which pictures of one split look nearly like one of another split?

    picture ─▶ 13×13 grey g ─▶ differences g[i,j+1] − g[i,j] and g[i+1,j] − g[i,j] ─▶ centred, of length 1: f (288,)

    f·f' is the correlation of two pictures' edges: 1 for a copy, near 0 for another picture; f·f' ≥ 0.8 is reported

Two files of one photograph, one of them saved again, smaller or brighter, have different bytes and nearly the same
differences; so have two frames of a film. A score on such pictures measures memory. Greys themselves would not do: two
photographs of sky over ground correlate, and their edges do not. One matrix product compares all pairs.

The connected components of the pairs of one set that are alike are its `scenes`: the frames of a film, say.

Copies that were saved again, made smaller or brighter, or cut by a few pixels are found. Turned or mirrored copies are
not. Proven in tests/data/test_near_duplicates.py.
Read: fingerprint → near_duplicates → scenes
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator, Optional, Sequence

import numpy as np
from PIL import Image

from scratch.config import DataConfig
from scratch.data.images import image_size, read_reduced

CELLS = 12           # differences in a row
ALIKE = 0.8          # the least correlation that is reported
FEW_SHADES = 1.0     # the spread of the differences, in greys: with less, they are a decoder's noise
ROWS = 256           # pictures that are compared at a time


def fingerprint(picture: Image.Image) -> Optional[np.ndarray]:
    """288 numbers of length 1 (float32); None for a picture on which nothing can be told apart."""
    size = (CELLS + 1, CELLS + 1)
    grey = np.asarray(picture.convert("L").resize(size, Image.Resampling.BOX), dtype=np.float32)    # (13,13)
    across, down = np.diff(grey, axis=1)[:-1], np.diff(grey, axis=0)[:, :-1]                        # (12,12) each
    centred = np.stack((across - across.mean(), down - down.mean())).ravel()                        # (288,)
    return centred / np.linalg.norm(centred) if centred.std() > FEW_SHADES else None


def near_duplicates(splits: dict[str, Sequence[Path]], config: DataConfig = DataConfig()
                    ) -> Iterator[tuple[Path, str, Path, str, float]]:
    """(picture, its split, the nearest picture, its split, their correlation) for every picture of a later split that
    has a near one in an earlier one: the nearest of the first split that has a near one. Files that cannot be read, or
    are equal byte for byte, are left out.
    """
    before: list[tuple[str, list[Path], np.ndarray]] = []
    for split, paths in splits.items():
        rows, mine = _fingerprints(paths, config)                                                   # (n), (n,288)
        for start in range(0, len(rows) if before else 0, ROWS):
            of_each = [mine[start:start + ROWS] @ theirs.T for _, _, theirs in before]              # (≤256,m) each
            for k in range(len(of_each[0])):
                for (its_split, others, _), alike in zip(before, of_each):
                    nearest = int(alike[k].argmax()) if others else 0
                    if others and alike[k, nearest] >= ALIKE:
                        path, other = paths[rows[start + k]], others[nearest]
                        if not _equal(path, other):
                            yield path, split, other, its_split, float(alike[k, nearest])
                        break
        before.append((split, [paths[row] for row in rows], mine))


def scenes(paths: Sequence[Path], names: Sequence[str], config: DataConfig = DataConfig()) -> tuple[list[int], int]:
    """The scene of each picture, as the place in `paths` of its first one; and how many pictures were not compared.

    Scenes are the connected components (single linkage) of the pairs with f·f' ≥ 0.8, and of those of one name in
    `names`: a chain of pictures, each of which looks like the next. A picture that is like no other is a scene of its
    own, as is one that cannot be read or is of one shade.
    """
    places: dict[str, int] = {}
    first = np.array([places.setdefault(name, row) for row, name in enumerate(names)], dtype=np.int64)     # (N,)
    listed, found = _fingerprints(paths, config)                                                    # (n), (n,288)
    rows = np.array(listed, dtype=np.int64)
    for start in range(0, len(rows), ROWS):
        block = found[start:start + ROWS] @ found[:start + ROWS].T >= ALIKE                         # (≤256,m)
        for k, near in enumerate(block):
            its = np.unique(first[rows[:start + ROWS][near]])  # with its own
            if len(its) > 1:
                first[np.isin(first, its)] = its[0]
    return first.tolist(), len(paths) - len(rows)


def _fingerprints(paths: Sequence[Path], config: DataConfig) -> tuple[list[int], np.ndarray]:
    """The places in `paths` of those that have a fingerprint, and these: (n,288)."""
    def look(path: Path) -> Optional[np.ndarray]:
        try:
            shorter = min(image_size(path))
            by = max(by for by in (1, 2, 4, 8) if by == 1 or shorter >= 8 * by * CELLS)  # enough pixels for each cell
            return fingerprint(read_reduced(path, None, by, config).pixels)
        except Exception:  # told by the check that looks at every picture
            return None

    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        found = [(row, f) for row, f in enumerate(pool.map(look, paths)) if f is not None]
    return [row for row, _ in found], np.array([f for _, f in found], dtype=np.float32).reshape(-1, 2 * CELLS**2)


def _equal(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
