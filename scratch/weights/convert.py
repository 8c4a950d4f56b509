"""convert: how are the official weights converted to this model, and ours to the official one?

The official code keeps its ResNet inside two wrappers; every other name is the same here, letter for letter:

    official   backbone.0.body.layer1.0.conv1.weight        class_embed.weight
    ours       backbone.layer1.0.conv1.weight               class_embed.weight

`num_batches_tracked` is all that only one side has: the official batch norm is frozen and counts nothing.
Proven in tests/test_convert.py, and against the official outputs in tests/test_golden.py.
"""

from __future__ import annotations

from typing import Iterable, Mapping

from torch import Tensor, nn

OFFICIAL_PREFIX, OUR_PREFIX = "backbone.0.body.", "backbone."
COUNTER = ".num_batches_tracked"


def _rename(state_dict: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new + key[len(old):] if key.startswith(old) else key: value
            for key, value in state_dict.items() if not key.endswith(COUNTER)}


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official keys → ours; the tensors are the same objects. An official checkpoint file holds this dict as "model".

    Raises ValueError if the backbone's keys are not the official ones.
    """
    if not any(key.startswith(OFFICIAL_PREFIX) for key in state_dict):
        raise ValueError(f"got a state dict with {_some(state_dict)}; wanted the official DETR's, whose backbone is "
                         f'called "{OFFICIAL_PREFIX}…": pass checkpoint["model"]; weights of this project load as is')
    return _rename(state_dict, OFFICIAL_PREFIX, OUR_PREFIX)


def to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our keys → official; the inverse of `from_official`. A trained batch norm's counter is left out.

    Raises ValueError if the backbone's keys are not ours.
    """
    backbone = [key for key in state_dict if key.startswith(OUR_PREFIX)]
    if not backbone or any(key.startswith(OFFICIAL_PREFIX) for key in backbone):
        raise ValueError(f"got a state dict with {_some(state_dict)}; wanted this project's, whose backbone is called "
                         f'"{OUR_PREFIX}conv1…": pass model.state_dict()')
    return _rename(state_dict, OUR_PREFIX, OFFICIAL_PREFIX)


def load_official(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Copy official weights into `model`: all of them, or none.

    Raises ValueError that counts and names the keys which are missing, unexpected, or of another shape.
    """
    renamed, wanted = from_official(state_dict), model.state_dict()
    missing = [key for key in wanted if key not in renamed and not key.endswith(COUNTER)]
    unexpected = [key for key in renamed if key not in wanted]
    misshapen = [f"{key} is {tuple(renamed[key].shape)}, wanted {tuple(wanted[key].shape)}"
                 for key in wanted if key in renamed and renamed[key].shape != wanted[key].shape]
    problems = [f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in
                (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)) if keys]
    if problems:
        raise ValueError("these weights are for another model; build one with the backbone, widths, queries and "
                         "classes that they were trained with\n  " + "\n  ".join(problems))
    model.load_state_dict(renamed, strict=False)  # the counters alone keep their value; all else was checked above


def _some(keys: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(keys)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more or "no keys"
