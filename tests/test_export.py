"""A detector in ONNX gives what it gives in PyTorch, for any number of images of any size."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from commands.convert import ConvertArguments, convert
from commands import export as module_of_export, traceable as module
from commands.export import ExportArguments, answers_apart, example, example_size, export, export_checkpoint
from commands.export import largest_difference
from commands.traceable import traceable
from scratch.config import PRESETS, ModelConfig
from scratch.data.classes import Classes
from scratch.detector import Detector
from scratch.model.build import build_detr
from tests.test_detector import checkpoint, small

SMALL = ModelConfig(backbone="resnet_tiny", norm="batch", hidden_dim=24, nheads=3, dim_feedforward=20, enc_layers=1,
                    dec_layers=2, num_queries=7, num_classes=5)
WANTED = "export wants: pip install onnx onnxruntime"
MODELS = {
    "learned": replace(SMALL, norm="frozen_batch"),
    "anchors": replace(SMALL, norm="group", dilation=True, queries="anchor", classification="focal"),
    "proposals, fine memory": replace(SMALL, queries="proposal", classification="focal", dilation=True,
                                      fine_memory=True),
    "a route of training": replace(SMALL, queries="proposal", classification="focal", one_to_many=3),
    "RoI features": replace(SMALL, queries="proposal", classification="focal", fine_memory=True, roi_features=True),
}


def detector(model: ModelConfig, preset: str = "tiny") -> Detector:
    """A small one whose norms have learnt something."""
    network = build_detr(model)
    for name, value in network.state_dict().items():
        if value.dim() == 1 and value.is_floating_point():
            value += 0.1 * torch.rand_like(value) if name.endswith("var") else 0.1 * torch.randn_like(value)
    config = PRESETS[preset]
    data = replace(config.data, short_side=96, max_size=160, square=False)
    return Detector(network.eval(), replace(config, model=model, data=data),
                    Classes(tuple(range(5)), tuple("abcde")), 0.31)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    """A detector and its file."""
    pytest.importorskip("onnx", reason=WANTED)
    torch.manual_seed(1)
    ours, path = detector(MODELS["learned"]), tmp_path_factory.mktemp("onnx") / "model.onnx"
    export(ours, path)
    return ours, path


@pytest.mark.parametrize("name", MODELS)
def test_the_copy_that_is_traced_computes_what_the_model_does(name: str):
    ours = detector(MODELS[name])
    copy = traceable(ours.model).double()
    ours.model.double()
    images, pad_mask = example(2, 101, 131)
    with torch.no_grad():
        logits, boxes = copy(images.double(), pad_mask)
        expected = ours.model(images.double(), pad_mask)
    torch.testing.assert_close(logits, expected["pred_logits"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(boxes, expected["pred_boxes"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("preset", PRESETS)
def test_of_no_preset_a_layer_is_left_that_a_runtime_has_a_better_one_for(preset: str):
    network = build_detr(replace(PRESETS[preset].model, backbone="resnet_tiny", hidden_dim=24, nheads=3))
    copy = traceable(network)
    assert not [name for name, layer in copy.named_modules() if type(layer) in module.STAND_INS]
    assert any(type(layer) is torch.nn.Conv2d for layer in copy.modules())


@pytest.mark.parametrize("name", MODELS)
def test_the_file_gives_what_the_model_gives_whatever_the_number_and_size_of_images(name: str, tmp_path: Path):
    pytest.importorskip("onnx", reason=WANTED)
    pytest.importorskip("onnxruntime", reason=WANTED)
    ours = detector(MODELS[name])
    export(ours, tmp_path / "model.onnx")
    H, W = example_size(ours)
    others = [(1, H, W), (2, W, H), (3, 101, 131), (1, 1, 1), (2, 33, 64), (2, 224, 320), (1, 40, 700)]
    assert largest_difference(tmp_path / "model.onnx", ours, others) < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("short_side, queries", [(96, 90), (160, 7)], ids=["fewer cells than queries", "more cells"])
def test_a_file_of_proposed_queries_is_right_for_pictures_with_fewer_and_with_more_cells_than_queries(
    short_side: int, queries: int, tmp_path: Path,
):
    pytest.importorskip("onnx", reason=WANTED)
    pytest.importorskip("onnxruntime", reason=WANTED)
    ours = detector(replace(MODELS["proposals, fine memory"], num_queries=queries))
    ours = ours._replace(config=replace(ours.config, data=replace(ours.config.data, short_side=short_side)))
    export(ours, tmp_path / "model.onnx")
    others = [(1, 16, 16), (2, 48, 32), (1, 96, 96), (2, 192, 192)]
    cells = [-(-H // 16) * -(-W // 16) for _, H, W in others]
    assert min(cells) < queries < max(cells)
    assert largest_difference(tmp_path / "model.onnx", ours, others) < 1e-4


def test_every_export_is_compared_where_cells_are_fewer_than_queries_and_where_they_are_more():
    for name in ("tiny", "tiny_vanilla"):
        ours = PRESETS[name]
        batches = module_of_export.sizes(*example_size(detector(MODELS["learned"])._replace(config=ours)))
        cells = [-(-H // 16) * -(-W // 16) for _, H, W in batches]
        assert min(cells) == 1 and max(cells) > ours.model.num_queries


def test_the_file_says_what_its_user_must_know(learned: tuple[Detector, Path]):
    file = pytest.importorskip("onnx", reason=WANTED).load(learned[1])
    said = {entry.key: entry.value for entry in file.metadata_props}
    assert json.loads(said["classes"]) == ["a", "b", "c", "d", "e"]
    assert json.loads(said["category_ids"]) == [0, 1, 2, 3, 4]
    assert json.loads(said["mean"]) == [0.485, 0.456, 0.406] and json.loads(said["std"]) == [0.229, 0.224, 0.225]
    assert json.loads(said["size"]) == {"short_side": 96, "max_size": 160, "square": False}
    assert said["classification"] == "softmax" and json.loads(said["threshold"]) == 0.31
    kinds = [node.op_type for node in file.graph.node]
    assert kinds.count("Conv") == 21  # of the small ResNet's 16 + 3 + 1, and the projection: one node each


def test_a_file_of_another_detector_is_found_out(learned: tuple[Detector, Path]):
    pytest.importorskip("onnxruntime", reason=WANTED)
    with pytest.raises(ValueError, match="differs from the checkpoint by"):
        largest_difference(learned[1], detector(MODELS["learned"]), [(1, 96, 128)])


def test_learnt_queries_are_compared_in_their_order_and_proposed_ones_in_any_with_none_left_out():
    there = torch.tensor([[[0.0, 1.0], [2.0, 5.0], [4.0, 4.0]]])  # (1,3,2): three queries
    swapped, repeated = there[:, [1, 0, 2]], there[:, [1, 1, 1]]
    assert answers_apart(swapped, there, in_order=True) == 4 and answers_apart(swapped, there, in_order=False) == 0
    for in_order in (True, False):
        assert answers_apart(there + 0.25, there, in_order) == 0.25
        assert answers_apart(repeated, there, in_order) == answers_apart(there, repeated, in_order) > 1
        assert answers_apart(there * float("nan"), there, in_order).isnan()


@pytest.mark.parametrize("spoiled", [lambda answer: answer[:, [0] * 7], lambda answer: answer * float("nan")],
                         ids=["one query for all", "no number"])
@pytest.mark.parametrize("name", ["anchors", "proposals, fine memory"])
def test_a_file_that_repeats_one_query_or_has_no_numbers_is_refused(name, spoiled, monkeypatch: pytest.MonkeyPatch):
    ours = detector(MODELS[name])

    class Runtime:
        """Answers as ONNX Runtime would, from a file that spoils the answers."""

        def __init__(self, *_, **__) -> None:
            pass

        def run(self, names, inputs):
            with torch.no_grad():
                answer = ours.model(*(torch.from_numpy(inputs[name]) for name in ("images", "pad_mask")))
            return [spoiled(answer[name]).numpy() for name in names]

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(
        InferenceSession=Runtime, SessionOptions=SimpleNamespace))
    with pytest.raises(ValueError, match="differs from the checkpoint"):
        largest_difference(Path("a.onnx"), ours, [(2, 96, 128)])


def test_a_file_that_differs_never_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("onnx", reason=WANTED)
    ours, other = detector(MODELS["learned"]), traceable(detector(MODELS["learned"]).model)
    monkeypatch.setattr(module_of_export, "traceable", lambda _: other)
    pytest.importorskip("onnxruntime", reason=WANTED)
    (tmp_path / "model.onnx").write_text("an older one")
    with pytest.raises(ValueError, match="differs from the checkpoint by .* and is not kept"):
        export(ours, tmp_path / "model.onnx")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("model.onnx", "an older one")]


def test_the_command_writes_checks_and_says_what_the_file_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("onnx", reason=WANTED)
    pytest.importorskip("onnxruntime", reason=WANTED)
    path = checkpoint(tmp_path / "best.pt", small("tiny_vanilla"))
    export_checkpoint(ExportArguments(path, tmp_path / "out" / "model.onnx"))
    said = capsys.readouterr().out
    assert "pad_mask bool (B,H,W)" in said and "ONNX Runtime gives the same for batches of 6 sizes" in said
    assert (tmp_path / "out" / "model.onnx").stat().st_size > 100_000


@pytest.mark.parametrize("kind", ["folder", "pipe"])
@pytest.mark.parametrize("command", ["export", "convert"])
def test_what_is_no_file_is_refused_before_the_work(command: str, kind: str, tmp_path: Path):
    out = tmp_path / ("out.onnx" if command == "export" else "out.pt")
    if kind == "folder":
        out.mkdir()
    else:
        getattr(os, "mkfifo", lambda _: pytest.skip("no pipes with names here"))(out)
    word = {"folder": "folder", "pipe": "device or a pipe"}[kind]
    with pytest.raises(OSError, match=rf"{out.name} could not be written: it is a {word}"):
        if command == "export":
            export_checkpoint(ExportArguments(tmp_path / "no checkpoint is looked for", out))
        else:
            convert(ConvertArguments("no weights are looked for", out))
    assert out.is_dir() or out.is_fifo()


def test_without_the_package_the_command_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match="pip install onnx onnxruntime"):
        export(detector(MODELS["learned"]), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert largest_difference(tmp_path / "model.onnx", detector(MODELS["learned"]), []) is None


def test_another_ending_is_refused_before_the_work_for_the_package_onnx_would_write_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model.json, wanted a file that ends in .onnx"):
        export_checkpoint(ExportArguments(tmp_path / "no checkpoint is looked for", tmp_path / "model.json"))
