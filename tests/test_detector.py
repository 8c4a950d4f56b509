"""A trained detector in three lines of Python: load, predict, and what comes back."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import detr_scratch
from commands.finetune import config_for
from scratch import detector as module
from scratch.config import PRESETS, Config
from scratch.weights.convert import to_official
from scratch.data.classes import Classes
from scratch.data.coco_names import COCO_NAMES
from scratch.detector import Detections, Detector, as_picture, load
from scratch.evaluation.operating_point import FALLBACK
from scratch.evaluation.pictures import class_colour
from scratch.model.build import build_detr
from scratch.training.checkpoint import save_checkpoint

CLASSES = Classes((7, 3, 19), ("cat", "dog", "owl"))


def small(preset: str, num_classes: int = 3) -> Config:
    config = PRESETS[preset]
    model = replace(config.model, backbone="resnet_tiny", hidden_dim=32, nheads=4, dim_feedforward=48, enc_layers=1,
                    dec_layers=2, num_queries=7, num_classes=num_classes)
    return replace(config, model=model, data=replace(config.data, short_side=64, max_size=96))


def checkpoint(path: Path, config: Config, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    state = {"config": config.to_dict(), "classes": CLASSES.to_dict(), "model": build_detr(config.model).state_dict(),
             "ema": None, "last_metrics": {"threshold": 0.25}}
    save_checkpoint(path, {**state, **changes})
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("run") / "best.pt", small("tiny"))


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


def same(a: Detections, b: Detections) -> bool:
    return a.names == b.names and all(torch.equal(getattr(a, name), getattr(b, name))
                                      for name in ("boxes_xyxy", "scores", "labels"))


class Answering(nn.Module):
    """A model of two queries whose answers are known: half the picture is a dog, all of it an owl."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor, pad_mask: Tensor) -> dict[str, Tensor]:
        logits = torch.tensor([[0.0, 0.8, 0.1, 0.1], [0.05, 0.0, 0.9, 0.05]]).log()  # cat, dog, owl, nothing
        boxes = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0]])
        return {"pred_logits": logits.expand(len(images), 2, 4), "pred_boxes": boxes.expand(len(images), 2, 4)}


# -- what comes back -----------------------------------------------------------------------------------------------


def test_boxes_are_in_the_pixels_of_the_image_that_was_given_by_falling_score():
    detector = Detector(Answering(), small("tiny_vanilla"), CLASSES, 0.0)
    for width, height in ((101, 67), (53, 211)):
        found = detector.predict(photograph(width, height))
        assert found.names == ("owl", "dog") and found.labels.tolist() == [2, 1] and len(found) == 2
        torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8]))
        torch.testing.assert_close(found.boxes_xyxy, torch.tensor([[0.0, 0.0, width, height],
                                                                   [0.0, 0.0, width / 2, height]]))


@pytest.mark.parametrize("threshold, names", [(None, ("owl",)), (0.0, ("owl", "dog")), (0.95, ())])
def test_what_scores_less_than_the_threshold_is_left_out_and_the_detectors_own_is_the_default(threshold, names):
    detector = Detector(Answering(), small("tiny_vanilla"), CLASSES, 0.85)
    assert detector.predict(photograph(64, 64), threshold).names == names


def test_a_file_a_pil_image_and_an_array_of_one_picture_give_the_same(saved: Path, tmp_path: Path):
    detector, picture = load(saved, "cpu"), photograph(90, 71)
    picture.save(tmp_path / "a.png")
    found = detector.predict(picture, 0.0)
    assert len(found) > 3
    for other in (tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(picture)):
        assert same(found, detector.predict(other, 0.0))


def test_a_list_gives_a_list_in_its_order_and_a_neighbour_changes_nothing(saved: Path):
    detector = load(saved, "cpu")
    pictures = [photograph(90, 71, 1), photograph(64, 120, 2), photograph(90, 71, 3), photograph(120, 64, 4)]
    narrow = Detector(detector.model, replace(detector.config, data=replace(detector.config.data, square=False)),
                      *detector[2:])
    for each in (detector, narrow):
        alone = [each.predict(picture, 0.0) for picture in pictures]
        for batch_size in (1, 3, 8):
            together = each.predict(pictures, 0.0, batch_size)
            for one, other in zip(alone, together, strict=True):
                assert one.names == other.names
                torch.testing.assert_close(one.boxes_xyxy, other.boxes_xyxy, rtol=1e-4, atol=1e-3)
    assert detector.predict([]) == []


