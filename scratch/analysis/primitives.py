"""primitives: which operations of PyTorch does a piece of code really call?

Names in the source can mislead: an innocent method may hide a whole layer. Below Python, every tensor
operation passes through one door, the dispatcher, under the name of its ATen operator.
`record_primitives` stands at that door and counts:

    >>> record_primitives(lambda: torch.ones(2, 3).softmax(1))
    Counter({'ones': 1, '_softmax': 1})
    >>> composites(_)
    {'_softmax': 1}

`PRIMITIVES` lists what tensor arithmetic needs, by category. Any other operation is called composite:
convolution, softmax, normalisation, pooling, attention, relu, sigmoid, losses, … A few composites (linear,
dropout) have been taken apart before they reach the door; tests/test_purity.py, which holds the detector
to this list, reads the source for those.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable, Mapping, Optional

from torch.utils._python_dispatch import TorchDispatchMode

# An in-place form (`add_`) and a form over a list of tensors (`_foreach_add`) count as the operation itself.
PRIMITIVES: dict[str, frozenset[str]] = {category: frozenset(names.split()) for category, names in {
    "creation": "empty empty_like empty_strided new_empty new_empty_strided zeros zeros_like new_zeros ones ones_like "
                "new_ones full full_like new_full fill zero arange linspace scalar_tensor eye tril triu lift_fresh",
    "view": "view _unsafe_view _reshape_alias as_strided transpose t permute expand squeeze unsqueeze select slice "
            "split split_with_sizes unbind unfold alias detach diagonal",
    "copy": "clone copy _to_copy cat stack flip roll repeat",
    "gradient of a view": "select_backward slice_backward unfold_backward diagonal_backward as_strided_scatter "
                          "select_scatter slice_scatter",
    "elementwise": "add sub rsub mul div neg reciprocal abs sgn sign exp expm1 log log1p sqrt rsqrt pow square sin cos "
                   "tanh tanh_backward erf floor ceil round trunc remainder fmod floor_divide clamp clamp_min "
                   "clamp_max maximum minimum addcmul addcdiv lerp",
    "comparison": "eq ne lt le gt ge isnan isinf isfinite logical_and logical_or logical_not logical_xor "
                  "bitwise_and bitwise_or bitwise_not bitwise_xor where masked_fill equal",
    "reduction": "sum mean var var_mean std std_mean amax amin max min aminmax argmax argmin prod cumsum any all "
                 "norm linalg_vector_norm count_nonzero",
    "matrix product": "mm bmm addmm baddbmm addbmm mv addmv dot",
    "indexing": "index index_put _index_put_impl index_select index_add index_copy index_fill gather scatter "
                "scatter_add scatter_reduce take masked_select masked_scatter nonzero",
    "sort": "sort topk argsort",
    "random": "rand rand_like randn randn_like randint randint_like randperm bernoulli uniform normal",
    "no arithmetic": "_local_scalar_dense promote_types is_same_size",  # read a number, compare dtypes, shapes
}.items()}


class _Recorder(TorchDispatchMode):
    """Counts the operators that pass while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Optional[dict] = None) -> Any:
        name = func.overloadpacket.__name__
        if func.namespace != "profiler":  # a stopwatch that torch.optim.Optimizer holds around every step
            self.counts[name if func.namespace == "aten" else f"{func.namespace}::{name}"] += 1
        return func(*args, **(kwargs or {}))


def record_primitives(function: Callable[[], Any]) -> Counter[str]:
    """Call `function()` and count the operators dispatched, by ATen name; a backward inside is seen too, on a CPU."""
    with _Recorder() as recorder:
        function()
    return recorder.counts


def operation(operator: str) -> str:
    """The operation behind an operator's name: `add` for `add_` (in place) and for `_foreach_add` (over a list)."""
    return operator.removeprefix("_foreach_").removesuffix("_")


def category(operator: str) -> Optional[str]:
    """The category of a primitive, or None for a composite operator."""
    return next((kind for kind, names in PRIMITIVES.items() if operation(operator) in names), None)


def by_category(counts: Mapping[str, int]) -> dict[str, Counter[str]]:
    """The same calls as a person reads them: category → operation → calls, the most frequent first.

    In the order of PRIMITIVES; what is no primitive comes last, as "composite".
    """
    table: dict[str, Counter[str]] = {kind: Counter() for kind in (*PRIMITIVES, "composite")}
    for operator, count in counts.items():
        table[category(operator) or "composite"][operation(operator)] += count
    return {kind: Counter(dict(calls.most_common())) for kind, calls in table.items() if calls}


def composites(counts: Mapping[str, int]) -> dict[str, int]:
    """The part of `counts` that is no primitive; empty where the code keeps its promise."""
    return {name: count for name, count in counts.items() if category(name) is None}
