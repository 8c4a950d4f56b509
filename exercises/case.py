"""case: what is an operation asked, what does it answer, and when is the answer right?

    inputs ─▶ run(operation) ─▶ Outcome: named tensors, an error, inputs that were changed
                 reference    ─▶ Outcome                                                       ─▶ differences

A case belongs to a stage; the stages go from the easiest to the hardest. Proven in tests/exercises/test_case.py.
Read: Case → outcome → differences
"""

from __future__ import annotations

import copy
import signal
import threading
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Callable, Iterator, Optional

import torch
from torch import Tensor

from scratch.ops.fast.switch import plain_mode

STAGES = ("example", "value", "gradient", "edges", "precision")
WHAT = {"example": "an example worked by hand", "value": "the values, on random numbers",
        "gradient": "the gradients that autograd derives", "edges": "the edges: nothing, everything, infinity",
        "precision": "float32 and half precision"}
SECONDS = 20  # of computing, for one answer; the notes need a fraction of one
LOW = (torch.float32, torch.bfloat16, torch.float16)


class Mistyped(TypeError):
    """The result is of another kind than the caller can use."""


@dataclass(frozen=True)
class Case:
    """One question to an operation.

    inputs      makes them anew each time: name → tensor or setting; names are those of the signature
    wanted      the answer worked by hand; None: the reference's
    gradient    the inputs by which the answer is differentiated (with a fixed random ∂L/∂y)
    dtype       the floating-point inputs are rounded to it; the truth is the reference's in float64
    result      the dtype of the answer then; None: `dtype`
    autocast    under torch.autocast("cpu", bfloat16)
    mutable     the inputs that the operation should change
    on_error    the mistake to name where the operation fails here with an error, and did not before
    on_timeout  the same where it does not end
    told        neither the formula nor the docstring of the note says it: the stub lists the title under "Also asked"
    bonus       more than a straightforward answer has to give: the stub lists it, the check reports it, nobody fails
    """

    stage: str
    title: str
    inputs: Callable[[], dict[str, Any]]
    wanted: Optional[dict[str, Any]] = None
    gradient: tuple[str, ...] = ()
    tolerance: float = 1e-8
    dtype: Optional[torch.dtype] = None
    result: Optional[torch.dtype] = None
    autocast: bool = False
    mutable: tuple[str, ...] = ()
    units: float = 2.0
    on_error: str = ""
    on_timeout: str = ""
    told: bool = False
    bonus: bool = False
    reference: Optional[Callable[..., dict[str, Any]]] = None

    @property
    def expected(self) -> Optional[torch.dtype]:
        """The floating-point dtype that the answer should have, where it is not that of the truth (float64)."""
        return self.result or self.dtype or (torch.bfloat16 if self.autocast else None)

    def drawn(self) -> dict[str, Any]:
        """The inputs, in the dtype of the case."""
        return {name: cast(value, self.dtype) for name, value in self.inputs().items()}


@dataclass
class Outcome:
    """What an operation did: its answers by name, or an error; and which inputs it changed though it should not."""

    answers: dict[str, Optional[Tensor]] = field(default_factory=dict)
    error: Optional[BaseException] = None
    changed: tuple[str, ...] = ()


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Random numbers with one decimal, easy to read: the same in every process."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (numbers * scale * 10).round() / 10


