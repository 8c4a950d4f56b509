"""eval of published weights: what they find is judged under COCO's ids, and data of other classes is refused."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch
from PIL import Image

import detr_scratch
from commands.convert import ConvertArguments, convert
from commands.evaluate import described, numbered_as_in
from scratch.config import PRESETS, DataConfig
from scratch.weights.convert import to_official
from scratch.data.classes import Classes
from scratch.data.coco_names import COCO_NAMES
from scratch.detector import load
from scratch.model.build import build_detr
from scratch.training.checkpoint import save_checkpoint
from scratch.weights.reading import NAMED
from tests import golden
from tests.local_server import Server, serving
from tests.test_detector import checkpoint, photograph, small

WIDTH, HEIGHT = 96, 64


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Has a small detr_r50 of COCO's classes, in the official layout and under a name that begins its hash."""
    config = small("detr_r50", num_classes=91)
    monkeypatch.setitem(PRESETS, "detr_r50", config)
    monkeypatch.setenv("DETR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    content = io.BytesIO()
    torch.save({"model": to_official(build_detr(config.model).state_dict())}, content)
    path = f"/detr-r50-{hashlib.sha256(content.getvalue()).hexdigest()[:8]}.pth"
    with serving(monkeypatch) as server:
        server.files[path] = content.getvalue()
        monkeypatch.setitem(NAMED, "detr_r50", server.url(path))
        yield server


def photographs(folder: Path) -> list[Path]:
    """Two pictures, of the size in which the small detector is shown them."""
    (folder / "val2017").mkdir(parents=True)
    paths = [folder / "val2017" / f"{i}.png" for i in (1, 2)]
    for i, path in enumerate(paths):
        photograph(WIDTH, HEIGHT, i).save(path)
    return paths


def annotate(folder: Path, objects: list[tuple[int, int, list[float]]], categories: dict[int, str]) -> Path:
    """Write the annotations of `photographs`: objects are (image id, category id, xywh)."""
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps({
        "images": [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (1, 2)],
        "annotations": [{"id": n, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3],
                         "iscrowd": 0} for n, (image, category, box) in enumerate(objects, 1)],
        "categories": [{"id": id, "name": name} for id, name in categories.items()]}))
    return folder


def figures(*words: Any) -> dict[str, Any]:
    """What `detr_scratch.py eval WORDS` writes."""
    detr_scratch.main(["eval", *map(str, words), "--device", "cpu", "--workers", "0", "--json", "figures.json"])
    return json.loads(Path("figures.json").read_text())


def test_published_weights_are_fetched_once_and_find_every_object_that_they_are_known_to_find(server, tmp_path):
    paths = photographs(tmp_path / "set")
    objects = [(image, label, [x0, y0, x1 - x0, y1 - y0])
               for image, found in enumerate(load("detr_r50", "cpu").predict(paths, 0.0), 1)
               for label, (x0, y0, x1, y1) in zip(found.labels.tolist(), found.boxes_xyxy.tolist())
               if COCO_NAMES[label] != "-" and 0 <= x0 < x1 <= WIDTH and 0 <= y0 < y1 <= HEIGHT]
    assert len(objects) > 1
    annotate(tmp_path / "set", objects, {label: COCO_NAMES[label] for _, label, _ in objects})
    assert figures("detr_r50", "--data", "set")["AR_100"] == 1.0
    assert len(server.asked) == 1


@pytest.mark.parametrize("categories", [{1: "WBC", 2: "RBC"}, {91: "blender", 1: "person"}])
def test_data_with_other_classes_is_refused_with_both_named(server, tmp_path, categories):
    photographs(tmp_path / "set")
    annotate(tmp_path / "set", [(1, next(iter(categories)), [3, 4, 20, 30])], categories)
    with pytest.raises(SystemExit) as stopped:
        figures("detr_r50", "--data", "set")
    said = str(stopped.value)
    assert "has other classes than detr_r50, which knows 80 (1 person, 2 bicycle, 3 car …)" in said
    assert all(f"{id} {name}" in said for id, name in categories.items()) and "finetune --weights detr_r50" in said


def test_without_data_nothing_is_fetched_and_no_shapes_are_drawn(server, tmp_path):
    with pytest.raises(SystemExit, match="name a folder of its classes with --data"):
        figures("detr_r50")
    assert server.asked == [] and not (tmp_path / "data").exists()


def test_the_help_has_the_defaults_of_the_preset_and_needs_no_weights(server, capsys):
    with pytest.raises(SystemExit):
        detr_scratch.main(["eval", "detr_r50", "--help"])
    said = " ".join(capsys.readouterr().out.split())  # wherever the terminal's width breaks its lines
    assert "(default: 64)" in said and server.asked == []


