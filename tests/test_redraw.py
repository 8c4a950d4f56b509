"""`make charts`: every chart that the project keeps is drawn again from the data beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from commands.redraw import CHARTS, KINDS, main, redraw
from scratch.analysis import layer_charts, learning_curve
from tests.analysis import test_comparison, test_lr_range, test_sweep_charts
from tests.analysis.test_layer_charts import watched
from tests.analysis.test_learning_curve import write_run
from tests.conftest import REPOSITORY


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_set_of_each_kind_has_all_its_charts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    curves = [learning_curve.read_run(write_run(tmp_path / "run", steps=5)) | {"x": "steps"}]
    folder = tmp_path / "kept"
    put(folder / "vanilla" / "learning_curve.json", curves)
    put(folder / "sweep" / "sweep.json", test_sweep_charts.results(*test_sweep_charts.TRIALS))
    put(folder / "rates" / "lr_range.json", test_lr_range.results(test_lr_range.a_valley()))
    put(folder / "ways" / "comparison.json", test_comparison.results(test_comparison.run("ours")))
    shutil.copytree(REPOSITORY / CHARTS / "ablation_shapes", folder / "deep" / "ablation_shapes")
    shutil.copytree(REPOSITORY / CHARTS / "explained", folder / "explained")
    watched(folder / "v1")
    whole = layer_charts.plan  # all of its charts take half a minute
    monkeypatch.setattr(layer_charts, "plan", lambda content, folder: {
        path: draw for path, draw in whole(content, folder).items() if path.name.startswith("class_head")})
    wanted = {folder / name for name in (
        "vanilla/learning_curve.png", "rates/lr_range.png", "ways/comparison.png", "deep/ablation_shapes/ablation.png",
        "v1/class_head_v1.png", *(f"sweep/{name}.png" for name in (
            "learning_curves", "parallel_coordinates", "slices", "importance")),
        *(f"explained/{name}" for name in ("shapes_detections.png", "shapes_encoder.png", "shapes_boxes.png",
                                           "shapes.html", "slots.png")))}
    for path in wanted:
        path.write_text("as it was")

    main([str(folder)])
    assert {Path(line) for line in capsys.readouterr().out.splitlines()} == wanted
    pictures = wanted - {folder / "explained" / "shapes.html"}
    assert pictures == set(folder.rglob("*.png")) and all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)
    learning_curve.draw(curves, tmp_path / "steps.png", "steps")
    assert (folder / "vanilla" / "learning_curve.png").read_bytes() == (tmp_path / "steps.png").read_bytes()


def test_every_chart_that_the_project_keeps_has_its_data_beside_it() -> None:
    kept = REPOSITORY / CHARTS
    data = [path for path in kept.rglob("*.json") if any(path.match(pattern) for pattern in KINDS)]
    pictures = [path for path in kept.rglob("*.png") if path.name != "predictions.png"]  # sheets of a detector
    assert len(pictures) >= 5 and {path.parent for path in pictures} <= {path.parent for path in data}


def test_make_charts_is_this_command() -> None:
    said = subprocess.run(["make", "-n", "charts"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert "python -m commands.redraw" in said


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no data of a chart in .*wanted a folder with learning_curve.json"):
        redraw(tmp_path)
    with pytest.raises(SystemExit, match="error: there is no data"):
        main([str(tmp_path / "nowhere")])
