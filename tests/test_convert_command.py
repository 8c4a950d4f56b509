"""convert: weights leave as the official code takes them, or as safetensors, and come back bit for bit."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from commands import convert as module
from commands.convert import ConvertArguments, convert, refuse_what_the_official_code_lacks
from scratch import whole_file
from scratch.config import PRESETS, Config, ModelConfig
from scratch.weights.convert import from_official, to_official
from scratch.detector import load as load_detector
from scratch.model.build import build_detr
from scratch.model.detr import Detr
from scratch.training.checkpoint import save_checkpoint
from tests.golden import NAMES
from tests.test_golden import PRESET

CPU = torch.device("cpu")


def constants(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Tensors of these shapes, each filled with a number of its own, which need no room on the disk."""
    return {key: torch.full((1,), float(i)).expand(shape) for i, (key, shape) in enumerate(shapes.items(), 1)}


def save_run(folder: Path, config: Config, state: dict[str, Tensor], names=("a", "b", "c")) -> Path:
    """A run's folder as far as convert looks at it."""
    save_checkpoint(folder / "best.pt", {
        "config": config.to_dict(), "classes": {"ids": list(range(len(names))), "names": list(names)}, "model": state,
        "ema": None, "last_metrics": {"threshold": 0.37}})
    return folder


@pytest.fixture(params=NAMES)
def facts(request, golden_dir) -> dict:
    return json.loads((golden_dir / f"{request.param}.json").read_text())


@pytest.fixture
def official_r50(golden_dir, tmp_path) -> tuple[Path, dict[str, Tensor]]:
    state = constants(json.loads((golden_dir / "detr_resnet50.json").read_text())["state_dict"])
    torch.save({"model": state}, tmp_path / "detr-r50.pth")
    return tmp_path / "detr-r50.pth", state


@pytest.fixture
def official(tmp_path, monkeypatch) -> tuple[Path, dict[str, Tensor]]:
    """A small detector that the official code could build, of the preset "small"; no shape shows its 3 heads."""
    model = ModelConfig(backbone="resnet18", hidden_dim=12, nheads=3, dim_feedforward=17, enc_layers=1, dec_layers=1,
                        num_queries=5, num_classes=3)
    monkeypatch.setitem(PRESETS, "small", Config("small", model))
    state = constants({key: list(value.shape) for key, value in to_official(Detr(model).state_dict()).items()})
    torch.save({"model": state}, tmp_path / "official.pth")
    return tmp_path / "official.pth", state


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_what_leaves_has_the_keys_and_shapes_of_the_official_state_dict(facts, tmp_path):
    config = PRESETS[PRESET[facts["name"]]]
    state = from_official(constants(facts["state_dict"]))
    run = save_run(tmp_path, config, state, [str(k) for k in range(config.model.num_classes)])
    convert(ConvertArguments(str(run), tmp_path / "out.pth"))
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(content) == ["model"]
    assert {key: list(value.shape) for key, value in content["model"].items()} == facts["state_dict"]
    assert equal(from_official(content["model"]), state)


def test_an_official_file_becomes_a_checkpoint_that_predict_takes(official_r50, tmp_path, capsys):
    path, state = official_r50
    convert(ConvertArguments(str(path), tmp_path / "detr_r50.pt", to="ours"))
    assert "taken as detr_r50" in capsys.readouterr().out
    detector = load_detector(tmp_path / "detr_r50.pt", CPU)
    assert equal(detector.model.state_dict(), from_official(state))
    assert (detector.config.preset, detector.classes.names[17]) == ("detr_r50", "cat")
    convert(ConvertArguments(str(tmp_path / "detr_r50.pt"), tmp_path / "back.pth"))
    assert equal(torch.load(tmp_path / "back.pth", weights_only=True)["model"], state)


def test_the_published_name_of_a_file_tells_its_preset(official_r50, tmp_path, capsys):
    path = official_r50[0].rename(tmp_path / "detr-r50-dc5-f0fb7ef5.pth")
    convert(ConvertArguments(str(path), tmp_path / "a.pt", to="ours"))
    assert load_detector(tmp_path / "a.pt", CPU).config.preset == "detr_r50_dc5"
    assert "taken as" not in capsys.readouterr().out


def test_a_preset_that_no_shape_shows_is_named(official, tmp_path, capsys):
    convert(ConvertArguments(str(official[0]), tmp_path / "a.pt", to="ours", preset="small"))
    detector = load_detector(tmp_path / "a.pt", CPU)
    assert detector.config.model == PRESETS["small"].model and detector.config.model.nheads == 3
    assert "taken as" not in capsys.readouterr().out