def test_published_weights_are_judged_in_float32(server):
    assert PRESETS["detr_r50"].train.precision == "auto"
    assert load("detr_r50", "cpu").config.train.precision == "float32"


def test_an_official_r50_is_judged_as_the_checkpoint_that_it_becomes(golden_dir, coco_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shapes = json.loads((golden_dir / "detr_resnet50.json").read_text())["state_dict"]
    official = tmp_path / NAMED["detr_r50"].rpartition("/")[2]
    torch.save({"model": golden.weights(shapes)}, official)
    convert(ConvertArguments(str(official), tmp_path / "ours.pt", to="ours"))
    flags = ["--data", coco_dir, "--short-side", "64", "--max-size", "96", "--limit-val", "2"]
    ours, theirs = figures("ours.pt", *flags), figures(official, *flags)
    assert {**ours, "images_per_second": 0} == {**theirs, "images_per_second": 0}
    assert theirs["losses"]["loss"] > 0 and "person" in theirs["per_class"]


@pytest.mark.parametrize("names, ids, numbered", [
    (("owl", "cat"), (0, 1), (9, 7)), (("owl", "N", "cat"), (0, 9, 1), (9, 10, 7)), (("owl", "cat"), (9, 7), (9, 7)),
    (("owl", "dog"), (0, 1), (0, 1)), (("owl", "cat", "cat"), (0, 1, 2), (0, 1, 2))],
    ids=["others", "one more", "the same", "another class", "twice"])
def test_classes_of_the_same_names_take_the_datas_ids(tmp_path, names, ids, numbered):
    """Other programs number their labels from 0; the data's categories are 7, a cat, and 9, an owl."""
    (tmp_path / "a.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}], "annotations": [],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "owl"}]}))
    data = DataConfig(val_images=str(tmp_path), val_annotations=str(tmp_path / "a.json"),
                      train_images=str(tmp_path), train_annotations=str(tmp_path / "a.json"))
    assert numbered_as_in(data, Classes(ids, names)) == Classes(numbered, names)


def test_a_detector_of_transformers_is_judged_as_the_run_that_it_was(coco_dir, tmp_path, monkeypatch, capsys):
    """Also where its classes are numbered from 0, and with fewer decoder layers."""
    monkeypatch.chdir(tmp_path)
    config = small("detr_r50", num_classes=91)
    model = build_detr(config.model)
    save_checkpoint(tmp_path / "best.pt", {
        "config": replace(config, train=replace(config.train, precision="float32")).to_dict(),
        "classes": {"ids": list(range(91)), "names": list(COCO_NAMES)}, "model": model.state_dict(), "ema": None,
        "last_metrics": {}})
    convert(ConvertArguments("best.pt", Path("hf"), to="hf"))
    flags = ["--data", coco_dir, "--limit-val", "2"]
    for layers in ([], ["--layers", "1"]):
        ours, theirs = figures("best.pt", *flags, *layers), figures("hf", *flags, *layers)
        assert {**ours, "images_per_second": 0} == {**theirs, "images_per_second": 0} and theirs["losses"]["loss"] > 0
    assert figures("hf", *flags)["losses"] != theirs["losses"]
    with pytest.raises(SystemExit) as stopped:
        detr_scratch.main(["eval", "hf", "--device", "cpu"])
    assert "none of them: name a folder of its classes with --data" in stopped.value.code


def test_classes_are_described_by_their_number_and_the_first_of_them():
    assert described(Classes((0, 4, 7), ("-", "cat", "dog"))) == "2 (4 cat, 7 dog)"


def test_eval_refuses_a_class_that_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoint(tmp_path / "best.pt", small("tiny_vanilla"))
    with pytest.raises(SystemExit) as stopped:
        detr_scratch.main(["eval", str(path), "--classes", "nonsense", "--device", "cpu"])
    assert stopped.value.code.startswith("error: got 'nonsense' among the classes")


@pytest.mark.parametrize("words", [
    ["eval", "best.pt", "--data", "DATA", "--device", "cpu"],
    ["predict", "a.png", "--checkpoint", "best.pt", "--device", "cpu"],
    ["explain", "a.png", "--checkpoint", "best.pt", "--device", "cpu"],
    ["export", "best.pt", "--form", "tensors"],
], ids=lambda words: words[0])
def test_the_number_of_queries_reaches_the_detector_of_every_command(words, coco_dir, tmp_path, monkeypatch):
    """One that has learnt its queries refuses another number, and says so."""
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "best.pt", small("detr_r50"))
    Image.new("RGB", (40, 30)).save("a.png")
    with pytest.raises(SystemExit, match="got --num-queries 9, but this detector has learnt its"):
        detr_scratch.main([{"DATA": str(coco_dir)}.get(word, word) for word in words] + ["--num-queries", "9"])
