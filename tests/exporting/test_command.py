"""`export` writes a file that takes pictures, what is needed beside it, and a card that tells what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from commands.export import ExportArguments
from commands.exporting.command import SCRIPT, export_detector, paths_of
from scratch.detector import load
from scratch.only_one import NAME as LOCK
from tests.exporting.conftest import CELLS, WANTED
from tests.test_detector import checkpoint, small

pytest.importorskip("onnx", reason=WANTED)
pytest.importorskip("onnxruntime", reason=WANTED)

from commands.exporting import measured, whole  # noqa: E402
from commands.exporting.card import Row, cell, table  # noqa: E402
from commands.exporting.measured import Figures, figures, split_of  # noqa: E402


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint; files are compared for two small sizes, which test_whole does for all."""
    monkeypatch.setattr(whole, "SIZES", ((1, 48, 64), (4, 33, 40)))
    monkeypatch.setattr(whole.largest_differences, "__defaults__", (whole.SIZES,))
    return checkpoint(tmp_path / "best.pt", small("tiny"), classes=CELLS.to_dict())


@pytest.mark.slow
def test_everything_is_written_and_the_card_says_what_was_measured(trained, bccd_dir, tmp_path, capsys):
    out = tmp_path / "out" / "cells.onnx"
    export_detector(ExportArguments(trained, out, data=str(bccd_dir), eval_split="val", half=True, int8=True))
    written = {path.name: path for path in out.parent.iterdir() if path.name != LOCK}
    assert sorted(written) == sorted(path.name for path in paths_of(out).values())
    sizes = [written[f"cells{form}.onnx"].stat().st_size for form in ("", ".half", ".int8")]
    assert sizes == sorted(sizes, reverse=True)
    assert json.loads(written["cells.labels.json"].read_text()) == [
        {"label": k, "category_id": id, "name": name} for k, (id, name) in enumerate(zip(CELLS.ids, CELLS.names))]
    assert written["predict_onnx.py"].read_bytes() == SCRIPT.read_bytes()
    card, said = written["cells.md"].read_text(encoding="utf-8"), capsys.readouterr().out
    for row in ("PyTorch, float32", "cells.onnx", "cells.half.onnx", "cells.int8.onnx"):
        assert f"| {row} | " in card and f"| {row} | " in said
    assert "AP on 2 pictures of the val split of `bccd`" in card and "calibrated on 5 pictures of the train" in card
    assert "| 1 | 64×48 | " in card and "| 4 | 40×33 | " in card


def test_without_the_data_of_the_training_the_file_is_written_and_says_so(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measured, "split_of", lambda *_: (_ for _ in ()).throw(FileNotFoundError("it has moved")))
    out = tmp_path / "out" / "model.onnx"
    export_detector(ExportArguments(trained, out))
    said = capsys.readouterr()
    assert "AP is not measured, for it has moved" in said.err and out.is_file()
    assert "the data that the detector was trained with is not at hand" in out.with_suffix(".md").read_text()
    for fields, words in ((dict(int8=True), "--int8 wants pictures"), (dict(data="nowhere"), "it has moved")):
        with pytest.raises((ValueError, OSError), match=words):
            export_detector(ExportArguments(trained, out, **fields))


@pytest.mark.parametrize("fields, words", [
    (dict(out=Path("a.json")), "wanted a file that ends in .onnx"), (dict(form="tensors", half=True), "--form tensors"),
    (dict(form="tensors", int8=True), "--form tensors")])
def test_what_cannot_be_done_is_refused_before_the_work(fields, words):
    with pytest.raises(ValueError, match=words):
        export_detector(ExportArguments(Path("no checkpoint is looked for"), **fields))


def test_a_folder_in_the_place_of_a_file_beside_it_is_refused_before_the_work(tmp_path: Path):
    (tmp_path / "model.half.onnx").mkdir()
    with pytest.raises(OSError, match="model.half.onnx could not be written: it is a folder"):
        export_detector(ExportArguments(Path("no checkpoint is looked for"), tmp_path / "model.onnx"))


def test_the_network_alone_is_still_to_be_had(trained, tmp_path, capsys):
    export_detector(ExportArguments(trained, tmp_path / "t.onnx", form="tensors"))
    assert "pad_mask bool (B,H,W)" in capsys.readouterr().out and (tmp_path / "t.onnx").is_file()


def test_the_file_has_the_layers_and_the_queries_that_were_asked_for(trained, tmp_path):
    export_detector(ExportArguments(trained, tmp_path / "t.onnx", form="tensors", layers=1, num_queries=5))
    session = whole.session_of(tmp_path / "t.onnx")
    feeds = {"images": torch.randn(1, 3, 64, 96).numpy(), "pad_mask": torch.zeros(1, 64, 96, dtype=torch.bool).numpy()}
    logits = torch.from_numpy(session.run(["pred_logits"], feeds)[0])
    with torch.no_grad():
        wanted = load(trained, "cpu", layers=1, num_queries=5).model(*(torch.from_numpy(x) for x in feeds.values()))
    assert logits.shape[1] == 5
    torch.testing.assert_close(logits.sort(1).values, wanted["pred_logits"].sort(1).values, rtol=1e-3, atol=1e-3)


def test_the_ap_of_a_file_is_that_of_the_detector(exported, bccd_dir: Path):
    """What the detector finds is the truth, so that an AP is not 0 for weights that have learnt nothing."""
    detector, path = exported
    session = whole.session_of(path)
    dataset = split_of(detector, "a", detector.config.data.__class__(data=str(bccd_dir), short_side=64, max_size=96,
                                                                     square=True), "train", 4)
    truth = dataset.ground_truth()
    truth["annotations"] = []
    for index, image in enumerate(truth["images"]):
        found = detector.predict(dataset.file_of(index), threshold=0.0)
        for box, label in zip(found.boxes_xyxy[:5].tolist(), found.labels[:5].tolist()):
            x0, y0, x1, y1 = box
            truth["annotations"].append({"image_id": image["id"], "category_id": CELLS.ids[label], "iscrowd": 0,
                                         "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)})
    dataset.ground_truth = lambda: truth
    before = figures(measured.in_pytorch(detector), dataset, 100, "before")
    after = figures(lambda picture: whole.answers(session, picture[None], detector.classes.names)[0], dataset, 100, "a")
    assert before.AP > 0.3 and abs(before.AP - after.AP) < 1e-3 and before.milliseconds > 0
    worse = figures(lambda picture: detector.predict(torch.zeros(48, 64, 3, dtype=torch.uint8).numpy(), 0.0), dataset,
                    100, "worse")
    assert worse.AP < before.AP - 0.1


def test_the_table_tells_what_was_lost_and_a_dash_where_nothing_was_measured():
    rows = [Row("a", 2**21, Figures(0.5, 0.7, None, 12.34)), Row("b|c", 2**20, Figures(0.45, 0.7, None, 5.0))]
    assert table(rows).splitlines()[2:] == ["| a | 2.0 | 0.500 | 0.700 | – | 0.0000 | 12.3 |",
                                            "| b\\|c | 1.0 | 0.450 | 0.700 | – | 0.0500 | 5.0 |"]
    assert table([Row("a", 0, None)]).splitlines()[2] == "| a | 0.0 | – | – | – | – | – |"


def test_a_name_of_a_class_cannot_break_the_card():
    assert cell("a|b\n*c*") == r"a\|b\\n\*c\*"