def random(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers with all their digits."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def boxes(*shape: int, seed: int = 0) -> Tensor:
    """Boxes cxcywh inside of the unit square, with two decimals: (*shape, 4)."""
    numbers = torch.rand(*shape, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    centre, size = 0.3 + 0.4 * numbers[..., :2], 0.1 + 0.4 * numbers[..., 2:]
    return (torch.cat((centre, size), -1) * 100).round() / 100


def tensor(value: list, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(value, dtype=dtype)


def cast(value: Any, dtype: Optional[torch.dtype]) -> Any:
    """Floating-point tensors, also in lists and dicts, in another dtype."""
    if isinstance(value, Tensor):
        return value.to(dtype) if dtype is not None and value.is_floating_point() else value
    if isinstance(value, list):
        return [cast(each, dtype) for each in value]
    return {name: cast(each, dtype) for name, each in value.items()} if isinstance(value, dict) else value


def one(result: Any, name: str = "y") -> dict[str, Optional[Tensor]]:
    """The answer of a function that returns one tensor."""
    if not isinstance(result, Tensor):
        raise Mistyped(f"wanted one tensor, got {kind(result)}")
    return {name: result}


def several(result: Any, *names: str, optional: bool = False) -> dict[str, Optional[Tensor]]:
    """The answers of a function that returns several tensors."""
    if not isinstance(result, (tuple, list)) or len(result) != len(names):
        raise Mistyped(f"wanted {len(names)} results ({', '.join(names)}), got {kind(result)}")
    for name, value in zip(names, result):
        if not isinstance(value, Tensor) and not (optional and value is None):
            raise Mistyped(f"wanted a tensor as {name}, got {kind(value)}")
    return dict(zip(names, result))


def kind(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "None: is there a return?"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__}"


def outcome(case: Case, grading: ModuleType, operation: Any, seconds: float = SECONDS) -> Outcome:
    """What `operation` answers to the case."""
    return answer(case, lambda **inputs: grading.run(operation, **inputs), seconds)


def answer(case: Case, run: Callable[..., dict[str, Any]], seconds: float = SECONDS, wide: bool = False) -> Outcome:
    """What `run(**inputs)` answers; wide: in float64 for the rounded inputs (the truth of a case of low precision)."""
    inputs = case.drawn()
    if wide:
        inputs = cast(inputs, torch.float64)
    leaves = [inputs[name].requires_grad_() for name in case.gradient if isinstance(inputs.get(name), Tensor)]
    before = copy.deepcopy({name: value for name, value in inputs.items() if name not in case.mutable})
    lowered = torch.autocast("cpu", dtype=torch.bfloat16) if case.autocast and not wide else nullcontext()
    torch.manual_seed(0)
    try:
        with plain_mode(), lowered, time_limit(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a wrong version on a case that the reader does not see
            answers = run(**inputs)
            if case.gradient:
                answers = gradients(answers, case.gradient, leaves)
    except Exception as error:
        return Outcome(error=error)
    answers = {name: value.detach() if isinstance(value, Tensor) else value for name, value in answers.items()}
    changed = tuple(name for name, value in before.items() if not same(value, inputs[name]))
    return Outcome(answers, changed=changed)


def gradients(answers: dict[str, Any], names: tuple[str, ...], leaves: list[Tensor]) -> dict[str, Optional[Tensor]]:
    """∂L/∂input for a fixed random L = Σ c·answer over all answers that have a gradient; None for one without."""
    total = None
    for i, value in enumerate(answers.values()):
        if isinstance(value, Tensor) and value.requires_grad:
            cotangent = random(*value.shape, seed=100 + i).to(value.dtype)
            part = (value * cotangent).sum()
            total = part if total is None else total + part
    if total is None:
        return {f"gradient of {name}": None for name in names}
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return {f"gradient of {name}": gradient for name, gradient in zip(names, found)}


def wanted(case: Case, grading: ModuleType) -> dict[str, Any]:
    """The right answers."""
    if case.wanted is not None:
        return case.wanted
    run = case.reference or grading.reference
    right = answer(case, run, wide=case.dtype is not None or case.autocast)
    if right.error is not None:
        raise right.error
    return right.answers


def wrong_names(case: Case, right: dict[str, Any], got: Outcome) -> list[str]:
    """The names of the answers that are wrong; all of them after an error."""
    if got.error is not None:
        return list(right)
    return [name for name in right if not agrees(case, right[name], got.answers.get(name))]


def agrees(case: Case, right: Any, got: Any) -> bool:
    """Is one answer right: shape, dtype, numbers?"""
    if right is None or got is None:
        return right is None and got is None
    if not isinstance(got, Tensor) or right.shape != got.shape:
        return False
    low = case.dtype is not None or case.autocast
    if not low:
        kind_differs = got.dtype != right.dtype and (case.wanted is None or got.dtype.is_floating_point
                                                     != right.dtype.is_floating_point)
        return not kind_differs and close(right, got, case.tolerance)
    if right.dtype.is_floating_point and got.dtype != case.expected:
        return False
    return rounding(right, got) <= case.units


def rounding(truth: Tensor, got: Tensor) -> float:
    """The error of `got` (root mean square), in units of the last place of its dtype; ∞ where only one is finite."""
    if not got.is_floating_point():
        return 0.0 if torch.equal(truth, got) else float("inf")
    truth, wide = truth.double(), got.double()
    if not torch.equal(truth.isfinite(), wide.isfinite()):
        return float("inf")
    there = truth.isfinite()
    if not there.any():
        return 0.0
    size = truth[there].square().mean().sqrt().item()
    error = (wide - truth)[there].square().mean().sqrt().item()
    return error / (torch.finfo(got.dtype).eps * size) if size else (0.0 if error == 0 else float("inf"))


def close(a: Any, b: Any, tolerance: float = 1e-8) -> bool:
    """The same numbers, NaN included."""
    if a is None or b is None:
        return a is b
    if a.shape != b.shape:
        return False
    return torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def same(a: Any, b: Any) -> bool:
    """Unchanged, entry by entry, in lists and dicts too."""
    if isinstance(a, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a.detach().nan_to_num(7.5),
                                                                              b.detach().nan_to_num(7.5)))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return bool(a == b)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in an operation that computes on and on: after so much time of the processor, not of the clock.

    Where there is no such signal (Windows, a thread), it may run for ever.
    """
    if not hasattr(signal, "SIGPROF") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise TimeoutError(f"no answer after {seconds:g} seconds: does a loop never end?")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
