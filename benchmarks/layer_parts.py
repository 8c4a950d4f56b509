"""layer_parts: what do the parts of a training step cost, each by itself?

    image ─ backbone ─► features ─ transformer and heads ─► answers ─ matching ─► pairs ─ losses ─► loss
                                                                      gradients ─ clipping ─► optimizer

Each part runs on what the part before it gave in one step, and is sent the gradient that it was sent there, so that it
does in a loop what it does in training. Matching and losses are apart: the pairs are found once, and handed to the
losses as they are.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator, NamedTuple, Optional
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.training_step import TrainingStep, as_leaves


class Part(NamedTuple):
    """What to call for a part: `whole` is forward and backward, where there is one, and `forward` the first half."""

    whole: Callable[[], Any]
    forward: Optional[Callable[[], Any]] = None


def inference(step: TrainingStep) -> Callable[[], Any]:
    """The detector's answer for the first image alone, without a gradient; the model is in eval mode from here on."""
    step.model.eval()
    images, pad_mask = step.images[:1], step.pad_mask[:1]

    @torch.no_grad()
    def answer() -> dict[str, Any]:
        with step.autocast:
            return step.model(images, pad_mask)

    return answer


def parts(step: TrainingStep) -> dict[str, Part]:
    """The parts of a training step, in its order. The last one moves the weights, so it is to be measured last."""
    model, criterion = step.model.train(), step.criterion
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    trunk = [p for name, p in learning.items() if name.startswith("backbone.")]
    heads = [p for name, p in learning.items() if not name.startswith("backbone.")]
    see = model.backbone.stages

    def backbone() -> list[Tensor]:
        with step.autocast:
            return see(step.images)

    features = as_leaves(backbone())
    seen = [x for x in tensors(features) if x.requires_grad]

    def transformer() -> dict[str, Any]:
        with patch.object(model.backbone, "stages", lambda _: features):
            return step.forward()

    answers = as_leaves(transformer())
    find, losses = objective(step, answers)
    # One backward from the loss: it leaves at the answers, and then at the features, the gradients that are sent on.
    criterion.total(criterion(answers, step.targets)).backward()
    for x, gradient in zip(seen, pulled(transformer(), answers, seen)):
        x.grad = gradient
    result = {
        "backbone": Part(lambda: pulled(backbone(), features, trunk), backbone),
        "transformer and heads": Part(lambda: pulled(transformer(), answers, [*seen, *heads]), transformer),
        "matching": Part(find), "losses": Part(losses)}

    criterion.total(criterion(step.forward(), step.targets)).backward()  # gradients to clip, and to step by
    if step.max_norm:
        result["clipping"] = Part(lambda: step.clip(step.parameters, step.max_norm))
    return result | {"optimizer": Part(lambda: [optimizer.step() for optimizer in step.optimizers])}


def objective(step: TrainingStep, answers: dict[str, Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What finds the pairs for the answers, and what computes the losses of these pairs, with their backward."""
    criterion, asked = step.criterion, []
    name = "matching" if hasattr(criterion, "matching") else "match"  # ours, torch.nn's
    find = getattr(criterion, name)
    with patch.object(criterion, name, lambda *arguments: asked.append(arguments) or find(*arguments)):
        criterion(answers, step.targets)
    (arguments,) = asked
    pairs, wanted = find(*arguments), [x for x in tensors(answers) if x.requires_grad]

    def losses() -> tuple[Optional[Tensor], ...]:
        with patch.object(criterion, name, lambda *_: pairs):
            loss = criterion.total(criterion(answers, step.targets))
        return torch.autograd.grad(loss, wanted, allow_unused=True)

    return lambda: find(*arguments), losses


def tensors(values: Any) -> Iterator[Tensor]:
    """Every tensor of nested dicts and lists, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (dict, list, tuple)):
        for value in values.values() if isinstance(values, dict) else values:
            yield from tensors(value)


def pulled(outputs: Any, leaves: Any, wanted: list[Tensor]) -> tuple[Optional[Tensor], ...]:
    """The gradients of `wanted`, from outputs that are sent the gradients of `leaves`, which stood in their place."""
    pairs = list(zip(tensors(outputs), tensors(leaves), strict=True))
    sent = [y for y, leaf in pairs if leaf.grad is not None]
    gradients = [leaf.grad for _, leaf in pairs if leaf.grad is not None]
    return torch.autograd.grad(sent, wanted, gradients, allow_unused=True)
