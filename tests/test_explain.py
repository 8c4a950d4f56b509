"""explain: the attention that is shown is the model's own, of the picture alone, where the picture is."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import Tensor

import commands.explain
from commands.attention import explained, extent, found_by_query
from commands.flags import parse
from commands.explain import ExplainArguments, explain, picture_id, points_of, record_file
from scratch.analysis.attention_maps import draw_detections
from scratch.analysis.attention_record import Explanation
from scratch.config import PRESETS, ModelConfig
from scratch.data.batch import Batch, collate
from scratch.evaluation.coco_eval import postprocess
from scratch.model.build import build_detr
from scratch.model.detr import Detr
from scratch.only_one import NAME as LOCK
from scratch.only_one import only_one
from scratch.training.checkpoint import load_checkpoint, save_checkpoint
from tests.analysis.test_attention_page import visited
from tests.analysis.test_attention_record import made_up

NAMES = ("ant", "bee", "cow")
SMALL = ModelConfig(backbone="resnet_tiny", dilation=True, norm="group", hidden_dim=24, nheads=3, dim_feedforward=17,
                    enc_layers=2, dec_layers=3, num_queries=5, dropout=0.0, num_classes=3)
KINDS = {"learned": {}, "anchor": {"queries": "anchor"},
         "proposal": {"queries": "proposal", "classification": "focal", "fine_memory": True}}
ABOUT = {"name": "a.png", "detector": "made up", "threshold": 0.0, "encoder_heads": False}
OF_KIND = pytest.mark.parametrize("kind", KINDS)


def picture(height: int = 70, width: int = 100) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def padded(*images: Image.Image) -> Batch:
    return collate([(torch.from_numpy(np.array(image)).permute(2, 0, 1), {}) for image in images])


def record_of(kind: str, image: Image.Image, *others: Image.Image, most: int = 5, points: tuple = ((0.1, 0.9),),
              **changes: Any) -> tuple[Explanation, Detr, Batch]:
    """An untrained model of a kind looks at `image`, padded to the largest of the others."""
    model, batch = build_detr(SMALL, **KINDS[kind], **changes).eval(), padded(image, *others)
    return explained(model, batch, image, NAMES, ABOUT, points, most), model, batch


# -- one forward pass --------------------------------------------------------------------------------------------------


@OF_KIND
def test_attention_sums_to_1_over_the_cells_that_are_no_padding(kind: str) -> None:
    record, model, batch = record_of(kind, picture(), picture(110, 130))
    grid = (5, 7)  # of 16 pixels: all of 70×100; the padded picture has 7×9
    finer = 2 if model.config.fine_memory else 1
    assert record.cells.shape == (1, 35, *grid) and record.places.shape[1:] == (3, *grid)
    rows, columns = extent(batch.pad_mask[0], (7 * finer, 9 * finer))
    assert record.cross.shape == (5, 3, 3, rows, columns) and (rows < 7 * finer) and (columns < 9 * finer)
    for weights in (record.cross, record.places):
        assert weights.astype(float).sum(axis=(-2, -1)) == pytest.approx(np.ones(weights.shape[:-2]), abs=2e-3)
    shares = record.cells / 255 * record.peaks[..., None, None]
    assert shares.sum(axis=(-2, -1)) == pytest.approx(np.ones((1, 35)), abs=0.02)


def test_of_a_large_grid_every_cell_is_kept_more_coarsely_and_the_places_are_not() -> None:
    record, _, _ = record_of("learned", picture(560, 544), most=1)
    assert record.places.shape[-2:] == record.cross.shape[-2:] == (35, 34) and record.cells.shape == (1, 306, 18, 17)
    shares = record.cells / 255 * record.peaks[..., None, None]
    assert shares.sum(axis=(-2, -1)) == pytest.approx(np.ones((1, 306)), abs=0.02)


@OF_KIND
def test_it_is_the_attention_of_the_queries_that_found_something(kind: str) -> None:
    record, model, batch = record_of(kind, picture(), most=2)
    with torch.no_grad():
        attention = model(batch.normalised(), batch.pad_mask, need_weights=True)["attention"]
    for d, detection in enumerate(record.about["detections"]):
        expected = attention["decoder_cross"][:, 0, :, detection["query"]].unflatten(-1, attention["cross_size"])
        assert record.cross[d].astype(np.float32) == pytest.approx(expected.numpy(), rel=1e-3)
    assert len(record.about["detections"]) == 2 and record.about["found"] == 5  # each scores more than 0


def test_a_place_shows_the_row_of_the_encoders_matrix_that_is_its_cell() -> None:
    record, model, batch = record_of("learned", picture(), points=((0.99, 0.01), (0.01, 0.5)))
    with torch.no_grad():
        weights = model(batch.normalised(), batch.pad_mask, need_weights=True)["attention"]["encoder"][-1][0]
    for place, cell in ((0, 6), (1, 2 * 7)):
        assert record.places[place].reshape(3, 35) == pytest.approx(weights[:, cell].numpy(), rel=1e-3)
    centre = (record.boxes[0, -1, :2] + record.boxes[0, -1, 2:]) / 2
    assert record.points[2] == pytest.approx(centre) and len(record.points) == 2 + 5


@OF_KIND
def test_a_query_begins_at_its_anchor_or_proposal_and_every_layer_has_a_box(kind: str) -> None:
    record, _, _ = record_of(kind, picture(), picture(110, 130))
    has_start = kind != "learned"
    assert record.about["start"] == (kind if has_start else None)
    assert record.about["layers"] == [0] * has_start + [1, 2, 3] and record.boxes.shape == (5, 3 + has_start, 4)
    assert record.iou[:, -1] == pytest.approx(np.ones(5))
    if has_start:  # a new detector's first answer is the anchor itself
        assert record.boxes[:, 0] == pytest.approx(record.boxes[:, 1], abs=1e-6)


def test_without_auxiliary_answers_there_is_the_last_box_alone() -> None:
    record, _, _ = record_of("learned", picture(), aux_loss=False)
    assert record.about["layers"] == [3] and record.boxes.shape == (5, 1, 4) and record.cross.shape[1] == 3


def test_without_an_encoder_there_is_no_attention_of_it() -> None:
    record, _, _ = record_of("anchor", picture(), enc_layers=0)
    assert record.cells.size == 0 and record.places.shape[0] == 0 and record.cross.size > 0


# -- which queries -----------------------------------------------------------------------------------------------------


def outputs(logits: list[list[float]]) -> dict[str, Tensor]:
    return {"pred_logits": torch.tensor([logits]), "pred_boxes": torch.rand(1, len(logits), 4)}


def test_a_query_that_says_two_things_is_shown_once_with_both() -> None:
    found = found_by_query(outputs([[-3.0, -4.0, -5.0], [1.0, 2.0, -9.0], [-9.0, -9.0, 1.5]]), "focal", NAMES, 0.5)
    assert list(found) == [1, 2]  # by falling score
    assert [name for name, _ in found[1]] == ["bee", "ant"] and [name for name, _ in found[2]] == ["cow"]


def test_no_object_is_no_label() -> None:
    found = found_by_query(outputs([[0.0, 0.0, 5.0, 9.0], [3.0, 0.0, 0.0, 0.0]]), "softmax", NAMES, 0.5)
    assert {query: labels[0][0] for query, labels in found.items()} == {1: "ant"}


def test_if_nothing_reaches_the_threshold_the_one_of_highest_score_is_kept() -> None:
    found = found_by_query(outputs([[-3.0, -4.0, -5.0], [-2.0, -9.0, -9.0]]), "focal", NAMES, 0.5)
    assert list(found) == [1] and found[1][0][1] == pytest.approx(1 / (1 + np.exp(2.0)))


@pytest.mark.parametrize("classification, answers", [("softmax", 4), ("focal", 3)])
def test_the_scores_are_those_of_predict(classification: str, answers: int) -> None:
    of_model = {"pred_logits": torch.randn(1, 40, answers), "pred_boxes": torch.rand(1, 40, 4)}
    [expected] = postprocess(of_model, torch.ones(1, 2), classification)
    found = found_by_query(of_model, classification, NAMES, 0.3)
    scores = sorted(score for labels in found.values() for _, score in labels)
    assert scores == pytest.approx(sorted(expected["scores"][expected["scores"] >= 0.3].tolist()))
    for query, labels in found.items():
        logits = of_model["pred_logits"][0, query, :3]
        assert NAMES[int(logits.argmax())] == labels[0][0]


# -- a made-up model over a made-up picture ----------------------------------------------------------------------------


def test_a_model_that_looks_at_one_cell_is_shown_to_look_there(tmp_path: Path) -> None:
    """Query 2 finds a cow; head 1 looks at its box's middle, head 2 at the upper right corner."""
    h, w, Q = 4, 6, 3
    cross = torch.zeros(1, 1, 2, Q, h * w)
    cross[0, 0, 0, :, 1 * w + 2] = cross[0, 0, 1, :, 0 * w + 5] = 1
    box = torch.tensor([2.5 / 6, 1.5 / 4, 0.3, 0.4])
    answer = {"pred_logits": torch.full((1, Q, 4), -5.0), "pred_boxes": box.expand(1, Q, 4), "aux_outputs": [],
              "attention": {"encoder": [], "decoder_cross": cross, "size": (h, w), "cross_size": (h, w)}}
    answer["pred_logits"][0, :, 3] = 5
    answer["pred_logits"][0, 2, 2] = 9

    def model(images: Tensor, pad_mask: Tensor, need_weights: bool) -> dict[str, Any]:
        assert need_weights
        return answer

    model.config = SimpleNamespace(classification="softmax", queries="learned", dec_layers=1, nheads=2)
    image = Image.new("RGB", (96, 64), "teal")
    record = explained(model, padded(image), image, NAMES, {**ABOUT, "threshold": 0.5}, (), 5)
    assert record.about["detections"] == [{"query": 2, "labels": [("cow", pytest.approx(0.982, abs=1e-3))]}]
    figure = draw_detections(record)
    for axes, place in zip(figure.axes[1:], ((1, 2), (0, 5))):
        light = np.asarray(axes.images[0].get_array()).astype(float).sum(axis=-1)
        y, x = np.unravel_index(light.argmax(), light.shape)
        assert (y * h // light.shape[0], x * w // light.shape[1]) == place
    plt.close("all")


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of an untrained detector with proposals, of images of 64 pixels that keep their shape."""
    config = replace(PRESETS["tiny"], model=replace(SMALL, **KINDS["proposal"]),
                     data=replace(PRESETS["tiny"].data, short_side=64, max_size=96, square=False, workers=0,
                                  shapes_train=2, shapes_val=3))
    path = tmp_path_factory.mktemp("run") / "best.pt"
    save_checkpoint(path, {"config": config.to_dict(), "model": build_detr(config.model).state_dict(), "ema": None,
                           "classes": {"ids": [1, 2, 3], "names": list(NAMES)}, "last_metrics": {"threshold": 0.4}})
    return path


def run(checkpoint: Path, **fields: Any) -> None:
    explain(ExplainArguments(**{"checkpoint": checkpoint, "device": "cpu", "most": 2, **fields}))


def test_a_picture_becomes_three_sheets_a_page_and_a_record_that_draws_them_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    picture(75, 90).save(tmp_path / "a b.png")
    run(checkpoint, image=tmp_path / "a b.png", out=tmp_path / "out", points=("10,20",), threshold=0.0)
    printed = capsys.readouterr().out
    assert "5 detections in" in printed and "2 are explained (--most)" in printed
    names = {"a b.npz", "a b.html", "a b_detections.png", "a b_encoder.png", "a b_boxes.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {LOCK}
    record = Explanation.load(tmp_path / "out" / "a b.npz")
    assert record.points[0] == pytest.approx([10 / 90, 20 / 75]) and record.about["size"] == [90, 75]

    before = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    for name in names - {"a b.npz"}:
        (tmp_path / "out" / name).unlink()
    monkeypatch.setattr(commands.explain, "load_detector", None)  # no model is there to ask
    explain(ExplainArguments(out=tmp_path / "out", redraw=True))
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == before


def test_a_folder_that_another_command_writes_into_is_refused_and_nothing_is_written(
    checkpoint: Path, tmp_path: Path,
) -> None:
    picture(75, 90).save(tmp_path / "a.png")
    with only_one(tmp_path / "out"):
        with pytest.raises(OSError, match="out is in use by pid"):
            run(checkpoint, image=tmp_path / "a.png", out=tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]
    run(checkpoint, image=tmp_path / "a.png", out=tmp_path / "out")
    with only_one(tmp_path / "out"), pytest.raises(OSError, match="out is in use by pid"):
        explain(ExplainArguments(out=tmp_path / "out", redraw=True))


def test_the_page_that_it_writes_opens_in_a_browser_and_shows_its_detections(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands.explain, "save", lambda *_: None)  # the page alone
    picture(75, 90).save(tmp_path / "a.png")
    run(checkpoint, image=tmp_path / "a.png", out=tmp_path, threshold=0.0)
    about, seen = Explanation.load(tmp_path / "a.npz").about, visited(tmp_path / "a.html", "800,900")
    for step, number in (("opened", 1), ("hovered", 2)):
        detection = about["detections"][number - 1]
        name, score = detection["labels"][0]
        assert seen[step]["said"].startswith(f"{number}: {name} {score:.2f}")
        assert f"(query {detection['query'] + 1}), decoder layer 3, averaged over 3 heads" in seen[step]["said"]
        assert seen[step]["lit"] is not None and len(seen[step]["boxes"]) >= 4
    assert "seen from row" in seen["tapped a cell"]["said"] and seen["wide"] <= 0


def test_below_the_threshold_of_the_checkpoint_the_one_of_highest_score_is_explained_and_that_is_said(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(commands.explain, "draw", lambda path: [])
    picture().save(tmp_path / "a.png")
    run(checkpoint, image=tmp_path / "a.png", out=tmp_path)
    assert "0 detections" in (said := capsys.readouterr().out) and "(threshold 0.4)" in said
    assert "the one with the highest score is explained all the same" in said
    record = Explanation.load(tmp_path / "a.npz")
    assert len(record.about["detections"]) == 1 and len(record.points) == 4 + 1


@pytest.mark.parametrize("turned", [False, True])
def test_a_photograph_keeps_its_shape_and_its_cells(turned: bool, checkpoint: Path, tmp_path: Path, bccd_dir: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.explain, "draw", lambda path: [])
    photograph = sorted((bccd_dir / "val").glob("*.jpg"))[0]
    if turned:
        with Image.open(photograph) as image:
            photograph = tmp_path / "turned.png"
            image.transpose(Image.Transpose.ROTATE_90).save(photograph)
    run(checkpoint, image=photograph, out=tmp_path)
    record = Explanation.load(tmp_path / f"{photograph.stem}.npz")
    width, height = record.about["size"]
    rows, columns = record.places.shape[-2:]
    assert (width, height) == ((480, 640) if turned else (640, 480))
    assert (rows < columns) == (height < width) and record.pixels(100).shape[:2].index(100) == int(width > height)


def test_slots_are_the_boxes_of_all_queries_in_all_images_of_a_data_set(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run(checkpoint, data="shapes", limit=2, out=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"slots.json", "slots.png", LOCK}
    kept = json.loads((tmp_path / "out" / "slots.json").read_text())
    assert np.array(kept["boxes_cxcywh"]).shape == (2, 5, 4) and kept["about"]["data"] == "val of shapes"
    before = (tmp_path / "out" / "slots.png").read_bytes()
    (tmp_path / "out" / "slots.png").unlink()
    explain(ExplainArguments(out=tmp_path / "out", redraw=True))
    assert (tmp_path / "out" / "slots.png").read_bytes() == before


def test_the_slots_of_a_detector_of_some_classes_are_shown_over_data_of_others(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands.explain, "draw", lambda path: [])
    state = load_checkpoint(checkpoint)
    state["config"]["data"]["classes"] = "ant,bee,cow"  # which the shapes are none of
    save_checkpoint(tmp_path / "best.pt", state)
    run(tmp_path / "best.pt", data="shapes", limit=2, out=tmp_path)
    assert np.array(json.loads((tmp_path / "slots.json").read_text())["boxes_cxcywh"]).shape == (2, 5, 4)


@pytest.mark.parametrize("fields, words", [
    ({}, "wanted an image, --data or both, or else --redraw alone"),
    ({"redraw": True, "image": Path("a.png")}, "or else --redraw alone"),
    ({"redraw": True, "out": Path("nowhere")}, "no record in nowhere")])
def test_what_cannot_be_done_is_said_before_anything_is_opened(fields: dict, words: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        explain(ExplainArguments(**fields))


@pytest.mark.parametrize("fields, words", [
    ({"image": Path("nowhere.png")}, "nowhere.png"),
    ({"image": Path("text.png")}, "text.png cannot be read as an image"),
    ({"image": Path("a.png"), "points": ("101,5",)}, "within the picture's 100×70")])
def test_the_picture_and_the_points_are_looked_at_before_a_detector_is_loaded(
    fields: dict, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    picture().save("a.png")
    Path("text.png").write_text("no picture")
    for name in ("load_detector", "newest_run"):
        monkeypatch.setattr(commands.explain, name, lambda *_: pytest.fail("a detector was looked for"))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        explain(ExplainArguments(**fields, device="cpu"))
    assert not Path("explained").exists()


@pytest.mark.parametrize("text", ["10", "10,20,30", "a,b", "-1,5", "5,71", "101,5", "nan,5"])
def test_a_point_that_is_not_in_the_picture_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="within the picture's 100×70"):
        points_of((text,), (100, 70))


def test_points_are_x_and_y_in_pixels_of_the_picture() -> None:
    assert points_of(("25,7", "100,70"), (100, 70)) == ((0.25, 0.1), (1.0, 1.0))


def test_the_command_line_takes_a_picture_and_several_points() -> None:
    words = ["a.jpg", "--points", "1,2", "3,4", "--encoder-heads", "--checkpoint", "runs/a"]
    arguments = parse(ExplainArguments, ExplainArguments(), "explain", words)
    assert arguments == ExplainArguments(Path("a.jpg"), points=("1,2", "3,4"), encoder_heads=True,
                                         checkpoint=Path("runs/a"))
    assert parse(ExplainArguments, ExplainArguments(), "explain", ["--redraw"]).image is None


# -- names, and what is no picture -------------------------------------------------------------------------------------


def explained_as(folder: Path, image: Path) -> str:
    """Make a record of that picture in the folder as explain would; its name."""
    path = record_file(image, folder)
    record = made_up(1, 1, 1)
    record.about.update(name=image.name, picture=picture_id(image))
    record.save(path)
    return path.name


def test_two_pictures_have_two_records_and_one_picture_one(tmp_path: Path) -> None:
    names = ["x/a.jpg", "x/a.png", "x/A.JPG", "y/a.jpg", "y/a.png", "x/a.jpg.png"]
    records = [explained_as(tmp_path, tmp_path / name) for name in names]
    assert records == ["a.npz", "a.png.npz", "A.JPG.npz", "a-2.npz", "a-3.npz", "a.jpg.png.npz"]
    assert [explained_as(tmp_path, tmp_path / name) for name in names] == records  # again: over their own
    assert len(list(tmp_path.glob("*.npz"))) == len(names)


def test_what_is_no_record_of_ours_is_not_written_over(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", somebodys=np.zeros(3))
    assert explained_as(tmp_path, tmp_path / "x" / "a.jpg") == "a.jpg.npz"


def test_a_record_of_the_version_before_is_its_pictures_by_name(tmp_path: Path) -> None:
    made_up().save(tmp_path / "a picture.npz")  # of "a picture.jpg", and it says no more
    assert record_file(tmp_path / "x" / "a picture.jpg", tmp_path) == tmp_path / "a picture.npz"
    assert record_file(tmp_path / "x" / "a picture.png", tmp_path) == tmp_path / "a picture.png.npz"


def test_the_name_of_a_record_leaves_room_for_the_names_of_its_charts(tmp_path: Path) -> None:
    name = record_file(tmp_path / ("n" * 250 + ".jpg"), tmp_path).stem + "_detections.png"
    assert len(name) < 255


@pytest.mark.parametrize("make, what", [
    (os.mkdir, "it is a folder, wanted a file"), (getattr(os, "mkfifo", None), "it is a pipe, wanted a file"),
    (lambda path: None, "is not there"), (lambda path: os.symlink("nowhere", path), "is a link to .*nowhere")])
def test_what_is_no_file_is_told_and_not_waited_for(make: Any, what: str, tmp_path: Path) -> None:
    if make is None:
        pytest.skip("this system has no pipes with names")
    make(tmp_path / "p.jpg")
    with pytest.raises((OSError, ValueError), match=f"p.jpg .*{what}"):
        explain(ExplainArguments(image=tmp_path / "p.jpg", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
