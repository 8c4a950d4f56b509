"""shown: what does a notebook show, beside text and numbers?

    source(f, g)          the source of functions, coloured (Jupyter, Colab and GitHub colour Markdown alike)
    panels(pictures)      pictures or maps side by side, in rows

Proven in tests/test_notebooks.py.
"""

from __future__ import annotations

import inspect
import textwrap
from typing import Any, Sequence

import numpy as np
from IPython.display import Markdown
from matplotlib import pyplot as plt
from matplotlib.figure import Figure


def source(*things: Any) -> Markdown:
    """The source of functions, methods or classes, one below the other, as they stand in their files."""
    texts = [textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things]
    return Markdown("\n".join(f"```python\n{text}\n```" for text in texts))


def panels(pictures: Sequence[Any], titles: Sequence[str] = (), columns: int = 4, size: float = 2.6,
           **how: Any) -> Figure:
    """Pictures (PIL images, arrays or tensors: (H,W) or (H,W,3)) in rows of `columns`, each `size` inches wide.

    how   what matplotlib's imshow takes: cmap, vmin, vmax …
    Raises ValueError without pictures, and where there are titles, but not one for each.
    """
    if not pictures or (titles and len(titles) != len(pictures)):
        raise ValueError(f"got {len(pictures)} pictures and {len(titles)} titles, wanted at least one picture, and no "
                         "title or one for each")
    def array(picture: Any) -> np.ndarray:  # of an image with a palette, not its places in the palette
        return np.asarray(picture.convert("RGB") if getattr(picture, "palette", None) else picture)

    arrays = [array(picture) for picture in pictures]
    columns = min(columns, len(arrays))
    rows = -(-len(arrays) // columns)
    height = size * max(each.shape[0] / each.shape[1] for each in arrays)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * (height + 0.35)), squeeze=False,
                                layout="constrained")
    for place in axes.flat:
        place.set_axis_off()
    for place, each, title in zip(axes.flat, arrays, titles or [""] * len(arrays)):
        place.imshow(each, **how)
        place.set_title(title, fontsize=9)
    return figure