def test_above_keeps_the_beginning():
    found = Detections(torch.arange(12.0).view(3, 4), torch.tensor([0.9, 0.5, 0.1]), torch.tensor([2, 0, 1]),
                       ("owl", "cat", "dog"))
    kept = found.above(0.5)
    assert kept.names == ("owl", "cat") and kept.labels.tolist() == [2, 0]
    assert kept.boxes_xyxy.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(found.above(0.91)) == 0 and found.above(0.91).boxes_xyxy.shape == (0, 4)


def test_detections_are_drawn_on_a_copy_each_box_in_the_colour_of_its_class():
    image = Image.new("RGB", (211, 173), "white")
    found = Detections(torch.tensor([[101.0, 83.0, 151.0, 131.0], [31.0, 89.0, 61.0, 127.0]]),
                       torch.tensor([0.9, 0.5]), torch.tensor([2, 0]), ("owl", "cat"))
    drawn = found.drawn_on(image)
    assert drawn.size == image.size and image.getcolors() == [(211 * 173, (255, 255, 255))]
    assert drawn.getpixel((100, 110)) == class_colour(2) and drawn.getpixel((30, 110)) == class_colour(0)
    assert found.above(1.0).drawn_on(np.asarray(image)).tobytes() == image.tobytes()
    with pytest.raises(FileNotFoundError):
        found.drawn_on("no such file.jpg")


# -- what may be given ---------------------------------------------------------------------------------------------


def test_pil_images_of_other_modes_become_rgb_and_transparency_white():
    grey = Image.new("L", (3, 2), 77)
    assert np.array(as_picture(grey)).tolist() == [[[77] * 3] * 3] * 2
    clear = Image.new("RGBA", (1, 1), (10, 20, 30, 0))
    assert as_picture(clear).getpixel((0, 0)) == (255, 255, 255) and as_picture(clear).mode == "RGB"


@pytest.mark.parametrize("image, said", [
    (np.zeros((4, 5, 3)), r"numpy array \(4, 5, 3\) of float64; wanted \(H,W,3\) of uint8"),
    (np.zeros((4, 5), dtype=np.uint8), r"numpy array \(4, 5\) of uint8"),
    (np.zeros((0, 5, 3), dtype=np.uint8), r"numpy array \(0, 5, 3\)"),
    (torch.zeros(3, 4, 5), "type Tensor; wanted a path, a PIL image"), (None, "type NoneType"),
    (Image.new("F", (2, 2)), "mode F"), (Image.new("I;16", (2, 2)), "mode I;16")])
def test_what_is_no_picture_is_refused_with_what_would_be_one(image, said):
    with pytest.raises(ValueError, match=said):
        as_picture(image)


def test_a_file_that_is_missing_or_no_picture_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="a.png"):
        as_picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(ValueError, match="b.png cannot be read"):
        as_picture(str(tmp_path / "b.png"))


# -- what is loaded ------------------------------------------------------------------------------------------------


def test_a_checkpoint_brings_its_weights_classes_and_threshold(saved: Path):
    detector = load(saved, "cpu")
    torch.manual_seed(0)
    expected = build_detr(small("tiny").model).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in detector.model.state_dict().items())
    assert detector.classes == CLASSES and detector.threshold == 0.25 and not detector.model.training
    assert detector.config == small("tiny") and len(repr(detector)) < 120


def test_the_running_average_is_what_is_used_and_a_run_never_judged_has_a_threshold(tmp_path: Path):
    config = small("tiny_vanilla")
    torch.manual_seed(1)
    shadow = {name: value for name, value in build_detr(config.model).state_dict().items()
              if not name.endswith("num_batches_tracked")}
    path = checkpoint(tmp_path / "last.pt", config, ema={"shadow": shadow}, last_metrics={})
    detector = load(tmp_path)  # the run's folder: there is no best.pt
    assert torch.equal(detector.model.class_embed.weight.cpu(), shadow["class_embed.weight"])
    assert detector.threshold == FALLBACK
    checkpoint(tmp_path / "best.pt", config, seed=2)
    assert not torch.equal(load(tmp_path).model.class_embed.weight, load(path).model.class_embed.weight)


