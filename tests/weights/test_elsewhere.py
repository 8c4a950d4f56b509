"""What other programs save beside and around weights is taken off, and none of their code runs."""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scratch.config import PRESETS, ModelConfig
from scratch.detector import load
from scratch.model.build import build_detr
from scratch.training.checkpoint import save_checkpoint
from scratch.weights.convert import to_official
from scratch.weights.elsewhere import behind_prefix, read_file, state_dicts
from scratch.weights.huggingface import to_hugging_face
from scratch.weights.reading import read_weights
from scratch.weights.whole import PRESET_WITH, config_of, taken_as

SMALL = ModelConfig(backbone="resnet_tiny", hidden_dim=12, nheads=3, dim_feedforward=17, enc_layers=1, dec_layers=1,
                    num_queries=5, num_classes=3)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return build_detr(SMALL).eval()


@pytest.fixture(scope="module")
def official(model) -> dict[str, torch.Tensor]:
    return to_official(model.state_dict())


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published presets with a small backbone."""
    monkeypatch.setitem(PRESET_WITH, "resnet_tiny", "detr_r50")
    for name in ("detr_r50", "detr_r50_dc5"):
        model = replace(PRESETS[name].model, backbone="resnet_tiny", nheads=4)
        monkeypatch.setitem(PRESETS, name, replace(PRESETS[name], model=model))


def same(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == others.keys() and all(torch.equal(ours[key], others[key]) for key in ours)


# -- beside the weights ----------------------------------------------------------------------------------------------


def lightning(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lightning's kind of settings, which is there only while the file is written."""
    module = types.ModuleType("lightning_fabric.utilities.data")
    module.AttributeDict = type("AttributeDict", (dict,), {"__module__": module.__name__})
    for name in ("lightning_fabric", "lightning_fabric.utilities"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.AttributeDict


def test_what_training_scripts_save_beside_weights_does_not_keep_them_from_being_read(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        settings = lightning(patch)(lr=1e-4, backbone="resnet50")
        beside = {"args": argparse.Namespace(lr=1e-4, output_dir=pathlib.PurePosixPath("runs/a")),
                  "hyper_parameters": settings, "best": np.float64(0.42), "curve": np.arange(3.0),
                  "counts": collections.defaultdict(list, a=[1]), "folder": Path("runs/b"),
                  "order": collections.OrderedDict(a=1)}
        torch.save({**beside, "state_dict": {"model.a": torch.ones(2)}}, tmp_path / "a.ckpt")
    content, _ = read_file(tmp_path / "a.ckpt")
    assert dict(state_dicts(content)) == {("state_dict",): {"model.a": content["state_dict"]["model.a"]}}
    assert content["hyper_parameters"] == {"lr": 1e-4, "backbone": "resnet50"}
    assert content["folder"] == "runs/b" and content["args"].output_dir == "runs/a"
    assert "lightning_fabric" not in sys.modules  # its code was not even looked for


class Trained:
    def __init__(self) -> None:
        self.lr = 1.0


def test_an_object_of_any_other_class_is_refused(tmp_path):
    torch.save({"model": {"a": torch.ones(2)}, "trainer": Trained()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"objects of tests\.weights\.test_elsewhere\.Trained, which could run"):
        read_file(tmp_path / "a.pth")


def test_what_stands_for_a_foreign_name_is_allowed_for_this_file_alone(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    before = set(torch.serialization.get_safe_globals())
    read_file(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before


# -- around the weights ----------------------------------------------------------------------------------------------


def test_a_prefix_is_what_stands_before_both_names_and_the_shortest_of_several():
    state = {f"{prefix}{name}": torch.tensor(0.0) for prefix in ("module.", "module.teacher.") for name in "ab"}
    prefix, tensors, others = behind_prefix({**state, "loss": torch.tensor(0.0)}, "a", "b")
    assert (prefix, sorted(tensors), others) == ("module.", ["a", "b", "teacher.a", "teacher.b"], ["loss"])
    assert behind_prefix({"x.a": torch.tensor(0.0), "y.b": torch.tensor(0.0)}, "a", "b") is None


def test_a_detector_of_transformers_within_a_lightning_module_is_found(model, tmp_path):
    """As the notebooks that fine-tune it save it."""
    state = {f"model.{key}": value for key, value in to_hugging_face(model.state_dict()).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    weights = read_weights(tmp_path / "a.ckpt")
    assert weights.kind == "Hugging Face DETR" and same(weights.tensors, model.state_dict())
    assert any("'model.' was taken off" in note for note in weights.notes)


# -- fine-tuned official checkpoints ---------------------------------------------------------------------------------


def test_fine_tuned_official_weights_are_a_detector_whose_classes_are_numbered_or_named(model, official, tmp_path):
    torch.save({"model": official, "epoch": 3}, tmp_path / "mine.pth")
    detector = load(tmp_path / "mine.pth", "cpu")
    assert same(detector.model.state_dict(), model.state_dict())
    assert detector.classes.names == ("class 0", "class 1", "class 2") and detector.config.train.precision == "float32"
    assert any("taken as detr_r50 with" in note for note in detector.notes)
    assert any("they are numbered" in note and "--class-names" in note for note in detector.notes)
    named = load(tmp_path / "mine.pth", "cpu", class_names="cat, dog,owl")
    assert named.classes.names == ("cat", "dog", "owl")
    with pytest.raises(ValueError, match="got 2 class names, wanted 3 different names"):
        load(tmp_path / "mine.pth", "cpu", class_names="cat,dog")


@pytest.mark.parametrize("dilation, preset", [(True, "detr_r50_dc5"), (False, "detr_r50")])
def test_the_arguments_in_an_official_checkpoint_tell_what_no_shape_shows(official, tmp_path, dilation, preset):
    args = argparse.Namespace(dilation=dilation, nheads=3, backbone="resnet50", lr=1e-4)
    torch.save({"model": official, "args": args}, tmp_path / "checkpoint.pth")
    weights = read_weights(tmp_path / "checkpoint.pth")
    config = config_of(weights)
    assert (config.preset, config.model.dilation, config.model.nheads) == (preset, dilation, 3)
    assert taken_as(config, weights).startswith(f"taken as {preset}, by the arguments in the file, with")


@pytest.mark.parametrize("args", [argparse.Namespace(dilation="yes", nheads=2.5), {"nheads": -1}, ["--dilation"], None])
def test_arguments_of_another_kind_tell_nothing(official, tmp_path, args):
    torch.save({"model": official, "args": args}, tmp_path / "checkpoint.pth")
    assert read_weights(tmp_path / "checkpoint.pth").arguments == {}


def test_names_for_classes_that_a_checkpoint_names_itself_are_refused(tmp_path):
    config = PRESETS["tiny"]
    small = replace(config, model=replace(config.model, hidden_dim=32, dim_feedforward=48, num_classes=3))
    save_checkpoint(tmp_path / "a.pt", {
        "config": small.to_dict(), "classes": {"ids": [1, 2, 3], "names": ["a", "b", "c"]},
        "model": build_detr(small.model).state_dict(), "ema": None, "last_metrics": {}})
    with pytest.raises(ValueError, match="a.pt says what its classes are called: leave them out"):
        load(tmp_path / "a.pt", "cpu", class_names="x,y,z")
