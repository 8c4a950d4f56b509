"""The script without PyTorch finds what `predict` finds."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scratch.detector import Detections, Detector, as_picture
from tests.conftest import SHARED
from tests.exporting.conftest import WANTED

pytest.importorskip("onnxruntime", reason=WANTED)

from commands.exporting import predict_onnx as script  # noqa: E402
from commands.exporting.whole import MOST_PIXELS, MOST_SCORE, apart  # noqa: E402

# The script in a process where nothing but numpy, Pillow and onnxruntime can be imported.
ALONE = """import runpy, sys
for name in ("torch", "onnx", "scratch", "commands", "matplotlib", "pycocotools"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def found_alone(folder: Path, model: Path, *sources: Path, threshold: float = 0.0) -> dict[str, Detections]:
    """By file: what the script writes, run alone in `folder`."""
    shutil.copyfile(script.__file__, folder / "predict_onnx.py")
    done = subprocess.run([sys.executable, "-c", ALONE, "predict_onnx.py", str(model), *map(str, sources), "--out",
                           "found.json", "--threshold", str(threshold)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    entries: dict[str, list[dict]] = {}
    for entry in json.loads((folder / "found.json").read_text()):
        entries.setdefault(entry["file_name"], []).append(entry)
    return {file: as_detections(found) for file, found in entries.items()}


def as_detections(entries: list[dict]) -> Detections:
    boxes = torch.tensor([entry["bbox"] for entry in entries])
    boxes[:, 2:] += boxes[:, :2]
    return Detections(boxes, torch.tensor([entry["score"] for entry in entries]),
                      torch.tensor([entry["category_id"] - 1 for entry in entries]),
                      tuple(entry["category_name"] for entry in entries))


def assert_same(detector: Detector, found: dict[str, Detections], files: list[Path]) -> None:
    """Boxes within half a pixel and scores within 1e-3 of what `Detector.predict` gives, for each file."""
    assert sorted(found) == sorted(map(str, files))
    for file in files:
        result = apart(found[str(file)], detector.predict(file, threshold=0.0))
        assert result.pixels <= MOST_PIXELS and result.score <= MOST_SCORE, (file, result)


def test_it_imports_nothing_but_numpy_pillow_and_onnxruntime():
    tree = ast.parse(Path(script.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) == {"numpy", "PIL", "onnxruntime"}


def test_it_finds_the_same_on_the_photographs(exported: tuple[Detector, Path], bccd_dir: Path, tmp_path: Path):
    detector, model = exported
    files = sorted(bccd_dir.glob("*/*.jpg"))
    assert len(files) == 8
    assert_same(detector, found_alone(tmp_path, model, *files), files)


@pytest.mark.slow
def test_it_finds_the_same_on_the_test_split_of_bccd(exported: tuple[Detector, Path], tmp_path: Path):
    folder = SHARED / "data" / "bccd" / "test"
    if not folder.is_dir():
        pytest.skip("the 72 photographs of BCCD's test split are not beside this checkout (set DETR_SHARED)")
    detector, model = exported
    assert_same(detector, found_alone(tmp_path, model, folder), sorted(folder.glob("*.jpg")))


def test_it_opens_pictures_as_predict_does(tmp_path: Path):
    rng = np.random.RandomState(0)
    rgb = Image.fromarray(rng.randint(0, 256, (19, 23, 3), dtype=np.uint8))
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.fromarray(rng.randint(0, 256, (19, 23), dtype=np.uint8)))
    turned = Image.Exif()
    turned[0x0112] = 6
    saved = {"rgb.png": rgb, "grey.png": rgb.convert("L"), "palette.png": rgb.quantize(7), "alpha.png": alpha,
             "one.png": rgb.convert("1"), "cmyk.jpg": rgb.convert("CMYK"), "cmyk.tif": rgb.convert("CMYK"),
             "wide.png": Image.fromarray(rng.randint(0, 65536, (19, 23), dtype=np.uint16)),
             "wide.tif": Image.fromarray(rng.randint(0, 65536, (19, 23), dtype=np.uint16))}
    for name, image in saved.items():
        image.save(tmp_path / name)
    rgb.save(tmp_path / "turned.jpg", exif=turned)
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(script.read_picture(str(path)), np.asarray(as_picture(path)), err_msg=path.name)
    assert script.read_picture(str(tmp_path / "turned.jpg")).shape == (23, 19, 3)


@pytest.mark.parametrize("content, words", [
    (b"", "cannot identify"), (b"<html>", "cannot identify"), (b"\x89PNG\r\n\x1a\n", ""), (None, "it is not there")])
def test_what_is_no_picture_is_refused_with_its_name(content, words, tmp_path: Path):
    path = tmp_path / "a\x1b.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as an image: ") as refused:
        script.read_picture(str(path))
    assert words in str(refused.value) and str(refused.value).isprintable()


def test_too_many_pixels_and_values_without_a_white_are_refused(tmp_path: Path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    Image.new("F", (30, 20)).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match="30×20 pixels; the model allows 0.0005"):
        script.read_picture(str(tmp_path / "a.png"), 0.0005)
    with pytest.raises(ValueError, match="mode F has no defined white"):
        script.read_picture(str(tmp_path / "f.tif"))


def test_a_bad_file_is_skipped_and_another_model_is_refused(exported, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), (90, 0, 0)).save("a.png")
    Path("b.png").write_bytes(b"text")
    script.main([str(exported[1]), "a.png", "b.png", "--draw", "drawn", "--threshold", "0"])
    said = capsys.readouterr()
    assert "skipped: 'b.png' cannot be read" in said.err and "'a.png': 7 objects" not in said.err
    assert len(json.loads(Path("predictions.json").read_text())) > 0
    assert [path.name for path in Path("drawn").iterdir()] == ["000001-a.png"]
    for model, words in ((exported[1].with_name("tensors.onnx"), "does not take pictures"),
                         (Path("b.png"), "no ONNX file")):
        with pytest.raises(SystemExit, match=f"error: .*{words}"):
            script.main([str(model), "a.png"])
    with pytest.raises(SystemExit, match="no picture could be read"):
        script.main([str(exported[1]), "b.png"])
