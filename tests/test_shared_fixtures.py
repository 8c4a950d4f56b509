"""What changes a model that tests share is found, and what only reads it is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Callable
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from tests.conftest import REPOSITORY
from tests.shared_fixtures import state

CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "a forward pass in training": lambda model: (model.train()(torch.randn(4, 3)), model.eval()),
    "what learns": lambda model: model.requires_grad_(False),
    "its mode": lambda model: model.train(),
    "a backward pass": lambda model: model(torch.randn(4, 3)).sum().backward(),
    "another dtype": lambda model: model.double(),
    "an optimizer's step": lambda model: (model(torch.randn(4, 3)).sum().backward(),
                                          torch.optim.SGD(model.parameters(), 0.1).step(), model.zero_grad()),
    "another weight": lambda model: setattr(model[0], "weight", nn.Parameter(torch.zeros(3, 3))),
}


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("inside", [lambda it: it, lambda it: {"runs": [(it, "a name")]}], ids=["itself", "in a dict"])
def test_a_change_is_seen(change: Callable[[nn.Module], object], inside: Callable[[nn.Module], object]):
    ours = model()
    before = state(inside(ours))
    change(ours)
    assert state(inside(ours)) != before


def test_what_only_reads_changes_nothing():
    ours = model()
    before = state(ours)
    with torch.no_grad():
        ours(torch.randn(4, 3))
    ours.state_dict()
    assert state(ours) == before and len(before) == 17


@pytest.mark.parametrize("scope", ["session", "module", "class"])
def test_the_test_that_changes_it_fails_and_no_other(scope: str, tmp_path: Path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tests.shared_fixtures"]')
    (tmp_path / "test_it.py").write_text('''
import pytest, torch

@pytest.fixture(scope="SCOPE")
def network():
    return torch.nn.BatchNorm1d(3)

@pytest.fixture(scope="SCOPE")
def other():
    return torch.nn.BatchNorm1d(3)

def test_before(network, other):
    assert network.training

def test_culprit(network, other):
    network(torch.rand(4, 3))  # not what the other gives, whose mean may be 0 as it was
    other(torch.rand(4, 3))

def test_after(network, other):
    assert network.training
'''.replace("SCOPE", scope))
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path),
             f"--junitxml={tmp_path / 'outcomes.xml'}", str(tmp_path / "test_it.py")]
    printed = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True).stdout
    # Not what is printed: that differs with the terminal, and where the variable CI says that a server runs the tests.
    cases = ElementTree.parse(tmp_path / "outcomes.xml").iter("testcase")
    said = {case.get("name"): [part.text for part in case] for case in cases}
    assert said.keys() == {"test_before", "test_culprit", "test_after"}, printed
    assert not said["test_before"] and not said["test_after"] and len(said["test_culprit"]) == 1, printed
    for name in ("network", "other"):
        assert (f"changed 3 parts of the fixture {name}, which other tests share: {name}.running_mean, "
                in said["test_culprit"][0]), printed
