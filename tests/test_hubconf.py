"""torch.hub offers the published detectors, from this folder, as the official repository does."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hubconf
from hubconf import as_batch
from scratch.config import PRESETS
from scratch.data.batch import Batch
from scratch.model.build import build_detr
from scratch.weights.convert import to_official
from tests import golden

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = {"detr_resnet50": "detr_r50", "detr_resnet50_dc5": "detr_r50_dc5", "detr_resnet101": "detr_r101",
          "detr_resnet101_dc5": "detr_r101_dc5"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published presets with a small network."""
    for name in MODELS.values():
        config = PRESETS[name]
        model = replace(config.model, backbone="resnet_tiny", hidden_dim=32, nheads=4, dim_feedforward=48, enc_layers=1,
                        dec_layers=2, num_queries=7)
        monkeypatch.setitem(PRESETS, name, replace(config, model=model))


def test_the_entries_are_the_official_ones_each_with_a_docstring():
    offered = {name for name in dir(hubconf) if name.startswith("detr_")}
    assert offered == set(MODELS) and all(getattr(hubconf, name).__doc__ for name in MODELS)


def test_every_package_that_is_imported_is_among_the_dependencies():
    """torch.hub looks for them first, and names those that are not installed."""
    assert all(importlib.util.find_spec(name) for name in hubconf.dependencies)
    imported = {node.names[0].name.split(".")[0] if isinstance(node, ast.Import) else (node.module or "").split(".")[0]
                for node in ast.walk(ast.parse((REPOSITORY / "hubconf.py").read_text()))
                if isinstance(node, (ast.Import, ast.ImportFrom))}
    assert imported <= {*hubconf.dependencies, "scratch", "dataclasses", "typing", "__future__"}


def test_torch_hub_loads_a_model_from_this_folder_and_the_official_names_load_into_it(small):
    model, postprocess = torch.hub.load(str(REPOSITORY), "detr_resnet50", source="local", num_classes=5,
                                        return_postprocessor=True)
    model.eval()
    plain = build_detr(PRESETS["detr_r50"].model, num_classes=5)
    official = to_official(plain.state_dict())
    assert not any(model.load_state_dict(official))  # no key is missing, none unexpected
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in model.state_dict().items())
    outputs = model(torch.randn(2, 3, 64, 96))
    assert set(outputs) == {"pred_logits", "pred_boxes"} and outputs["pred_logits"].shape == (2, 7, 6)
    found = postprocess(outputs, torch.tensor([[64, 96], [128, 192]]))
    assert [set(each) for each in found] == [{"scores", "labels", "boxes"}] * 2 and found[1]["boxes"].shape == (7, 4)


@pytest.mark.parametrize("name, preset", MODELS.items())
def test_each_entry_is_the_network_of_its_name(monkeypatch, name, preset):
    monkeypatch.setattr(hubconf, "HubDetr", lambda config: config)  # nothing is built
    assert getattr(hubconf, name)() == replace(PRESETS[preset].model, aux_loss=False)
    assert getattr(hubconf, name)(num_classes=5).num_classes == 5


def test_pictures_of_every_form_are_the_same_batch():
    images, pad_mask = golden.batch([[32, 64], [64, 32]])
    alone = [images[0, :, :32, :64], images[1, :, :64, :32]]

    class Nested:
        tensors, mask = images, pad_mask

    for form in (alone, tuple(alone), Nested()):
        got, mask = as_batch(form)
        assert torch.equal(got, images) and torch.equal(mask, pad_mask)
    got, mask = as_batch(images)
    assert got is images and not mask.any()
    batch = Batch(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), pad_mask, [{}, {}])
    got, mask = as_batch(batch)
    assert torch.equal(got, batch.normalised()) and mask is pad_mask


@pytest.mark.parametrize("samples, error, words", [
    (torch.zeros(3, 4, 5), ValueError, r"got a tensor \(3, 4, 5\), wanted \(B,3,H,W\)"),
    ([torch.zeros(4, 5)], ValueError, r"wanted \(3,h,w\) each"), ([], TypeError, "type list"),
    ("a.jpg", TypeError, "type str, wanted a tensor")])
def test_samples_of_another_form_are_refused(samples, error, words):
    with pytest.raises(error, match=words):
        as_batch(samples)


def test_pretrained_weights_come_by_their_name_and_other_classes_begin_at_random(small, tmp_path, monkeypatch):
    model = build_detr(PRESETS["detr_r101"].model)
    path = tmp_path / "a.pth"
    torch.save({"model": to_official(model.state_dict())}, path)
    asked = []
    monkeypatch.setattr(hubconf, "find_weights", lambda name: asked.append(name) or path)
    same = hubconf.detr_resnet101(pretrained=True)
    assert asked == ["detr_r101"]
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in same.state_dict().items())
    other = hubconf.detr_resnet101(pretrained=True, num_classes=2)
    assert other.class_embed.weight.shape == (3, 32)
    assert torch.equal(other.bbox_embed.layers[0].weight, model.bbox_embed.layers[0].weight)


@pytest.mark.slow
def test_by_torch_hub_the_outputs_are_the_official_ones(golden_dir):
    facts, arrays = golden.read(golden_dir, "detr_resnet50")
    model, postprocess = torch.hub.load(str(REPOSITORY), "detr_resnet50", source="local", return_postprocessor=True)
    model.load_state_dict(golden.weights(facts["state_dict"]))
    images, pad_mask = golden.batch(facts["sizes"])
    alone = [image[:, :h, :w] for image, (h, w) in zip(images, facts["sizes"])]
    with torch.no_grad():
        outputs = model.eval()(alone)
    assert float((outputs["pred_logits"] - torch.from_numpy(arrays["pred_logits"])).abs().max()) < golden.LOGITS
    assert float((outputs["pred_boxes"] - torch.from_numpy(arrays["pred_boxes"])).abs().max()) < golden.BOXES
    found = postprocess({key: value[:1] for key, value in outputs.items()}, torch.tensor([[480, 640]]))[0]
    assert torch.equal(found["labels"], torch.from_numpy(arrays["post_labels"]))
    assert float((found["boxes"] - torch.from_numpy(arrays["post_boxes"])).abs().max()) < golden.PIXELS