def test_safetensors_hold_the_tensors_their_classes_and_their_configuration(tmp_path):
    model = build_detr("tiny", num_classes=3)
    config = replace(PRESETS["tiny"], model=model.config)
    run = save_run(tmp_path, config, model.state_dict())
    convert(ConvertArguments(str(run), tmp_path / "a.safetensors", to="ours"))
    assert equal(load_file(tmp_path / "a.safetensors"), model.state_dict())
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        told = file.metadata()
    assert json.loads(told["classes"])["names"] == ["a", "b", "c"]
    assert Config.from_dict(json.loads(told["config"])) == config
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == (tmp_path / "best.pt").stat().st_mode & 0o777
    convert(ConvertArguments(str(tmp_path / "a.safetensors"), tmp_path / "b.pt", to="ours"))
    detector = load_detector(tmp_path / "b.pt", CPU)
    assert equal(detector.model.state_dict(), model.state_dict()) and detector.config == config


def test_a_checkpoint_that_lost_its_training_keeps_its_threshold(tmp_path):
    model = build_detr("tiny", num_classes=3)
    run = save_run(tmp_path, replace(PRESETS["tiny"], model=model.config), model.state_dict())
    convert(ConvertArguments(str(run), tmp_path / "small.pt", to="ours"))
    assert load_detector(tmp_path / "small.pt", CPU).threshold == 0.37


def test_safetensors_in_the_official_names_come_back(official, tmp_path):
    path, state = official
    convert(ConvertArguments(str(path), tmp_path / "a.safetensors", preset="small"))
    assert equal(load_file(tmp_path / "a.safetensors"), state)
    convert(ConvertArguments(str(tmp_path / "a.safetensors"), tmp_path / "b.pth"))
    assert equal(torch.load(tmp_path / "b.pth", weights_only=True)["model"], state)