def test_a_folder_without_a_checkpoint_and_another_file_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        load(tmp_path)
    (tmp_path / "a.pt").write_text("no checkpoint")
    with pytest.raises(ValueError, match="a.pt is not a whole checkpoint"):
        load(tmp_path / "a.pt")


def test_a_name_that_is_none_is_refused_with_near_ones_and_a_backbones_is_no_detector():
    with pytest.raises(FileNotFoundError, match="neither a file nor a known name .did you mean detr_r50"):
        load("detr-r50")
    with pytest.raises(ValueError, match="resnet50: these are a backbone's weights alone.*--weights resnet50"):
        load("resnet50")


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_of_which_nothing_tells_what_they_are_are_shown_the_way_to_a_checkpoint(tmp_path: Path, zipped: bool):
    """No preset is known for their backbone."""
    state = to_official(build_detr(small("detr_r50").model).state_dict())
    path = tmp_path / "mine.pth"
    torch.save({"model": state}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError) as error:
        load(path)
    assert "the file does not say what its weights are weights of: add --preset NAME" in str(error.value)
    assert str(error.value).endswith(
        f"python detr_scratch.py convert {path} --to ours --out mine-ours.pt --preset NAME")


def test_safetensors_of_ours_are_a_detector_as_they_are(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    detr_scratch.main(["convert", str(saved), "--to", "ours", "--out", "a.safetensors"])
    detector = load("a.safetensors", "cpu")
    assert detector.classes == CLASSES and detector.config == small("tiny") and detector.notes == ()
    assert same(detector.predict(photograph(64, 64), 0.0), load(saved, "cpu").predict(photograph(64, 64), 0.0))


def test_what_a_file_that_is_no_detector_holds_is_said(tmp_path: Path):
    torch.save({"encoder.sampling_offsets.weight": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="a Deformable DETR, which is another network"):
        load(tmp_path / "a.pth", "cpu")


# -- fewer decoder layers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["tiny", "detr_r50"])
def test_the_first_layers_answer_as_the_whole_detector_says_they_do(tmp_path: Path, preset: str):
    """The answers of an early layer are those among the auxiliary outputs of the whole."""
    path = checkpoint(tmp_path / "best.pt", small(preset))
    whole, short = load(path, "cpu"), load(path, "cpu", layers=1)
    images, pad_mask = torch.randn(2, 3, 64, 96).double(), torch.zeros(2, 64, 96, dtype=torch.bool)
    whole.model.double(), short.model.double()
    with torch.no_grad():
        wanted, got = whole.model(images, pad_mask)["aux_outputs"][0], short.model(images, pad_mask)
    for name in ("pred_logits", "pred_boxes"):  # the heads' products have fewer rows, which some processors round otherwise
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-9, atol=1e-9)
    assert got["aux_outputs"] == [] and short.config.model.dec_layers == short.model.config.dec_layers == 1
    assert len(short.model.transformer.decoder.layers) == 1
    assert not torch.equal(whole.model(images, pad_mask)["pred_logits"], got["pred_logits"])


@pytest.mark.parametrize("layers", [0, -1, 3])
def test_a_number_of_layers_that_there_are_not_is_refused(saved: Path, layers: int):
    with pytest.raises(ValueError, match=f"got --layers {layers}, wanted 1 to 2: the detector has 2 decoder layers"):
        load(saved, "cpu", layers=layers)


def test_of_a_detector_without_auxiliary_losses_only_the_last_layer_answers(tmp_path: Path):
    config = small("detr_r50")
    path = checkpoint(tmp_path / "best.pt", replace(config, model=replace(config.model, aux_loss=False)))
    assert load(path, "cpu", layers=2).config.model.dec_layers == 2
    with pytest.raises(ValueError, match="trained without auxiliary losses"):
        load(path, "cpu", layers=1)


# -- more queries than in training -----------------------------------------------------------------------------------


def test_another_number_of_queries_takes_the_best_cells_of_the_same_encoder(tmp_path: Path):
    """Queries attend to each other, so that more of them change each other's answers; the same number changes nothing."""
    path = checkpoint(tmp_path / "best.pt", small("tiny"))
    images, pad_mask = torch.randn(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.bool)
    as_trained = load(path, "cpu")
    trained_with = as_trained.config.model.num_queries
    with torch.no_grad():
        wanted = as_trained.model(images, pad_mask)
        for queries in (trained_with, trained_with + 3, 2):
            detector = load(path, "cpu", num_queries=queries)
            got = detector.model(images, pad_mask)
            assert detector.config.model.num_queries == detector.model.config.num_queries == queries
            assert got["pred_logits"].shape[1] == got["pred_boxes"].shape[1] == queries
            same_number = queries == trained_with
            shared = min(queries, trained_with)
            assert torch.equal(got["pred_boxes"][:, :shared], wanted["pred_boxes"][:, :shared])  # untrained: the cells'
            assert same_number == torch.equal(got["pred_logits"][:, :shared], wanted["pred_logits"][:, :shared])


def test_the_number_of_learnt_queries_cannot_change(tmp_path: Path):
    path = checkpoint(tmp_path / "best.pt", small("detr_r50"))
    with pytest.raises(ValueError, match="got --num-queries 9, but this detector has learnt its .* queries"):
        load(path, "cpu", num_queries=9)


def test_a_backbone_alone_is_no_detector(tmp_path: Path):
    torch.save(build_detr(small("tiny").model).backbone.state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match="resnet.pth is no checkpoint; these are a backbone's weights alone"):
        load(tmp_path / "resnet.pth")


def test_published_weights_are_a_detector_of_cocos_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Small ones under a published name: the layout is the same."""
    config = small("detr_r50", num_classes=91)
    monkeypatch.setitem(module.PRESETS, "detr_r50", replace(config, model=replace(config.model, num_classes=5)))
    model = build_detr(config.model)
    path = tmp_path / "detr-r50-e632da11.pth"
    torch.save({"model": to_official(model.state_dict())}, path)
    with pytest.warns(UserWarning, match="is not the published detr_r50, by its hash: its 91 classes are taken to be"):
        detector = load(path, "cpu")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in detector.model.state_dict().items())
    assert detector.classes.ids == tuple(range(91)) and detector.classes.names[17] == "cat"
    assert set(detector.predict(photograph(64, 64), 0.0).names) <= set(COCO_NAMES)


def test_a_run_in_a_folder_with_a_published_name_is_meant_by_it_wherever_it_is_given(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("detr_r50").mkdir()
    checkpoint(Path("detr_r50/best.pt"), small("tiny"))
    assert load("detr_r50", "cpu").classes == CLASSES
    assert config_for("detr_r50").preset == "tiny"
    detr_scratch.main(["convert", "detr_r50", "--to", "ours", "--out", "a.pt"])
    assert load("a.pt", "cpu").classes == CLASSES


def test_fine_tuned_weights_under_a_published_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = small("detr_r50", num_classes=4)
    monkeypatch.setitem(module.PRESETS, "detr_r50", config)
    torch.save({"model": to_official(build_detr(config.model).state_dict())}, tmp_path / "detr-r50-e632da11.pth")
    with pytest.raises(ValueError, match="has 4 classes, wanted the 91 of the published detr_r50"):
        load(tmp_path / "detr-r50-e632da11.pth")


def test_the_names_of_cocos_classes_are_cocos():
    """The sum is that of the lines "id name", in order, of the categories in COCO's own instances_val2017.json."""
    lines = "\n".join(f"{i} {name}" for i, name in enumerate(COCO_NAMES) if name != "-")
    assert hashlib.sha256(lines.encode()).hexdigest() == (
        "bec11bedfa4a658f10d0867545dfd3e345684d9cf2cafedea89c5757c2b8ae62")
    assert len(COCO_NAMES) == 91 and COCO_NAMES.count("-") == 11
