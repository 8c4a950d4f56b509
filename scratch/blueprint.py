"""blueprint: how large is the detector that a file describes, before any memory is allocated?

    config.model ── on the meta device ─▶ names, shapes, dtypes of its tensors; no number of them exists
                                               │
    file ─▶ state, its content checked ────────┴─▶ the same? ─▶ the model that is built fits the file

A file may say that its detector has 10⁹ queries or 10⁶ layers. Layers are objects of Python even without numbers, so
they are first counted in the file; and a detector of more numbers than any was trained with is refused by its shapes.
Proven in tests/test_blueprint.py. Read: blueprint → read_state
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Iterable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from scratch.config import ModelConfig
from scratch.model.build import make_detr
from scratch.training.checkpoint import load_checkpoint
from scratch.training.content import naming, check_content, check_weights

_LAYER = re.compile(r"transformer\.(encoder|decoder)\.layers\.(\d{1,9})\.")


class _Undrawn(TorchFunctionMode):
    """Leave out what only gives weights their first values; torch would load its compiler to do it without memory."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in ("uniform_", "normal_"):
            return args[0]
        return torch.empty(args[0], args[0]) if name == "eye" else function(*args, **(kwargs or {}))


@lru_cache(maxsize=4)
def _described(config: ModelConfig) -> dict[str, Tensor]:
    with torch.device("meta"), _Undrawn():
        return make_detr(config).state_dict()


def refuse_unbuildable(config: ModelConfig) -> None:
    """Raise what building this network would: ahead of all that a run begins with, and without a weight."""
    _described(config)


def blueprint(config: ModelConfig, names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of a detector of this configuration, without their numbers.

    names   those of the tensors that a file has for it: it cannot have more layers than these tell
    Raises ValueError for a configuration that cannot be built. (One that is larger than anything that was trained is
    refused by `ModelConfig` itself.)
    """
    found: dict[str, set[str]] = {"encoder": set(), "decoder": set()}
    for name in names:
        if layer := _LAYER.match(name):
            found[layer[1]].add(layer[2])
    for field, part in (("enc_layers", "encoder"), ("dec_layers", "decoder")):
        if getattr(config, field) != len(found[part]):
            raise ValueError(f"its configuration says {field}={getattr(config, field):,}, its weights are of "
                             f"{len(found[part]):,} such layers")
    try:
        return _described(config)
    # What torch raises for sizes beyond 64 bits, below 1 …
    except (RuntimeError, ArithmeticError, TypeError, LookupError, MemoryError) as error:
        raise ValueError("its configuration cannot be built: "
                         f"{str(error).partition(chr(10))[0] or type(error).__name__}") from error


def read_state(path: Path, training: bool = False, map_location: Any = "cpu") -> dict[str, Any]:
    """What a checkpoint file holds, all of it checked against the configuration that it states.

    training   it is to go on: what only training needs must be there, too
    Raises FileNotFoundError, and ValueError for a file that is no checkpoint, or contradicts itself.
    """
    state = load_checkpoint(path, map_location)
    check_state(state, path, training)
    return state


def check_state(state: Any, path: Path, training: bool = False) -> None:
    """The same of a state that was read already. Raises ValueError."""
    with naming(path):
        config = check_content(state, training)
        check_weights(state, blueprint(config.model, state["model"]))
