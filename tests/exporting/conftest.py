"""conftest: a small detector of three classes, and the file that it was exported to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scratch.data.classes import Classes
from scratch.detector import Detector, load
from tests.test_detector import checkpoint, small

WANTED = "export wants: pip install onnx onnxruntime"
CELLS = Classes((1, 2, 3), ("Platelets", "RBC", "WBC"))  # as in tests/photographs


def small_detector(folder: Path, preset: str = "tiny") -> Detector:
    """One of random weights, whose norms have learnt something, so that its detections differ from each other."""
    path = checkpoint(folder / "best.pt", small(preset), classes=CELLS.to_dict())
    detector = load(path, "cpu")
    torch.manual_seed(3)
    for value in detector.model.state_dict().values():
        if value.dim() == 1 and value.is_floating_point():
            value += 0.1 * torch.rand_like(value)
    return detector


@pytest.fixture(scope="package")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    """A detector and its file that takes pictures."""
    onnx = pytest.importorskip("onnx", reason=WANTED)
    pytest.importorskip("onnxruntime", reason=WANTED)
    from commands.export import export
    from commands.exporting.whole import joined

    folder = tmp_path_factory.mktemp("exported")
    detector = small_detector(folder)
    export(detector, folder / "tensors.onnx")
    onnx.save(joined(onnx.load(folder / "tensors.onnx"), detector), folder / "model.onnx")
    return detector, folder / "model.onnx"
