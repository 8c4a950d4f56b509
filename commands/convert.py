"""convert: how are weights converted to other programs, and from them?

    run, checkpoint,  ─▶ FILE.pth                {"model": …} that the official code loads strictly
    official file,    ─▶ FILE.safetensors        the tensors; beside them classes and configuration
    name              ─▶ FILE.pt with --to ours  a checkpoint: predict and eval take it
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Optional

import torch
import tyro
from safetensors.torch import save
from torch import Tensor

from commands.finetune import config_of, preset_of, taken_as
from scratch.blueprint import blueprint
from scratch.config import PRESETS, RESNETS, Config
from scratch.weights.convert import to_official
from scratch.data.classes import Classes, divided
from scratch.data.coco_names import COCO_NAMES
from scratch.model.build import build_detr
from scratch.printable import printable
from scratch.training.checkpoint import LAST, PREVIOUS, save_checkpoint
from scratch.weights.reading import Weights, adapt, as_published, as_told, find_weights, read_weights
from scratch.whole_file import refuse_other_than_file, refuse_replacing, whole_file

ADVICE = "free some space, or name another --out"
COCO = Classes(tuple(range(len(COCO_NAMES))), COCO_NAMES)  # as the published detectors count them


@dataclass(frozen=True)
class ConvertArguments:
    """Write weights for the official code, as safetensors, or (--to ours) as a checkpoint of this project."""

    weights: tyro.conf.Positional[str]
    """a run's folder, a file (a checkpoint, official, safetensors), or a known name: detr_r50, detr_r101_dc5 …
    (fetched once, into the folder that the environment variable DETR_CACHE names)"""
    out: Path
    """the file to write: .pth, .pt or .safetensors"""
    to: Literal["official", "ours"] = "official"
    """whose names the weights get; as .pth or .pt, ours is a checkpoint that predict and eval take"""
    preset: Optional[str] = None
    """what the weights are weights of, where neither file nor name tells (detr_r50_dc5, say: DC5 leaves no trace)"""
    classes: Optional[str] = None
    """what their classes are called, in the order of their labels, where the file does not tell: "person,car" """


def convert(arguments: ConvertArguments) -> None:
    """Read, check that a model takes all of it, write."""
    out = arguments.out
    if out.suffix not in (".pth", ".pt", ".safetensors"):
        raise ValueError(f"got --out {out}, wanted a file that ends in .pth, .pt or .safetensors")
    refuse_other_than_file(out)  # ahead of the work
    source = find_weights(arguments.weights)
    refuse_replacing(out, [source, *(source.parent / name for name in (LAST, PREVIOUS, "best.pt"))])
    weights = read_weights(source)
    preset = arguments.preset or preset_of(arguments.weights)
    config = whole_config(weights, preset)
    blueprint(config.model, weights.tensors)  # refuses what is too large to be built
    adapted = adapt(build_detr(config.model), weights)
    if adapted.replaced or adapted.shortened:
        raise ValueError(f"the heads of {arguments.weights} contradict each other in the number of classes or queries: "
                         + ", ".join(adapted.replaced + adapted.shortened))
    classes = classes_of(weights, config, arguments.classes)
    tensors = weights.tensors
    if arguments.to == "official":
        refuse_what_the_official_code_lacks(config)
        tensors = to_official(tensors)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".safetensors":
        write_safetensors(out, tensors, {"format": "pt", "classes": json.dumps(classes.to_dict()),
                                         "config": json.dumps(config.to_dict())})
    elif arguments.to == "official":
        write_torch(out, {"model": tensors})
    else:
        save_checkpoint(out, checkpoint_of(weights, config, classes))
    numbers = sum(tensor.numel() for tensor in tensors.values())
    print(f"{printable(out)}: {len(tensors)} tensors, {numbers:,} numbers, of a {config.model.backbone} detector "
          f"({config.preset}) with {config.model.num_queries} queries and {config.model.num_classes} classes, "
          f"from {arguments.weights} ({weights.kind})")
    for note in weights.notes:
        print(note)
    if weights.config is None and preset is None:
        print(taken_as(config))
    published = preset_of(arguments.weights) is not None and as_published(Path(arguments.weights))
    if weights.classes is None and arguments.classes is None and not published:
        guess = "taken to be COCO's, which are as many" if classes is COCO else "they are numbered"
        print(f"note: the file does not name its classes: {guess} ({', '.join(classes.names[:4])} …); if they are your "
              "own, say what they are: --classes a,b,c")


def whole_config(weights: Weights, preset: Optional[str]) -> Config:
    """The configuration of a detector: its file's own, or that of a preset with the file's queries and classes.

    Raises ValueError for weights that are no detector's, and where nothing tells what they are.
    """
    if weights.kind == "torchvision ResNet":
        raise ValueError("these weights are a backbone's alone: there is no detector to convert yet; train one with "
                         "--weights first")
    if weights.config is not None:
        config = Config.from_dict(weights.config)
        if preset not in (None, config.preset):
            raise ValueError(f"the file says that its weights are of {config.preset}, not {preset}: leave --preset out")
        return config
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; wanted one of {', '.join(PRESETS)}")
    config = as_told(PRESETS[preset], weights) if preset else config_of(weights)
    if config is None:
        raise ValueError("the file does not say what its weights are weights of: add --preset NAME, one of "
                         + ", ".join(PRESETS))
    rows = len(weights.tensors["class_embed.weight"]) - (config.model.classification == "softmax")
    return replace(config, model=replace(config.model, num_classes=rows))


def classes_of(weights: Weights, config: Config, named: Optional[str] = None) -> Classes:
    """The classes that a file names, or a person; COCO's for 91; else numbers. Raises ValueError for another number."""
    count = config.model.num_classes
    if named is not None:
        names = tuple(name.strip() for name in divided(named))
        if len(names) != count or len(set(names)) != count or not all(names):
            raise ValueError(f"got {len(names)} --classes, wanted {count} different names, one for each row of the "
                             "class head, with commas between them")
        ids = weights.classes["ids"] if weights.classes else range(count)
        return Classes(tuple(ids), names)
    if weights.classes is not None:
        return Classes.from_dict(weights.classes)
    if count == len(COCO):
        return COCO
    return Classes(tuple(range(count)), tuple(f"class {k}" for k in range(count)))


