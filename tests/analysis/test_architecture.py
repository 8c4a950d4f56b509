"""The picture of the architecture shows the shapes that the model really has, and is the file that the docs show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from scratch.analysis import architecture
from scratch.config import PRESETS
from scratch.model.build import build_detr
from tests.conftest import REPOSITORY


def written(*shape: object) -> str:
    return f"({', '.join(map(str, shape))})"


def test_the_shapes_are_those_of_the_published_model() -> None:
    seen = {}
    with torch.device("meta"):
        model = build_detr(PRESETS["detr_r50"].model).eval()
        images, pad_mask = torch.zeros(2, 3, 600, 640), torch.zeros(2, 600, 640, dtype=torch.bool)

        def note(name: str):
            def hook(layer, inputs, output) -> None:
                seen[name] = tuple((output[0] if isinstance(output, tuple) else output).shape)
            return hook

        parts = {"projected": model.input_proj, "memory": model.transformer.encoder,
                 "decoder output": model.transformer.decoder}
        handles = [part.register_forward_hook(note(name)) for name, part in parts.items()]
        seen["feature map"] = tuple(model.backbone(images).shape)
        outputs = model(images, pad_mask)
        for handle in handles:
            handle.remove()
    told = architecture.shapes()
    assert told["images"] == written(*images.shape) and told["pad_mask"] == written(*pad_mask.shape)
    assert {name: told[name] for name in seen} == {name: written(*shape) for name, shape in seen.items()}
    assert told["positional encoding"] == told["projected"]
    assert told["object queries"] == written(*model.query_embed.weight.shape)
    L = len(outputs["aux_outputs"]) + 1
    K = PRESETS["detr_r50"].model.num_classes
    assert tuple(outputs["pred_logits"].shape) == (2, 100, K + 1) and told["logits"] == written(L, 2, 100, "K+1")
    assert told["boxes"] == written(L, *outputs["pred_boxes"].shape)


def test_every_shape_and_part_is_written_on_the_picture() -> None:
    figure = architecture.draw()
    texts = {text.get_text() for text in figure.axes[0].texts}
    plt.close(figure)
    told = architecture.shapes()
    told.pop("positional encoding")  # that of the feature map that it is added to
    assert {shape for name, shape in told.items() if name != "pad_mask"} <= texts
    assert f"padding mask {told['pad_mask']}" in texts
    assert {"backbone", "feature map", "positional encoding", "encoder  × 6", "decoder  × 6", "object queries",
            "class head", "box head", "bipartite matching", "set loss"} <= texts


def test_the_command_draws_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    architecture.main(["--out", str(tmp_path / "new")])
    path = tmp_path / "new" / "architecture.png"
    assert capsys.readouterr().out == f"{path}\n"
    with Image.open(path) as drawn, Image.open(REPOSITORY / "docs" / "pictures" / "architecture.png") as kept:
        assert drawn.size == kept.size and drawn.width > 1200


def test_the_docstring_names_the_command_that_draws_the_committed_file() -> None:
    command, path = re.search(r"(python -m \S+) --out (\S+)", architecture.__doc__).groups()
    assert command == "python -m scratch.analysis.architecture"
    assert (REPOSITORY / path / "architecture.png").is_file()
