"""display: how are input, wanted and got shown, so that a person sees the difference?

    wanted   11.5  17  -1
    got      11    17  -2
             ^^^^      ^^

Short tensors whole, row by row; of a long one the first row that differs. Proven in tests/exercises/test_display.py.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

FEW = 24  # numbers that are shown whole
WIDE = 10  # numbers of one row


def number(value: Any, digits: int = 4) -> str:
    """A number with few digits; whole numbers without a point."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return str(value)
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "∞", "-inf": "-∞"}[str(float(value))]
    return str(int(value)) if value == int(value) and abs(value) < 1e6 else f"{value:.{digits}g}"


def shown(value: Any) -> str:
    """An input on one line, or its shape where it is long."""
    if isinstance(value, Tensor):
        if value.numel() > FEW:
            return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
        return nested(value.tolist()) if value.numel() else f"empty, of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {shown(each)}" for name, each in value.items()) + "}"
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return "[" + ", ".join(shown(each) for each in value[:2]) + (", …]" if len(value) > 2 else "]")
    if isinstance(value, list):
        rows = len(value) * (len(value[0]) if value and isinstance(value[0], list) else 1)
        return nested(value) if rows <= FEW else f"{len(value)} rows of {len(value[0])}"
    return str(value).removeprefix("torch.")


def nested(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(nested(each) for each in value) + "]"
    return number(value)


def inputs(given: dict[str, Any]) -> list[str]:
    """One line for each input; those that are None are left out."""
    there = {name: value for name, value in given.items() if value is not None}
    width = max((len(name) for name in there), default=0)
    return [f"{name:{width}} = {cut(shown(value))}" for name, value in there.items()]


def cut(text: str, most: int = 150) -> str:
    return text if len(text) <= most else text[:most] + " …"


def difference(wanted: Optional[Tensor], got: Optional[Tensor], tolerance: float = 1e-8,
               expected: Optional[torch.dtype] = None) -> list[str]:
    """Wanted above got; below them marks where they differ.

    expected   the dtype that is wanted, where it is not that of `wanted` (the truth is float64)
    """
    if wanted is None or got is None:
        return [f"{name:9}{'None' if x is None else whole(x)}" for name, x in (("wanted", wanted), ("got", got))]
    if wanted.shape != got.shape:
        return [f"wanted   {whole(wanted)}", f"got      {whole(got)}",
                f"shapes   wanted {tuple(wanted.shape)}, got {tuple(got.shape)}"]
    wrong = ~torch.isclose(wanted.double(), got.double(), rtol=tolerance, atol=tolerance, equal_nan=True)
    lines: list[str] = []
    if got.dtype != (expected or wanted.dtype) and wanted.dtype.is_floating_point and not wrong.any():
        one, other = (str(dtype).removeprefix("torch.") for dtype in (expected or wanted.dtype, got.dtype))
        return [f"dtype    wanted {one}, got {other}; the numbers are right"]
    rows = [(index, w, g, x) for index, w, g, x in zip(_indices(wanted), _rows(wanted), _rows(got), _rows(wrong))]
    several = len(rows) > 1
    shown_rows = rows if wanted.numel() <= FEW else [row for row in rows if row[3].any()][:1] or rows[:1]
    for index, w, g, x in shown_rows:
        if several and wanted.numel() <= FEW and not x.any() and wrong.any():
            continue
        if several:
            lines.append(f"at [{', '.join(map(str, index))}]")
        lines += _aligned(w, g, x)
    if several and wrong.any():
        lines.append(f"{int(wrong.sum())} of {wrong.numel()} numbers differ (shape {tuple(wanted.shape)})")
    return lines


def whole(x: Tensor) -> str:
    return cut(shown(x))


def _rows(x: Tensor) -> list[Tensor]:
    return list(x.reshape(-1, x.shape[-1])) if x.dim() and x.numel() else [x.reshape(-1)]


def _indices(x: Tensor) -> list[tuple[int, ...]]:
    if x.dim() < 2 or not x.numel():
        return [()]
    return [tuple(index) for index in torch.cartesian_prod(*(torch.arange(n) for n in x.shape[:-1])).view(
        -1, x.dim() - 1).tolist()]


def _aligned(wanted: Tensor, got: Tensor, wrong: Tensor) -> list[str]:
    start = 0
    if wanted.numel() > WIDE and wrong.any():
        start = max(0, int(wrong.nonzero()[0]) - 2)
    part = slice(start, start + WIDE)
    digits = 4
    words = []
    while True:  # as many digits as it takes to see a difference
        words = [(number(w, digits), number(g, digits)) for w, g in zip(wanted[part].tolist(), got[part].tolist())]
        if digits >= 17 or all(w != g for (w, g), x in zip(words, wrong[part].tolist()) if x):
            break
        digits += 4
    widths = [max(map(len, pair)) for pair in words]
    left, right = "… " if start else "", " …" if start + WIDE < wanted.numel() else ""
    lines = [name + left + "  ".join(f"{pair[side]:<{width}}" for pair, width in zip(words, widths)).rstrip() + right
             for side, name in ((0, "wanted   "), (1, "got      "))]
    marks = "  ".join(("^" * max(map(len, pair)) if x else "").ljust(width)
                      for pair, width, x in zip(words, widths, wrong[part].tolist())).rstrip()
    return lines + ([" " * (9 + len(left)) + marks] if marks else [])