def checkpoint_of(weights: Weights, config: Config, classes: Classes) -> dict[str, Any]:
    """What a run's best.pt holds, but for all that only a run that goes on needs."""
    return {"config": config.to_dict(), "classes": classes.to_dict(), "model": weights.tensors, "ema": None,
            "last_metrics": {} if weights.threshold is None else {"threshold": weights.threshold}}


def refuse_what_the_official_code_lacks(config: Config) -> None:
    """Raise ValueError for a network that the official code cannot build, under any names of its keys."""
    model, plain = config.model, dict(queries="learned", classification="softmax", groups=1)
    strange = [f"{name}={getattr(model, name)}" for name, value in plain.items() if getattr(model, name) != value]
    strange += [f"norm={model.norm}"] if model.norm == "group" else []
    if model.backbone == "resnet_tiny":
        strange.append(f"backbone={model.backbone}")
    elif model.dilation and RESNETS[model.backbone][0] == "basic":  # torchvision's basic block refuses it
        strange.append(f"dilation=True in {model.backbone}")
    if strange:
        raise ValueError(f"the official code has no detector with {', '.join(strange)}: take --to ours")


def write_torch(path: Path, content: dict[str, Any]) -> None:
    with whole_file(path, ADVICE) as partial:
        try:
            torch.save(content, partial)
        except RuntimeError as error:  # as which it tells of a full disk, too
            raise OSError(str(error).splitlines()[0]) from error


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    # As bytes: the library's own files can be read by their owner alone.
    content = save({key: value.contiguous() for key, value in tensors.items()}, metadata)
    with whole_file(path, ADVICE) as partial:
        partial.write_bytes(content)
