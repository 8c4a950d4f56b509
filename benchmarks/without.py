"""without: the detector with one of its parts taken out.

    python -m benchmarks.without greedy train --preset tiny …     detr_scratch.py train …, matched greedily

    positions     every positional encoding is 0: attention sees a set of cells
    scale         the scores of attention are not divided by √d
    greedy        each object, in the order of the file, takes the cheapest query that is left: no Hungarian algorithm

Nothing in `scratch/` knows of this. While a `removed(NAME)` lasts, a name of a note stands for another function
wherever it is used. For `removal`, which measures what each part is worth. Proven in tests/test_removal.py.
"""

from __future__ import annotations

import math
import runpy
import sys
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Iterator, Sequence
from unittest.mock import patch

import torch
from torch import Tensor

from commands.children import COMMAND_LINE
from scratch.model import detr as published
from scratch.model.anchors import decoder, detr as variant
from scratch.objective import matcher
from scratch.ops import attention
from scratch.ops.beyond import conditional_attention


def zeros_like_its_result(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same shape and dtype, and nothing in it."""
    return lambda *args, **kwargs: torch.zeros_like(function(*args, **kwargs))


def unscaled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Attention without the division by √d: the queries are made √d times as long before."""
    return lambda q, *args, **kwargs: function(q * math.sqrt(q.shape[-1]), *args, **kwargs)


def greedy_assignment(cost: Sequence[Sequence[float]]) -> tuple[list[int], list[int]]:
    """Row by row, the cheapest column that no row before it has: cost R×C → min(R, C) pairs in the order of rows."""
    rows, columns = [], []
    for row, costs in enumerate(cost):
        left = [column for column in range(len(costs)) if column not in columns]
        if left:
            rows.append(row)
            columns.append(min(left, key=costs.__getitem__))
    return rows, columns


def _zeroed(*places: tuple[Any, str]) -> list[tuple[Any, str, Any]]:
    return [(module, name, zeros_like_its_result(getattr(module, name))) for module, name in places]


# What each word replaces: (module, name, what it then is). A module that has imported a name has one of its own.
PARTS: dict[str, list[tuple[Any, str, Any]]] = {
    "positions": _zeroed((published, "sine_encoding"), (variant, "sine_encoding"), (variant, "sine_of"),
                         (decoder, "sine_of")),
    "scale": [(module, "scaled_dot_product_attention", unscaled(module.scaled_dot_product_attention))
              for module in (attention, conditional_attention)],
    "greedy": [(matcher, "linear_sum_assignment", greedy_assignment)],
}


@contextmanager
def removed(part: str) -> Iterator[None]:
    """While it lasts, the detector is without `part`, one of PARTS."""
    with ExitStack() as stack:
        for module, name, other in PARTS[part]:
            stack.enter_context(patch.object(module, name, other))
        yield


def main(argv: Sequence[str]) -> None:
    if not argv or argv[0] not in PARTS:
        sys.exit(f"error: got {argv[0] if argv else 'no word'}, wanted one of {', '.join(PARTS)} and then the words of "
                 "detr_scratch.py")
    with removed(argv[0]), patch.object(sys, "argv", [str(COMMAND_LINE), *argv[1:]]):
        runpy.run_path(str(COMMAND_LINE), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
