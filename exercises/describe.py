"""describe: if no typical mistake explains an answer, what can be said of it in general words?

    error · input changed · NaN · shape · gradient missing · dtype · digits · factor · offset · order of axes · border …

The first that holds is named. Proven in tests/exercises/test_describe.py. Read: describe
"""

from __future__ import annotations

import math
import re
import sys
import traceback
from itertools import permutations
from typing import Any, Optional

import torch
from torch import Tensor

from exercises.case import Case, Mistyped, Outcome, close
from exercises.display import number
from exercises.reader import READER


def describe(case: Case, right: dict[str, Any], got: Outcome, name: Optional[str]) -> tuple[str, str]:
    """(an id, a sentence) for the answer `name` of the outcome, which is wrong."""
    if got.error is not None:
        return of_an_error(got.error)
    if name is None:
        return "input_changed", (f"The operation changes its input {' and '.join(got.changed)} in place (x += …, "
                                 "x[…] = …, x.add_(…)): the caller may still need it. Write x = x + … instead.")
    wanted, answer = right[name], got.answers.get(name)
    if answer is None:
        if name.startswith("gradient"):
            return "gradient_missing", (f"No {name}: autograd lost the way to it. .detach(), .item(), .tolist(), "
                                        ".data, torch.tensor(…) and no_grad() all cut it.")
        return "answer_missing", f"{name} is None; a tensor is wanted."
    if wanted is None:
        return "answer_too_many", f"{name} should be None here."
    if wanted.shape != answer.shape:
        return of_shapes(wanted, answer)
    return of_numbers(case, wanted, answer, name)


def of_an_error(error: BaseException) -> tuple[str, str]:
    """What an exception in the reader's code tells."""
    line = line_of(error)
    at = f" (line {line} of your file)" if line else ""
    said = str(error).strip().splitlines()[0] if str(error).strip() else ""
    if isinstance(error, NotImplementedError):
        return "hole", f"Nothing is written yet: {said}{at}."
    if isinstance(error, Mistyped):
        return "kind", f"The result is of another kind: {said}" + ("" if said.endswith("?") else ".")
    if isinstance(error, TimeoutError):
        return "endless", f"It does not end{at}: {said}" + ("" if said.endswith("?") else ".")
    if isinstance(error, TypeError) and ("unexpected keyword" in said or "required positional" in said
                                         or "positional argument" in said):
        return "signature", (f"The signature differs from the stub's: {said}{at}. Keep the names and the order of the "
                             "parameters.")
    if isinstance(error, UnboundLocalError):  # a kind of NameError
        return "name", f"A variable is used before it has a value: {said}{at}."
    if isinstance(error, NameError):
        return "name", f"A name is not known: {said}{at}. Is an import missing?"
    if isinstance(error, (TypeError, AttributeError)) and "NoneType" in said:
        return "none", (f"Something is None{at}: {said}. An optional argument (a bias, a mask) that may be left out? "
                        "Ask “is not None” first.")
    if isinstance(error, RuntimeError) and re.search("cannot be multiplied|expected .* to match|must match", said):
        return "shapes", f"Shapes do not fit{at}: {said}. Print the shapes of both operands just before it."
    if isinstance(error, RuntimeError) and ("same dtype" in said or "expected m1 and m2" in said):
        return "dtypes", (f"Two tensors have different dtypes{at}: {said}. Make new tensors with x.new_zeros or "
                          "dtype=x.dtype.")
    if isinstance(error, RuntimeError) and "in-place operation" in said:
        return "in_place", f"A tensor that the gradient needs was changed in place{at}: write y = y + … for y += …"
    return "error", f"It ends with {type(error).__name__}: {said}{at}."


def line_of(error: BaseException) -> Optional[int]:
    """The line in the reader's own file that raised it, or that called what raised it."""
    frames = frames_of_the_reader(error)
    return frames[-1].lineno if frames else None


