"""flops: which part of a detector holds the parameters, and which does the work?

    image ─ backbone ─ input_proj ─ encoder ─┬─ proposals ─► queries ─┐
                 └───────── fine memory ◄────┘                        ▼
                                 └───────────────────────────────► decoder ⇄ heads ─► answers

    FLOPs of a product (m,k) @ (k,n) = 2·m·k·n      a multiplication and an addition count as two

Matrix products alone count, as in the literature; what passes over memory (norms, softmax, ReLU)
takes time, but few FLOPs. torch.utils.flop_counter stands at the dispatcher and adds up what really
runs: a convolution costs what its plan multiplies, on small grids more than by the formula, for
the windows that straddle two rows and are cut away (ops/fast/shifted), on a CPU often 5/9 of it
(ops/fast/winograd). A part within a part counts
for itself alone (the heads, which the anchors' decoder asks in every layer), so that the parts add
up to the whole.

Worked by hand in tests/analysis/test_flops.py. Read: PARTS → size_by_part → flops_by_part
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable

import torch
from torch import nn
# The counter knows operators by these names; nothing is computed with them here.
from torch.utils.flop_counter import FlopCounterMode, aten

# A part → the modules (and parameters) of the detector whose names begin so.
PARTS: dict[str, tuple[str, ...]] = {
    "backbone": ("backbone",),
    "input_proj": ("input_proj",),
    "encoder": ("transformer.encoder",),
    "proposals": ("proposal_head",),
    "fine memory": ("fine_memory",),
    "RoI features": ("roi_features",),
    "decoder": ("transformer.decoder",),
    "queries": ("query_embed", "refpoint_embed", "label_embed", "group_embed"),
    "heads": ("class_embed", "bbox_embed"),
}
REST = "rest"


def part_of(name: str) -> str:
    """The part that a module's or parameter's dotted name belongs to; REST for what PARTS does not name."""
    return next((part for part, prefixes in PARTS.items()
                 if any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)), REST)


def size_by_part(model: nn.Module) -> dict[str, dict[str, int]]:
    """{part: {"parameters": how many, "bytes": theirs and those of the buffers}}, of the parts that the model has."""
    sizes: dict[str, dict[str, int]] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        size = sizes.setdefault(part_of(name), {"parameters": 0, "bytes": 0})
        size["parameters"] += tensor.numel() if isinstance(tensor, nn.Parameter) else 0
        size["bytes"] += tensor.numel() * tensor.element_size()
    return {part: sizes[part] for part in (*PARTS, REST) if part in sizes}


def flops_by_part(model: nn.Module, forward: Callable[[], Any]) -> dict[str, int]:
    """Call `forward()`, which runs the model once, and return {part: FLOPs} of the parts that multiply anything.

    No gradient is kept; the model is left as it was.
    """
    # The fast convolutions add each product to a sum in place, which the counter does not list by itself.
    counter = FlopCounterMode(display=False, custom_mapping={
        aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1],
        aten.baddbmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * a[2] * b[2]})
    counts: Counter[str] = Counter()
    inside, counted = [REST], 0

    def settle() -> None:
        """What was multiplied since the last border belongs to the innermost part that is open."""
        nonlocal counted
        counts[inside[-1]] += counter.get_total_flops() - counted
        counted = counter.get_total_flops()

    def enter(part: str) -> None:
        settle()
        inside.append(part)

    def leave() -> None:
        settle()
        inside.pop()

    # The counter also follows gradients, and stumbles over a parameter's view that a module is given without one.
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    handles = []
    for name, module in model.named_modules():
        if part_of(name) != REST:
            handles.append(module.register_forward_pre_hook(lambda *_, part=part_of(name): enter(part)))
            handles.append(module.register_forward_hook(lambda *_: leave()))
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        with torch.no_grad(), counter:
            forward()
            settle()
    finally:
        for handle in handles:
            handle.remove()
        for parameter in learning:
            parameter.requires_grad_(True)
    return {part: counts[part] for part in (*PARTS, REST) if counts[part]}


def parts_table(model: nn.Module, forward: Callable[[], Any]) -> list[dict[str, Any]]:
    """One {"part", "parameters", "bytes", "flops"} for each part, in the order of PARTS."""
    sizes, flops = size_by_part(model), flops_by_part(model, forward)
    nothing = {"parameters": 0, "bytes": 0}
    return [{"part": part, **sizes.get(part, nothing), "flops": flops.get(part, 0)}
            for part in (*PARTS, REST) if part in sizes or part in flops]
