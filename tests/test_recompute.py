"""The command that computes the golden values again: its inputs are the stored ones, and it sees what differs."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reference.model import FrozenBatchNorm2d, ResNet
from tests import golden
from tests.golden.recompute import INPUTS, Body, beyond, distances, main, recompute, write

SMALL = "detr_resnet101"


@pytest.mark.parametrize("name", golden.NAMES)
def test_the_inputs_are_those_of_the_stored_values(name: str) -> None:
    facts, _ = golden.read(golden.FOLDER, name)
    assert {key: facts[key] for key in INPUTS[name]} == INPUTS[name]


def test_the_stand_in_for_torchvisions_resnet_has_the_official_keys_and_answers_by_layer() -> None:
    body = Body("resnet50", False, FrozenBatchNorm2d)
    body.return_layers = {"layer2": "1", "layer4": "0"}
    shapes, prefix = golden.read(golden.FOLDER, "detr_resnet50")[0]["state_dict"], "backbone.0.body."
    assert {prefix + key: list(value.shape) for key, value in body.state_dict().items()} == {
        key: shape for key, shape in shapes.items() if key.startswith(prefix)}
    plain = ResNet("resnet50", "frozen_batch", False)
    plain.load_state_dict(body.state_dict())
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        found, stages = body(images), plain.stages(images)
    assert list(found) == ["1", "0"]
    assert torch.equal(found["1"], stages[1]) and torch.equal(found["0"], stages[3])


def test_the_stand_in_takes_the_batch_norm_that_it_is_given() -> None:
    class Given(torch.nn.BatchNorm2d):
        pass

    kinds = [type(module) for module in Body("resnet50", True, Given).modules()]
    assert FrozenBatchNorm2d not in kinds and kinds.count(Given) == 53


def test_stored_values_are_no_distance_from_themselves_and_are_written_as_they_were(tmp_path) -> None:
    stored = golden.read(golden.FOLDER, SMALL)
    write(tmp_path, SMALL, *stored)
    assert set(distances(stored, golden.read(tmp_path, SMALL)).values()) == {0.0}
    assert (tmp_path / f"{SMALL}.json").read_bytes() == (golden.FOLDER / f"{SMALL}.json").read_bytes()


@pytest.mark.parametrize("kind, key, change", [
    ("pred_logits", None, 1e-4), ("post_labels", None, 1), ("aux_boxes", None, np.nan), ("total", None, 1e-3),
    ("losses", "loss_giou_3", 1e-3), ("losses", "loss_ce", np.nan), ("grad_norms", "bbox_embed.layers.1.bias", 0.1),
    ("n_parameters", None, 1)])
def test_a_value_beyond_the_tolerance_is_named(kind: str, key: str | None, change: float) -> None:
    stored = golden.read(golden.FOLDER, SMALL)
    facts, arrays = copy.deepcopy(stored)
    if kind in arrays:
        arrays[kind].flat[3] += change
    elif key:
        facts[kind][key] += change
    else:
        facts[kind] += change
    assert beyond(distances(stored, (facts, arrays))) == [kind]


def test_a_missing_gradient_and_a_missing_array_are_named() -> None:
    stored = golden.read(golden.FOLDER, SMALL)
    facts, arrays = copy.deepcopy(stored)
    facts["grad_norms"]["class_embed.weight"] = None
    del arrays["pred_boxes"]
    assert beyond(distances(stored, (facts, arrays))) == ["pred_boxes", "grad_norms"]


def test_a_folder_that_is_no_checkout_is_refused_with_the_way_to_one(tmp_path) -> None:
    with pytest.raises(SystemExit, match="has no .*detr.py.*wanted a checkout of the official DETR: git clone"):
        main(["--official", str(tmp_path)])


class Model(torch.nn.Module):
    """As small as a model can be that answers as DETR does: every layer says the mean of the images, scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.frozen = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3), False)

    def forward(self, images: SimpleNamespace) -> dict:
        logits = images.tensors.mean() * torch.ones(1, 11, 5, dtype=torch.float64) * self.scale.sum()
        layer = {"pred_logits": logits, "pred_boxes": logits[..., :4].sigmoid()}
        return {**layer, "aux_outputs": [layer] * 5}


class Criterion(torch.nn.Module):
    weight_dict = {"loss_a": 2, "loss_b": 3}

    def matcher(self, outputs: dict, targets: list) -> list:
        return [(torch.arange(len(t["labels"])), torch.arange(len(t["labels"]))) for t in targets]

    def forward(self, outputs: dict, targets: list) -> dict:
        assert not self.training and outputs["pred_logits"].dtype == targets[0]["boxes"].dtype == torch.float64
        return {"loss_a": outputs["pred_logits"].sum(), "loss_b": outputs["pred_boxes"].sum(), "said": torch.ones(())}


def test_what_is_computed_is_gathered_as_it_is_stored() -> None:
    asked = []
    after = {"bbox": lambda outputs, sizes: [{"scores": outputs["pred_logits"][0, :, 0], "boxes": sizes,
                                              "labels": torch.ones(11, dtype=torch.int64)}]}
    code = SimpleNamespace(build=lambda settings: asked.append(settings) or (Model(), Criterion(), after),
                           NestedTensor=lambda tensors, mask: SimpleNamespace(tensors=tensors, mask=mask))
    facts, arrays = recompute(code, SMALL, torch.float64)
    (settings,) = asked
    assert (settings.backbone, settings.dilation, settings.num_queries) == ("resnet101", False, 100)
    images, _ = golden.batch(INPUTS[SMALL]["sizes"])
    scale = golden.weights({"scale": [2], "frozen": [3]})["scale"].double().requires_grad_()
    logits = images.double().mean() * torch.ones(1, 11, 5, dtype=torch.float64) * scale.sum()
    total = 2 * logits.sum() + 3 * logits[..., :4].sigmoid().sum()
    total.backward()
    assert facts["total"] == pytest.approx(total.item(), rel=1e-12)
    assert facts["grad_norms"] == {"scale": pytest.approx(scale.grad.norm().item(), rel=1e-12), "frozen": None}
    assert (facts["n_parameters"], facts["n_trainable"]) == (5, 2) and facts["losses"]["said"] == 1
    assert facts["matches"] == [[[0, 1, 2], [0, 1, 2]]] and facts["state_dict"] == {"scale": [2], "frozen": [3]}
    assert facts.keys() == golden.read(golden.FOLDER, SMALL)[0].keys()
    assert arrays["aux_logits"].shape == (5, 1, 8, 5) and arrays["aux_boxes"].shape == (5, 1, 11, 4)
    assert arrays["post_boxes"].tolist() == [[480, 640]]
    assert arrays.keys() == golden.read(golden.FOLDER, SMALL)[1].keys()
