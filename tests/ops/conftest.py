"""conftest: a note holds in both modes, by the arithmetic that it shows and through its door to ops/fast.

A test file asks for one of these fixtures with `pytestmark = pytest.mark.usefixtures(...)`:

    mode        every test runs twice: "fast", and "plain" (the note's own arithmetic, derived by autograd)
    fast_mode   every test runs through the doors, also where DETR_PLAIN is set: claims about the fast code alone
"""

from __future__ import annotations

from typing import Iterator

import pytest

from scratch.ops.fast.switch import plain_mode


@pytest.fixture(params=["fast", "plain"])
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    with plain_mode(request.param == "plain"):
        yield request.param


@pytest.fixture
def fast_mode() -> Iterator[None]:
    with plain_mode(False):
        yield
