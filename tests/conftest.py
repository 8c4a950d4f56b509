"""conftest: what every test may lean on: a fixed seed, and the shared real data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
# Golden values and real photographs are not part of the project; they lie beside a developer's checkout.
SHARED = Path(os.environ.get("DETR_SHARED", REPOSITORY.parent / "shared"))

settings.register_profile("suite", max_examples=25, deadline=None, derandomize=True,
                          suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not beside this checkout (set DETR_SHARED to the folder that holds it)")
    return path


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of values that the official DETR computed."""
    return _shared("golden")


@pytest.fixture(scope="session")
def bccd_dir() -> Path:
    """A real COCO-format set: 364 photographs of blood cells, 3 classes, splits train/ val/ test/."""
    return _shared("data/bccd")


@pytest.fixture(scope="session")
def coco_tiny_dir() -> Path:
    """A real COCO-format set: 80 + 80 photographs of COCO 2017, laid out as the full set."""
    return _shared("data/coco_tiny")
