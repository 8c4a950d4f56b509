"""shared_fixtures: a pytest plugin that says which test changed a model that other tests share.

A fixture of a module is made once. Where one test trains its model, batch normalization's running statistics change,
and a test that comes later sees another model: the suite then passes in one order of its tests and fails in another.
So after each test, the parameters, buffers, gradients and modes of models, and the tensors, of a shared fixture must be
as they were when it was made. Not looked at: NumPy's arrays, files, and a module's tensors that are no parameter or
buffer.
"""

from __future__ import annotations

import zlib
from typing import Any, Iterable, Iterator

import pytest
import torch

SHARED = pytest.StashKey[dict[Any, tuple[Any, dict[str, Any]]]]()  # fixture → (its value, the value's state)


def state(value: Any, name: str = "") -> dict[str, Any]:
    """{name: content, or mode} of the tensors and modules in a value: in a list, a dict or an object of our classes."""
    return dict(_states(value, name, frozenset()))


def _states(value: Any, name: str, above: frozenset[int]) -> Iterator[tuple[str, Any]]:
    if id(value) in above:
        return
    if isinstance(value, torch.Tensor):
        yield name, (value.requires_grad, *_content(value))
        yield f"{name} (gradient)", value.is_leaf and value.grad is not None and _content(value.grad)
    elif isinstance(value, torch.nn.Module):
        for path, module in value.named_modules(prefix=name):
            yield f"{path} (mode)", "training" if module.training else "evaluation"
            for part, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                yield from _states(tensor, f"{path}.{part}", above)
    else:
        parts: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, (dict, list, tuple)):
            parts = value.items() if isinstance(value, dict) else enumerate(value)
        elif type(value).__module__.split(".")[0] in ("commands", "scratch", "tests"):
            parts = getattr(value, "__dict__", {}).items()
        for key, part in parts:
            yield from _states(part, f"{name}.{key}".lstrip("."), above | {id(value)})


def _content(tensor: torch.Tensor) -> tuple[torch.dtype, torch.Size, int]:
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return tensor.dtype, tensor.shape, zlib.crc32(plain)


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> Iterator[None]:
    outcome = yield
    if fixturedef.scope != "function" and outcome.excinfo is None:
        value = outcome.get_result()
        shared = request.config.stash.setdefault(SHARED, {})
        shared[fixturedef] = value, state(value, fixturedef.argname)


def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> None:
    request.config.stash.setdefault(SHARED, {}).pop(fixturedef, None)


@pytest.fixture(autouse=True)
def shared_fixtures_stay_as_they_are(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    shared, found = request.config.stash.get(SHARED, {}), []
    for fixturedef, (value, before) in shared.items():
        after = state(value, fixturedef.argname)
        shared[fixturedef] = value, after  # so that the tests which follow do not fail for it
        if changed := [name for name, its in before.items() if after.get(name) != its]:
            found.append(f"this test changed {len(changed)} parts of the fixture {fixturedef.argname}, which other "
                         f"tests share: {', '.join(changed[:5])}. Give it scope=\"function\", or change a copy")
    assert not found, "\n".join(found)