def frames_of_the_reader(error: BaseException) -> list[traceback.FrameSummary]:
    """The calls on the way to an error that are in the reader's own files."""
    files = {getattr(module, "__file__", None) for name, module in sys.modules.items() if name.startswith(READER)}
    return [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]


def of_shapes(wanted: Tensor, got: Tensor) -> tuple[str, str]:
    """The shape is another."""
    shapes = f"wanted {tuple(wanted.shape)}, got {tuple(got.shape)}"
    if sorted(wanted.shape) == sorted(got.shape):
        for order in permutations(range(wanted.dim())):
            if wanted.permute(order).shape == got.shape and close(wanted.permute(order), got, 1e-6):
                return "axes_swapped", f"The numbers are right, but axes have changed places: {shapes}."
        return "axes_swapped", f"The shape has the right sizes in another order: {shapes}. Has a transpose gone astray?"
    if [n for n in wanted.shape if n != 1] == [n for n in got.shape if n != 1]:
        return "axis_of_one", (f"An axis of length 1 is too many or too few: {shapes} (keepdim, squeeze, unsqueeze, "
                               "[None]).")
    if wanted.numel() == got.numel():
        return "reshaped", f"As many numbers in another shape: {shapes}."
    if wanted.dim() == 0 or got.dim() < wanted.dim() and got.numel() < wanted.numel():
        return "reduced", f"The result is summed or averaged over an axis too many or too few: {shapes}."
    if got.dim() > wanted.dim():
        return "broadcast", f"There is an axis too many: {shapes}. Did two tensors broadcast where they should pair up?"
    return "size", f"The shape is another: {shapes}."


