"""A checkpoint of an earlier version loads, and computes what it computed then: predictions, losses and gradients."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import torch

from commands.opening import make_criterion
from scratch.detector import Detector, load
from scratch.model.anchors.detr import VariantDetr
from scratch.model.detr import Detr
from scratch.training.checkpoint import load_checkpoint
from tests import golden

FOLDER = Path(__file__).resolve().parent / "old_checkpoints"
ANSWERS = json.loads((FOLDER / "answers.json").read_text())


@pytest.fixture(scope="module", params=list(ANSWERS))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def file(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name) / "best.pt"
    with tarfile.open(FOLDER / "checkpoints.tar.xz") as packed:
        path.write_bytes(packed.extractfile(f"{name}.pt").read())
    return path


@pytest.fixture
def detector(file: Path) -> Detector:
    """In float64, where what is held does not depend on how a machine rounds; each test has its own, since one trains it."""
    found = load(file, "cpu")
    return found._replace(model=found.model.double())


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of 64×96 and 32×96, and their padding mask."""
    images, pad_mask = golden.batch([[64, 96], [32, 96]])
    return images.double(), pad_mask


def test_the_class_is_that_of_the_configuration(name: str, detector: Detector):
    assert type(detector.model) is (VariantDetr if name == "anchors" else Detr)


def test_every_name_and_the_order_of_parameters_are_as_they_were(name: str, file: Path, detector: Detector):
    # An optimizer's state knows parameters by their place alone.
    assert list(detector.model.state_dict()) == list(load_checkpoint(file)["model"])
    assert [key for key, _ in detector.model.named_parameters()] == list(ANSWERS[name]["grad_norms"])


def test_predictions_are_as_they_were(name: str, detector: Detector):
    with torch.no_grad():
        outputs = detector.model.eval()(*pictures())
    for ours, stored in (("pred_logits", "logits"), ("pred_boxes", "boxes")):
        answer = torch.tensor(ANSWERS[name][stored], dtype=torch.float64)
        torch.testing.assert_close(outputs[ours], answer, rtol=1e-9, atol=1e-9)


def test_losses_and_gradients_of_a_training_step_are_as_they_were(name: str, detector: Detector):
    targets = [{"labels": torch.tensor([2, 0]), "boxes": torch.tensor([[0.25, 0.5, 0.25, 0.375],
                                                                       [0.625, 0.375, 0.5, 0.25]]), "image_id": 0},
               {"labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.75, 0.75, 0.25]]), "image_id": 1}]
    model, criterion = detector.model.train(), make_criterion(detector.config)
    torch.manual_seed(3)  # the noise of noised boxes
    losses = criterion(model(*pictures(), targets), targets)
    total = criterion.total(losses)
    total.backward()
    assert {key: value.item() for key, value in losses.items()} == pytest.approx(ANSWERS[name]["losses"], rel=1e-9)
    assert total.item() == pytest.approx(ANSWERS[name]["total"], rel=1e-9)
    ours = {key: parameter.grad.norm().item() for key, parameter in model.named_parameters()}
    assert ours == pytest.approx(ANSWERS[name]["grad_norms"], rel=1e-6, abs=1e-6)
