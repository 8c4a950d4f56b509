"""info: what is a preset made of?"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import torch

from commands.opening import make_criterion, parameter_count
from scratch.analysis.primitives import by_category, record_primitives
from scratch.config import Config
from scratch.model.build import build_detr
from scratch.model.detr import freeze_backbone


@dataclass(frozen=True)
class InfoArguments:
    """What a preset is made of: its fields, its parameters by part, and the tensor primitives of one training step."""

    config: Config


def info(arguments: InfoArguments) -> None:
    """Print the configuration, the parameters by part, and the primitives of a training step, by category."""
    config = arguments.config
    for part in ("model", "loss", "data", "train"):
        fields = ", ".join(f"{name}={value}" for name, value in config.to_dict()[part].items() if value is not None)
        print(textwrap.fill(f"{part}: {fields}", width=110, subsequent_indent="  "))
    model = build_detr(config.model)
    freeze_backbone(model, config.train.train_backbone)
    print(f"\n{parameter_count(model)}")
    parts = [(name, part) for name, part in model.named_children() if name != "transformer"]
    for name, part in (*parts, *model.transformer.named_children()):
        print(f"  {name:12}{sum(p.numel() for p in part.parameters()):>14,}")

    criterion = make_criterion(config)
    targets = [{"labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.3]]), "image_id": 0}]

    def step() -> None:
        outputs = model(torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool))
        criterion.total(criterion(outputs, targets)).backward()

    table = by_category(record_primitives(step))
    print(f"\n{sum(map(len, table.values()))} tensor primitives make up forward, matching, loss and backward "
          "(with their calls for one 64×96 image):")
    for kind, calls in table.items():
        listed = ", ".join(f"{name} {count:,}" for name, count in calls.items())
        print(textwrap.fill(f"{kind:20}{listed}", width=110, initial_indent="  ", subsequent_indent=" " * 22))