def of_numbers(case: Case, wanted: Tensor, got: Tensor, name: str) -> tuple[str, str]:
    """The shape is right, the numbers (or the dtype) are not."""
    low = case.dtype is not None or case.autocast
    if wanted.dtype.is_floating_point != got.dtype.is_floating_point or (
            not low and wanted.dtype != got.dtype and close(wanted, got, 1e-2)):
        made = ""
        if wanted.dtype == torch.float64 and got.dtype == torch.float32:
            made = (" A new tensor (torch.zeros, torch.tensor, torch.arange …) is float32 unless told: dtype=x.dtype, "
                    "or x.new_zeros.")
        return "dtype", f"The dtype is {kind(got)}; wanted is {kind(wanted)}.{made}"
    if low and got.dtype != case.expected and got.dtype.is_floating_point:
        return "dtype", (f"The dtype is {kind(got)}; wanted is {str(case.expected).removeprefix('torch.')}, "
                         + ("because autocast is on." if case.autocast else f"as that of the input, {case.dtype}."
                            .replace("torch.", "") if case.result is None else "at least float32."))
    if got.dtype in (torch.bool, torch.int64, torch.int32):
        return of_whole_numbers(wanted, got, name)
    w, g = wanted.detach().double(), got.detach().double()
    if not torch.equal(w.isnan(), g.isnan()):
        if g.isnan().sum() > w.isnan().sum():
            return "nan", (f"{name} has NaN where a number is wanted: a division 0/0, ∞ − ∞, ∞/∞ or the logarithm of a "
                           "negative number on the way.")
        return "nan_wanted", f"{name} should be NaN somewhere and is not."
    if not torch.equal(w.isinf(), g.isinf()):
        return "infinite", (f"{name} is infinite where a finite number is wanted, or the other way round: does an e^x "
                            "overflow?")
    there = w.isfinite()
    if not there.all():
        w, g = w[there], g[there]
    size = w.abs().max().item() if w.numel() else 0.0
    if low:
        return "digits", (f"{name} is right but for its last digits: more is lost on the way than by rounding once. "
                          "Half precision wants float32 inside (at_least_float32), large means are subtracted first.")
    if (w - g).abs().max() <= 1e-5 * max(size, 1e-30):
        return "digits", (f"{name} is right to six digits, not to ten: is something computed in float32 "
                          "(a torch.zeros or torch.tensor without dtype, .float()), or is an ε too many?")
    if not g.any():
        return "zero", f"{name} is zero everywhere."
    if close(w, -g, 1e-6):
        return "sign", f"{name} has the wrong sign everywhere."
    factor = _constant(g / torch.where(w == 0, torch.nan, w))
    if factor is not None and close(w * factor, g, 1e-6):
        return "factor", f"{name} is {_named(factor)} times what is wanted, everywhere."
    offset = _constant(g - w)
    if offset is not None:
        return "offset", f"{name} differs by the same {number(offset)} everywhere: is a term missing, or one too many?"
    w, g = wanted.detach().double(), got.detach().double()
    for order in permutations(range(w.dim())):
        if w.permute(order).shape == g.shape and order != tuple(range(w.dim())) and close(w.permute(order), g, 1e-6):
            return "axes_swapped", f"{name} has the right numbers, but axes have changed places ({list(order)})."
    for axis in range(w.dim()):
        if close(w.flip(axis), g, 1e-6):
            return "flipped", f"{name} has the right numbers in reverse order along axis {axis}."
    if w.numel() > 1 and w.std() > 0 and close(w.flatten().sort().values, g.flatten().sort().values, 1e-6):
        return "order", f"{name} has the right numbers in the wrong places: a reshape where a transpose should be?"
    for axis in range(w.dim()):
        along = [other for other in range(w.dim()) if other != axis]
        if w.shape[axis] > 1 and along and all(_constant(part) is not None for part in (g - w).unbind(axis)):
            return "offset_along", (f"{name} is off by one number for each place along axis {axis}: look at what is "
                                    "added there.")
        ratio = g / torch.where(w == 0, torch.nan, w)
        if w.shape[axis] > 1 and along and all(_constant(part) is not None for part in ratio.unbind(axis)):
            return "factor_along", (f"{name} is off by one factor for each place along axis {axis}: look at what is "
                                    "divided or multiplied there.")
    if w.dim() == 4 and min(w.shape[2:]) > 2 and close(w[:, :, 1:-1, 1:-1], g[:, :, 1:-1, 1:-1], 1e-6):
        return "border", f"{name} is right inside and wrong at the border: look at the padding."
    right = (w - g).abs() <= 1e-6 * (1 + w.abs())
    if right.any() and not right.all():
        return "in_part", (f"{name} is right at {int(right.sum())} of {right.numel()} places; first wrong at "
                           f"{[int(i) for i in (~right).nonzero()[0]]}.")
    first = "" if case.stage != "example" else " Go through this example by hand, line by line."
    return "values", f"{name} has other numbers than wanted.{first}"


def of_whole_numbers(wanted: Tensor, got: Tensor, name: str) -> tuple[str, str]:
    if wanted.numel() > 1 and wanted.shape == got.shape and torch.equal(wanted.flatten().sort().values,
                                                                        got.flatten().sort().values):
        return "order", f"{name} has the right numbers in another order."
    if "once" in name:
        return "not_one_to_one", "A column is used twice: the assignment is one-to-one."
    return "values", f"{name} differs."


def kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _constant(x: Tensor) -> Optional[float]:
    """The one number that all entries are (NaN left out), None if they are not, or if there are fewer than two."""
    x = x[~x.isnan()]
    if x.numel() < 2 or not x.isfinite().all():
        return None
    middle = x.mean().item()
    return middle if (x - middle).abs().max() <= 1e-6 * max(abs(middle), 1e-12) else None


def _named(factor: float) -> str:
    """A factor as a person would write it: √2, 1/3, 4."""
    for n in range(2, 101):
        for value, name in ((n, f"{n}"), (1 / n, f"1/{n}"), (math.sqrt(n), f"√{n}"), (1 / math.sqrt(n), f"1/√{n}"),
                            (n / (n + 1), f"{n}/{n + 1}"), ((n + 1) / n, f"{n + 1}/{n}")):
            if abs(factor - value) <= 1e-6 * value:
                return name
    return number(factor)
