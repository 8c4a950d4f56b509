"""layer_watch: what happens inside a detector while it learns, and how much time does watching take?

    with LayerWatch(model, optimizer) as watch:
        record = train_step(run, batches)             the ordinary step, unchanged
        figures = watch.figures(kept)

    forward ─────────► backward ─► clip ─► before the step ──► step ──► after the step
    outputs, attention                     weights, gradients           weights

Forward hooks read the outputs of modules, the optimizer's step hooks the state before and after a
step. Nothing is modified and no random number is drawn: a watched step leaves the same weights, bit
for bit. Outside of the `with` there are no hooks and no cost. The figures of each unit are

    std_weights, std_activations, std_gradients, mean_abs_activations: mean |x|
    saturation: a share; of what, the unit's kind says (layer_groups)
    update_to_weight: ‖Δw‖ / ‖w‖, over the same numbers before and after

Weights are those that the step's batches met, gradients those before clipping. Where a module runs
several times in a step (with accumulation; the box head once a layer) its last output counts.
Queries, keys and values of a MultiheadAttention pass through no module of their own: they are
computed again for some tokens of its input. Its weights the detector gives on request.

Proven in tests/analysis/test_layer_watch.py. Read: LayerWatch.__enter__ → _of_module → figures
"""

from __future__ import annotations

import inspect
from statistics import mean
from typing import Any, Optional

import torch
from torch import Tensor, nn

from scratch.analysis.layer_groups import Piece, Unit, layer_units
from scratch.analysis.layer_samples import (
    FLAT, SAMPLE, TOKENS, Rows, attention_figures, histograms, pooled_std, sample, sample_channels, sample_tokens,
    sure_share,
)

FIGURES = ("std_weights", "std_activations", "std_gradients", "mean_abs_activations", "saturation", "update_to_weight")
KINDS = ("weights", "activations", "gradients")  # of numbers that a unit has
ATTENTIONS = ("encoder_attention", "decoder_self_attention", "decoder_cross_attention")
LOOKS = ("entropy", "sure", "undivided")  # what is known of each head: attention_figures