@pytest.mark.parametrize("changes, words", [
    (dict(out=Path("a.onnx")), "wanted a file that ends in"),
    (dict(out=Path("folder"), to="hf"), "transformers' DETR has no queries=proposal, classification=focal, fine_m"),
    (dict(), "no detector with queries=proposal, classification=focal, backbone=resnet_tiny: take --to ours"),
    (dict(preset="detr_r50"), "the file says that its weights are of tiny, not detr_r50"),
    (dict(weights="nowhere"), "neither a file nor a known name"),
])
def test_what_cannot_be_written_is_refused_before_anything_is(changes, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = build_detr("tiny", num_classes=3)
    save_run(tmp_path / "run", replace(PRESETS["tiny"], model=model.config), model.state_dict())
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        convert(ConvertArguments(**{"weights": "run", "out": Path("a.pth"), **changes}))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("backbone, dilation, refused", [
    ("resnet18", True, True), ("resnet34", True, True), ("resnet18", False, False), ("resnet50", True, False)])
def test_the_official_code_dilates_no_network_of_basic_blocks(backbone, dilation, refused):
    config = Config("any", ModelConfig(backbone=backbone, dilation=dilation))
    if not refused:
        refuse_what_the_official_code_lacks(config)
        return
    with pytest.raises(ValueError, match=f"no detector with dilation=True in {backbone}: take --to ours"):
        refuse_what_the_official_code_lacks(config)


def test_weights_that_do_not_say_what_they_are_need_a_preset(tmp_path):
    torch.save(build_detr("tiny", num_classes=3).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="add --preset NAME"):
        convert(ConvertArguments(str(tmp_path / "a.pth"), tmp_path / "b.pt", to="ours"))
    with pytest.raises(ValueError, match="no preset 'tinny'"):
        convert(ConvertArguments(str(tmp_path / "a.pth"), tmp_path / "b.pt", to="ours", preset="tinny"))
    convert(ConvertArguments(str(tmp_path / "a.pth"), tmp_path / "b.pt", to="ours", preset="tiny"))
    assert load_detector(tmp_path / "b.pt", CPU).classes.names == ("class 0", "class 1", "class 2")


def test_classes_that_the_file_does_not_name_are_guessed_aloud_or_named_by_a_person(official, tmp_path, capsys):
    convert(ConvertArguments(str(official[0]), tmp_path / "a.pt", to="ours", preset="small"))
    said = capsys.readouterr().out
    assert "note: the file does not name its classes: they are numbered (class 0, class 1, class 2 …)" in said
    named = ConvertArguments(str(official[0]), tmp_path / "a.pt", to="ours", preset="small", classes="cat, dog,owl")
    convert(named)
    assert load_detector(tmp_path / "a.pt", CPU).classes.names == ("cat", "dog", "owl")
    assert "does not name" not in capsys.readouterr().out
    for wrong in ("cat", "cat,cat,dog", "cat,,dog"):
        with pytest.raises(ValueError, match="class names, wanted 3 different names"):
            convert(replace(named, classes=wrong))


def test_ninety_one_classes_of_ones_own_are_said_to_be_taken_for_cocos(tmp_path, monkeypatch, capsys):
    model = ModelConfig(backbone="resnet18", hidden_dim=12, nheads=3, dim_feedforward=17, enc_layers=1, dec_layers=1)
    monkeypatch.setitem(PRESETS, "small", Config("small", model))
    torch.save({"model": to_official(Detr(model).state_dict())}, tmp_path / "mine.pth")
    convert(ConvertArguments(str(tmp_path / "mine.pth"), tmp_path / "a.pt", to="ours", preset="small"))
    said = capsys.readouterr().out
    assert "taken to be COCO's, which are as many (-, person, bicycle, car …); if they are your own" in said


def test_a_file_has_more_or_fewer_queries_than_the_preset_that_is_named(official, tmp_path, monkeypatch):
    small = PRESETS["small"]
    monkeypatch.setitem(PRESETS, "small", replace(small, model=replace(small.model, num_queries=40)))
    convert(ConvertArguments(str(official[0]), tmp_path / "a.pt", to="ours", preset="small"))
    assert load_detector(tmp_path / "a.pt", CPU).config.model.num_queries == 5


@pytest.mark.parametrize("to", ["official", "ours"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_folder_or_a_pipe_is_not_replaced(official, tmp_path, to, ending):
    (tmp_path / f"folder{ending}").mkdir()
    os.mkfifo(tmp_path / f"pipe{ending}")
    for name in ("folder", "pipe"):
        words = {"folder": "it is a folder, wanted", "pipe": "it is a device or a pipe, wanted"}[name]
        with pytest.raises(OSError, match=words):
            convert(ConvertArguments(str(official[0]), tmp_path / f"{name}{ending}", to=to, preset="small"))
    assert (tmp_path / f"pipe{ending}").is_fifo()


def test_heads_that_contradict_each_other_are_refused(tmp_path):
    config = replace(PRESETS["tiny"].model, hidden_dim=32, dim_feedforward=48, num_classes=3)
    state = build_detr(config).state_dict()
    state["proposal_head.class_embed.weight"] = torch.zeros(5, 32)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="contradict each other .*proposal_head.class_embed.weight"):
        convert(ConvertArguments(str(tmp_path / "a.pth"), tmp_path / "b.pt", to="ours", preset="tiny"))


def test_a_backbone_alone_is_no_detector(tmp_path):
    torch.save(build_detr("tiny").backbone.state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match="a backbone's alone"):
        convert(ConvertArguments(str(tmp_path / "resnet.pth"), tmp_path / "a.pth"))


def test_a_write_that_fails_leaves_nothing(official, tmp_path, monkeypatch):
    monkeypatch.setattr(whole_file.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    for name in ("a.pth", "a.safetensors"):
        with pytest.raises(OSError, match="full"):
            convert(ConvertArguments(str(official[0]), tmp_path / name, preset="small"))
    assert [path.name for path in tmp_path.iterdir()] == ["official.pth"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_full_disk_is_said_names_the_file_and_leaves_nothing(official, tmp_path, name):
    stem, _, ending = name.partition(".")
    (tmp_path / f".{stem}.partial.{ending}").symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"{name} could not be written: .*; free some space, or name another --out"):
        convert(ConvertArguments(str(official[0]), tmp_path / name, preset="small"))
    assert [path.name for path in tmp_path.iterdir()] == ["official.pth"]


def test_torch_tells_of_a_full_disk_in_its_own_way(official, tmp_path, monkeypatch):
    def full(content, path):
        path.write_bytes(b"half")
        raise RuntimeError("unexpected pos 576 vs 534")

    monkeypatch.setattr(module.torch, "save", full)
    with pytest.raises(OSError, match="a.pth could not be written: unexpected pos 576"):
        convert(ConvertArguments(str(official[0]), tmp_path / "a.pth", preset="small"))
    assert [path.name for path in tmp_path.iterdir()] == ["official.pth"]


@pytest.mark.parametrize("name", ["official.pth", "last.pt"])
def test_the_weights_themselves_and_the_checkpoints_beside_them_are_not_written_over(official, name):
    with pytest.raises(ValueError, match="is a file that this command reads"):
        convert(ConvertArguments(str(official[0]), official[0].with_name(name), to="ours", preset="small"))
