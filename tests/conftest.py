"""conftest: what every test may lean on: a fixed seed, golden values, and pictures.

    in every clone          golden_dir   bccd_dir (eight photographs)   coco_dir (drawn, in COCO's form)
    where it is at hand     coco_tiny_dir: a real set of many megabytes
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests import golden
from tests.drawn_coco import draw_coco

pytest_plugins = ["tests.shared_fixtures"]  # no test changes a model that others share
REPOSITORY = Path(__file__).resolve().parent.parent
# A set of many megabytes is not part of the project; it may lie beside a checkout.
SHARED = Path(os.environ.get("DETR_SHARED", REPOSITORY.parent / "shared"))

settings.register_profile("suite", max_examples=25, deadline=None, derandomize=True,
                          suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow test has five times pytest.ini's limit, which is there for what hangs and not for a machine that is slow."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> None:
    """nohup and background shells have a process ignore signals that some tests send to it."""
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the data set {name}, of many megabytes, is not beside this checkout (set DETR_SHARED to the "
                    "folder that holds it)")
    return path


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of values that the official DETR computed."""
    return golden.FOLDER


@pytest.fixture(scope="session")
def bccd_dir() -> Path:
    """A real COCO-format set: eight photographs of blood cells, 3 classes, splits train/ val/ test/."""
    return REPOSITORY / "tests" / "photographs" / "bccd"


@pytest.fixture(scope="session")
def coco_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 + 40 drawn pictures, laid out as the full COCO 2017: 80 classes, crowds, outlines."""
    return draw_coco(tmp_path_factory.mktemp("drawn_coco") / "coco")


@pytest.fixture(scope="session")
def coco_tiny_dir() -> Path:
    """A real COCO-format set: 80 + 80 photographs of COCO 2017, laid out as the full set."""
    return _shared("data/coco_tiny")