class LayerWatch:
    """Watches a `Detr` and its optimizer, from `with` to the end of its block; it may be entered again.

    model   the bare one, not what DistributedDataParallel wrapped around it

    Raises ValueError for a parameter that no group knows.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.units = layer_units(model)
        self._pieces = [piece for unit in self.units for piece in unit.measured]
        ends = [0]
        for unit in self.units:
            ends.append(ends[-1] + len(unit.measured))
        self._rows = [range(*pair) for pair in zip(ends, ends[1:])]  # of each unit among the pieces
        # (name, module) of each attention, by depth.
        served = dict.fromkeys((unit.group.split("_query")[0], unit.attention) for unit in self.units if unit.attention
                               and "_query" in unit.group)
        self._attentions = list(served)
        self._handles: list[Any] = []

    def __enter__(self) -> "LayerWatch":
        assert not self._handles, "this watch is running already"
        parameters = dict(self.model.named_parameters())
        device = next(iter(parameters.values())).device
        self._weights, self._after, self._gradients = (Rows(len(self._pieces), device) for _ in range(3))
        self._activations = Rows(len(self.units), device)
        self._seen = self._activations.values, self._activations.lengths  # the activations of the last step
        self._parts = [(piece, parameters[piece.parameter]) for piece in self._pieces]
        self._looks: dict[str, tuple[Tensor, ...]] = {}  # an attention's module → each of LOOKS, by head
        self._boxes: Optional[Tensor] = None  # the share of box coordinates at an edge
        self._pending: Optional[list[Tensor]] = None
        self._watch_modules()
        self._handles += [
            self.model.register_forward_pre_hook(_ask_for_weights, with_kwargs=True),
            self.model.register_forward_hook(self._of_answers),
            self.optimizer.register_step_pre_hook(self._before_step),
            self.optimizer.register_step_post_hook(self._after_step)]
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        del self._weights, self._after, self._gradients, self._activations, self._seen, self._parts

    def _watch_modules(self) -> None:
        seen: dict[str, list[tuple[int, Unit]]] = {}
        for row, unit in enumerate(self.units):
            if unit.module:
                seen.setdefault(unit.module, []).append((row, unit))
        for name, units in seen.items():
            module = self.model.get_submodule(name)
            hook = self._of_projections if hasattr(module, "in_proj_weight") else self._of_module
            self._handles.append(module.register_forward_hook(_bound(hook, units), with_kwargs=True))
        for _, name in self._attentions:
            module = self.model.get_submodule(name)
            self._handles.append(module.register_forward_hook(_bound(self._of_attention, name), with_kwargs=True))

    # -- the hooks -------------------------------------------------------------------------------------------------

    def _of_module(self, units: list[tuple[int, Unit]], module: nn.Module, args: Any, kwargs: Any,
                   output: Tensor) -> None:
        for row, unit in units:
            if unit.kind == "softmax":  # whole rows of scores, or their softmax could not be taken
                seen = sample_tokens(output, max(1, SAMPLE // output.shape[-1]))
            elif unit.parts > 1:
                tokens = sample_tokens(output, TOKENS)
                seen = sample_channels(tokens.chunk(unit.parts, dim=-1)[unit.part], len(tokens))
            else:
                seen = sample(output)
            self._activations.put(row, seen)

    def _of_projections(self, units: list[tuple[int, Unit]], module: nn.Module, args: Any, kwargs: Any,
                        output: Any) -> None:
        for row, unit in units:
            tokens = sample_tokens(args[unit.part], TOKENS)  # (t,D) of the query, the key or the value
            # Detached: autocast would else keep a low-precision copy, made without gradient, for the model's own use.
            weight = module.in_proj_weight.detach().chunk(3)[unit.part]  # (D,D)
            bias = module.in_proj_bias.detach().chunk(3)[unit.part]  # (D)
            weight, bias = sample_channels(weight.mT, len(tokens)), sample_channels(bias, len(tokens))  # (D,c), (c)
            self._activations.put(row, tokens @ weight + bias)  # (t,c)

    def _of_attention(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        arguments = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        halves = 2 if hasattr(module, "q_place") else 1  # conditional attention's scores are of content and of place
        width = halves * module.embed_dim // module.num_heads
        self._looks[name] = attention_figures(output[1], width, arguments.get("key_padding_mask"))

    @torch.no_grad()
    def _of_answers(self, module: nn.Module, args: Any, output: dict[str, Any]) -> None:
        boxes = output["pred_boxes"]
        self._boxes = ((boxes < 0.01) | (boxes > 0.99)).float().mean()

    @torch.no_grad()
    def _before_step(self, *_: Any) -> None:
        for row, (piece, parameter) in enumerate(self._parts):
            self._weights.put(row, sample(_rows_of(parameter, piece)))
            gradient = parameter.grad
            self._gradients.put(row, parameter.new_zeros(0) if gradient is None else sample(_rows_of(gradient, piece)))

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        for row, (piece, parameter) in enumerate(self._parts):
            self._after.put(row, sample(_rows_of(parameter, piece)))
        before, seen = self._weights.values, self._activations
        # Copied: a forward pass that no step follows, as one that overflows, writes over the activations alone.
        self._seen = seen.values.clone(), list(seen.lengths)
        shares = [sure_share(seen.values[row, :seen.lengths[row]].view(-1, unit.measured[0].stop))
                  for row, unit in enumerate(self.units) if unit.kind == "softmax"]
        self._pending = [
            *self._weights.moments(), *self._gradients.moments(), *seen.moments(),
            self._weights.mean_of(before.square()), self._weights.mean_of((self._after.values - before).square()),
            seen.mean_of(seen.values.abs()), seen.mean_of((seen.values <= 0).float()),
            seen.mean_of((seen.values.abs() > FLAT).float()),
            torch.stack(shares) if shares else before.new_zeros(0), self._boxes[None],
            *(figure for _, name in self._attentions for figure in self._looks[name])]

    # -- what comes of it ------------------------------------------------------------------------------------------

    def figures(self, kept: float = 1.0) -> Optional[dict[str, Any]]:
        """What the last step showed, in one copy from the device; None if the loss scaler skipped it.

        kept   the share of the gradient that clipping left, by which it is divided again
        Returns each of FIGURES as a list over the units, None where a unit has it not, and "attention": of each of
        ATTENTIONS each of LOOKS, lists over layers of lists over heads.
        """
        if self._pending is None:
            return None
        tensors, self._pending = self._pending, None
        numbers = iter(torch.cat([tensor.float().flatten() for tensor in tensors]).tolist())
        (w_mean, w_variance, g_mean, g_variance, a_mean, a_variance, w_square, change, a_abs, low, far, sure, boxes,
         *looks) = ([next(numbers) for _ in range(tensor.numel())] for tensor in tensors)
        sure = iter(sure)
        attention: dict[str, dict[str, list[list[float]]]] = {}
        sure_rows: dict[str, float] = {}  # an attention's module → over all its heads
        for i, (name, module) in enumerate(self._attentions):
            group = attention.setdefault(name, {look: [] for look in LOOKS})
            for look, of_heads in zip(LOOKS, looks[i * len(LOOKS):]):
                group[look].append(of_heads)
            sure_rows[module] = mean(group["sure"][-1])

        figures: dict[str, Any] = {name: [] for name in FIGURES}
        for i, (unit, rows) in enumerate(zip(self.units, self._rows)):
            sizes = {row: self._pieces[row].size for row in rows}
            figures["std_weights"].append(pooled_std([(sizes[r], w_mean[r], w_variance[r]) for r in rows]))
            learning = [r for r in rows if self._gradients.lengths[r]]
            figures["std_gradients"].append(
                pooled_std([(sizes[r], g_mean[r], g_variance[r]) for r in learning]) / kept if learning else None)
            squares = sum(sizes[r] * w_square[r] for r in learning)
            figures["update_to_weight"].append(
                (sum(sizes[r] * change[r] for r in learning) / squares) ** 0.5 if squares > 0 else None)
            seen = self._activations.lengths[i] > 0
            figures["std_activations"].append(a_variance[i] ** 0.5 if seen else None)
            figures["mean_abs_activations"].append(a_abs[i] if seen else None)
            saturation = {"relu": low[i], "before_relu": low[i], "sigmoid": far[i], "boxes": boxes[0],
                          "attention": sure_rows.get(unit.attention)}
            figures["saturation"].append(next(sure) if unit.kind == "softmax" else saturation.get(unit.kind))
        return figures | {"attention": attention}

    def histograms(self, kept: float = 1.0) -> dict[str, dict[str, Any]]:
        """The distributions of the last step: group → each of KINDS → see `layer_samples.histograms`, or None."""
        content = {"weights": (self._weights.values, self._weights.lengths), "activations": self._seen,
                   "gradients": (self._gradients.values, self._gradients.lengths)}
        samples = {kind: (values.cpu().double().numpy(), lengths) for kind, (values, lengths) in content.items()}
        of_groups: dict[str, dict[str, list[Any]]] = {}
        for i, (unit, rows) in enumerate(zip(self.units, self._rows)):
            group = of_groups.setdefault(unit.group, {kind: [] for kind in KINDS})
            for kind, places in (("weights", rows), ("activations", [i]), ("gradients", rows)):
                values, lengths = samples[kind]
                scale = kept if kind == "gradients" else 1.0
                sizes = {row: 1 if kind == "activations" else self._pieces[row].size for row in places}
                group[kind].append([(sizes[row], values[row, :lengths[row]] / scale) for row in places if lengths[row]])
        return {name: {kind: histograms(units, powers=kind == "gradients") for kind, units in group.items()}
                for name, group in of_groups.items()}


def _rows_of(tensor: Tensor, piece: Piece) -> Tensor:
    return tensor[piece.start:piece.stop]


def _ask_for_weights(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    return args, {**kwargs, "need_weights": True}


def _bound(hook: Any, first: Any) -> Any:
    """A forward hook that is given `first` before what torch gives it, and runs without a gradient."""
    def hooked(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        with torch.no_grad():
            hook(first, module, args, kwargs, output)
    return hooked
