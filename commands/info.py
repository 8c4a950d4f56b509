"""info: what is a preset made of?"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from commands.opening import make_criterion, parameter_count
from scratch.analysis.primitives import record_primitives
from scratch.config import Config
from scratch.model.detr import build_detr, freeze_backbone


@dataclass(frozen=True)
class InfoArguments:
    """What a preset is made of: its fields, its parameters by part, and the tensor primitives of one training step."""

    config: Config


def info(arguments: InfoArguments) -> None:
    """Print the configuration, the parameters by part, and every ATen operator that a training step dispatches."""
    config = arguments.config
    for part in ("model", "loss", "data", "train"):
        print(f"{part}: " + ", ".join(f"{name}={value}" for name, value in config.to_dict()[part].items() if value is not None))
    model = build_detr(config.model)
    freeze_backbone(model, config.train.train_backbone)
    print(f"\n{parameter_count(model)}")
    parts = {"backbone": model.backbone, "encoder": model.transformer.encoder, "decoder": model.transformer.decoder,
             "class_embed": model.class_embed, "bbox_embed": model.bbox_embed, "query_embed": model.query_embed, "input_proj": model.input_proj}
    for name, part in parts.items():
        print(f"  {name:12}{sum(p.numel() for p in part.parameters()):>14,}")

    criterion = make_criterion(config)
    targets = [{"labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.3]]), "image_id": 0}]

    def step() -> None:
        outputs = model(torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool))
        criterion.total(criterion(outputs, targets)).backward()

    primitives = record_primitives(step)
    print(f"\n{len(primitives)} tensor primitives make up one forward, matching, loss and backward (calls on a 64×96 image):")
    names = sorted(primitives)
    width = max(map(len, names)) + 8
    for i in range(0, len(names), 4):
        print("  " + "".join(f"{name} {primitives[name]:,}".ljust(width) for name in names[i:i + 4]).rstrip())
