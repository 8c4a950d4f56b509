"""elsewhere: how do other programs wrap weights, and how is that taken off without running their code?

    {"epoch": 7, "args": Namespace(…), "model": {"module.backbone.0.body.conv1.weight": tensor, …}}
     └── left: never looked at ───┘    └─┬─┘    └──┬──┘
                                     a wrapper   a prefix: the same beginning of every name

    DistributedDataParallel    "module."                torch.compile    "_orig_mod.", anywhere in a name
    Lightning                  {"state_dict": {"model.…"}, "hyper_parameters": …}
    running averages (EMA)     {"model_ema": …}, {"ema": {"module": …}}: what was judged, so it goes first

A pickle names classes and functions, and reading it calls them. So torch reads it with weights_only=True: nothing but
tensors and plain values; an object of any other class is refused. What training scripts often save beside their weights
(arguments, paths, NumPy's numbers, Lightning's settings) would be refused, too, and the weights with it. For these few
names stands a plain value, or something of ours that does nothing (argparse.Namespace alone stays itself: it holds
values): no code of another package is imported.

Proven in tests/weights/test_elsewhere.py and tests/test_weights.py. Read: read_file → state_dicts → behind_prefix
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import torch
from safetensors import safe_open
from torch import Tensor

from scratch.training.checkpoint import damage_of, foreign_kind, is_zip, why_unreadable

# Under which names other programs keep weights: the running averages of a training, which are what was judged, first.
AVERAGES = ("model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "ema")
WRAPPERS = (*AVERAGES, "model", "state_dict", "model_state_dict", "module", "shadow", "net", "network", "weights",
            "params", "detector")
COMPILED = "_orig_mod."  # what torch.compile puts into names


class Left:
    """In the place of an object that was saved beside the weights: it is not needed, and holds nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _path(*parts: Any) -> str:
    return "/".join(map(str, parts))


def _plain_dict(*_: Any) -> dict:
    """A dict, whatever its own kind would do with a key that it does not have."""
    return {}


# What training scripts save beside weights, by the name in the pickle → what stands for it. (The official script saves
# its arguments: values in a Namespace, and so as harmless as a dict.)
INERT: tuple[tuple[Callable, str], ...] = (
    (argparse.Namespace, "argparse.Namespace"),
    *((_path, f"pathlib.{local}{kind}Path") for local in ("", "_local.") for kind in
      ("Posix", "Windows", "PurePosix", "PureWindows", "")),
    *((dict, name) for name in (
        "lightning_fabric.utilities.data.AttributeDict", "lightning.fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict", "builtins.dict")),
    (_plain_dict, "collections.defaultdict"), (list, "builtins.list"), (int, "builtins.int"), (float, "builtins.float"),
    *((Left, name) for name in (
        "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
        "torch.torch_version.TorchVersion")))


def read_file(path: Path) -> tuple[Any, dict[str, str]]:
    """The content of a file of weights, and the texts that a safetensors file keeps beside its tensors.

    Raises FileNotFoundError, and ValueError that says what the file is, where it is none.
    """
    kind = foreign_kind(path)
    with open(path, "rb") as file:
        head = file.read(9)
    try:
        # A header's length, its JSON.
        if kind is None and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
        if is_zip(path) and kind is None and (damage := damage_of(path)):
            raise RuntimeError(damage)
        with torch.serialization.safe_globals(list(INERT)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch has to say of strange files is for those who write code
            return torch.load(path, map_location="cpu", weights_only=True), {}
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # damaged files make readers raise anything
        raise ValueError(f"{path} cannot be read as weights ({kind or why_unreadable(error)})") from error


def state_dicts(content: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """The dicts of tensors in a file, with the names that lead to each: running averages first."""
    if isinstance(content, dict) and content:
        if all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
            yield names, content
        elif len(names) < 3:
            for name in WRAPPERS:
                yield from state_dicts(content.get(name), (*names, name))


def behind_prefix(state: dict[str, Tensor], first: str,
                  second: str) -> Optional[tuple[str, dict[str, Tensor], list[str]]]:
    """What stands before all names, the tensors without it, and the names that do not begin so.

    first, second   two names that tell what is looked for; None if there is no prefix behind which both are
    """
    before = [key[:-len(first)] for key in state if key.endswith(first)]
    prefixes = sorted((each for each in before if each + second in state and each[-1:] in ("", ".")), key=len)
    if not prefixes:
        return None
    prefix = prefixes[0]
    return (prefix, {key[len(prefix):]: value for key, value in state.items() if key.startswith(prefix)},
            [key for key in state if not key.startswith(prefix)])
