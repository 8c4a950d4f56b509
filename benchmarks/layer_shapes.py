"""layer_shapes: which layers does one training step really call, on what, and how often?

The model and its objective run once, and every layer of a known kind tells what it is given. Calls that are alike in
kind, weights' shape, inputs' shapes and types, and in what needs a gradient are one `Use` with a count; the inputs that
are kept are those of the first. A layer within a layer is not counted again: an attention's linear maps are its own.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Optional, Sequence
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.training_step import TrainingStep
from scratch.ops.activations import relu, relu_
from scratch.ops.attention import MultiheadAttention
from scratch.ops.batch_norm import BatchNorm2d, FrozenBatchNorm2d
from scratch.ops.boxes import paired_generalized_box_iou
from scratch.ops.beyond.conditional_attention import ConditionalAttention
from scratch.ops.conv2d import Conv2d
from scratch.ops.cross_entropy import cross_entropy, l1_loss
from scratch.ops.dropout import Dropout
from scratch.ops.beyond.focal_loss import sigmoid_focal_loss
from scratch.ops.beyond.group_norm import GroupNorm
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.linear import Linear
from scratch.ops.beyond.quality_focal_loss import quality_focal_loss
from scratch.ops.beyond.place_encoding import sine_of
from scratch.ops.sine_encoding import sine_encoding
from scratch.ops.windows import MaxPool2d, pair

LAYERS: dict[type[nn.Module], str] = {
    Conv2d: "conv", Linear: "linear", BatchNorm2d: "batch-norm", FrozenBatchNorm2d: "batch-norm",
    GroupNorm: "group-norm", LayerNorm: "layer-norm", MaxPool2d: "max-pool", Dropout: "dropout",
    MultiheadAttention: "attention", ConditionalAttention: "attention"}
FUNCTIONS: dict[Callable, str] = {
    relu: "relu", relu_: "relu", sine_encoding: "encoding", sine_of: "encoding", cross_entropy: "loss", l1_loss: "loss",
    sigmoid_focal_loss: "loss", quality_focal_loss: "loss", paired_generalized_box_iou: "loss"}
KINDS = tuple(dict.fromkeys((*LAYERS.values(), *FUNCTIONS.values())))


@dataclass(eq=False)
class Use:
    """A layer, or a function, with what it is called on; `autocast` is the type to which products are lowered there."""

    kind: str
    name: str
    layer: Callable
    args: tuple
    kwargs: dict[str, Any]
    autocast: Optional[torch.dtype] = None
    count: int = 1

    def inputs(self) -> list[Tensor]:
        """The tensors among the arguments, each once."""
        tensors = [x for x in (*self.args, *self.kwargs.values()) if isinstance(x, Tensor)]
        return list({id(x): x for x in tensors}.values())

    def weights(self) -> list[nn.Parameter]:
        """The parameters that learn."""
        return [p for p in self.layer.parameters() if p.requires_grad] if isinstance(self.layer, nn.Module) else []


def record(step: TrainingStep) -> list[Use]:
    """The uses of one forward pass and objective of our side's training step."""
    uses: dict[tuple, Use] = {}

    def note(kind: str, name: str, layer: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
        kept: dict[int, Tensor] = {}  # an attention that asks with one tensor, as query and as key, projects it once
        args = tuple(detached(x, kept) for x in args)
        kwargs = {key: detached(x, kept) for key, x in kwargs.items()}
        kind_of_device = step.device.type
        lowered = torch.get_autocast_dtype(kind_of_device) if torch.is_autocast_enabled(kind_of_device) else None
        use = Use(kind, name, layer, args, kwargs, lowered)
        key = (kind, name, lowered, len(use.weights()),
               *((x.shape, x.dtype, x.requires_grad) for x in use.inputs()))
        if key in uses:
            uses[key].count += 1
        else:
            uses[key] = use

    with calls_of_layers(step.model, note), calls_of_functions(note):
        step.criterion(step.forward(), step.targets)
    return list(uses.values())


def detached(x: Any, kept: dict[int, Tensor]) -> Any:
    """A tensor as a leaf that wants a gradient where `x` did, the same one for the same `x`; all else as it is."""
    if not isinstance(x, Tensor):
        return x
    return kept.setdefault(id(x), x.detach().requires_grad_(x.requires_grad))


@contextmanager
def calls_of_layers(model: nn.Module, note: Callable) -> Iterator[None]:
    """Call `note` for each call of a layer of the model that is not within another one."""
    handles, known = [], ()
    for path, layer in model.named_modules():
        drops_nothing = isinstance(layer, Dropout) and layer.p == 0
        if type(layer) not in LAYERS or drops_nothing or path.startswith(known):
            continue
        known += (f"{path}.",)

        def report(layer: nn.Module, args: tuple, kwargs: dict[str, Any], path: str = path) -> None:
            note(LAYERS[type(layer)], describe(layer, path, args), layer, args, kwargs)

        handles.append(layer.register_forward_pre_hook(report, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def calls_of_functions(note: Callable) -> Iterator[None]:
    """Call `note` for each call of one of FUNCTIONS, in every module of scratch/."""
    def reported(function: Callable, kind: str) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            name = "" if kind == "relu" else f"{function.__name__} "
            # An in-place function is timed as the one that keeps its input: alone, it may not overwrite its input.
            noted, inputs = (relu, (args[0].clone(),)) if function is relu_ else (function, args)
            note(kind, name + by_times(args[0].shape) + constants(args[:1]), noted, inputs, kwargs)
            return function(*args, **kwargs)
        return call

    modules = [module for name, module in list(sys.modules.items()) if name.startswith("scratch.")]
    with ExitStack() as stack:
        for function, kind in FUNCTIONS.items():
            for module in modules:
                if getattr(module, function.__name__, None) is function:
                    stack.enter_context(patch.object(module, function.__name__, reported(function, kind)))
        yield


# -- names ---------------------------------------------------------------------------------------------------------


def describe(layer: nn.Module, path: str, args: tuple) -> str:
    """What a person calls this use: its shapes, and what of it has no gradient."""
    x = args[0]
    if isinstance(layer, (MultiheadAttention, ConditionalAttention)):
        (B, Q, D), S = x.shape, args[2].shape[1]  # of the values, or of the memory
        stack, kind = "encoder" if ".encoder." in path else "decoder", "self" if path.endswith("self_attn") else "cross"
        return f"{stack} {kind} {B}×{Q}×{S}, D {D}, N {layer.num_heads}{constants(args[:3], layer)}"
    ending = constants(args, layer)
    if isinstance(layer, Conv2d):
        O, _, kH, kW = layer.weight.shape
        stride, dilation = pair(layer.stride)[0], pair(layer.dilation)[0]
        spread = (f" /{stride}" if stride > 1 else "") + (f" d{dilation}" if dilation > 1 else "")
        B, C, H, W = x.shape
        return f"{C}→{O} {kH}×{kW}{spread}, {B}×{H}×{W}{ending}"
    if isinstance(layer, Linear):
        return f"{x.shape[-1]}→{layer.weight.shape[0]}, {by_times(x.shape[:-1])}{ending}"
    return ("frozen " if isinstance(layer, FrozenBatchNorm2d) else "") + by_times(x.shape) + ending


def by_times(shape: torch.Size) -> str:
    return "×".join(map(str, shape))


def constants(inputs: Sequence[Tensor], layer: Optional[nn.Module] = None) -> str:
    """Says so where some input is asked for no gradient, or nothing is: then there is no backward."""
    if not any(x.requires_grad for x in (*inputs, *(layer.parameters() if layer else ()))):
        return ", no gradient"
    return "" if all(x.requires_grad for x in inputs) else ", constant input"
