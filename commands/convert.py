"""convert: how are weights converted to other programs, and from them?

    run, checkpoint,  ─▶ FILE.pth                {"model": …} that the official code loads strictly
    official file,    ─▶ FILE.safetensors        the tensors; beside them classes and configuration
    Hub's file, name  ─▶ FILE.pt with --to ours  a checkpoint: predict and eval take it
                      ─▶ FOLDER with --to hf     what transformers loads: config.json, model.safetensors,
                                                 preprocessor_config.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import torch
import tyro
from safetensors.torch import save
from torch import Tensor

from commands.finetune import preset_of
from scratch.blueprint import blueprint
from scratch.config import RESNETS, Config
from scratch.data.classes import Classes
from scratch.detector import classes_of, unnamed
from scratch.model.build import build_detr
from scratch.printable import counted, printable
from scratch.training.checkpoint import LAST, PREVIOUS, save_checkpoint
from scratch.weights.convert import to_official
from scratch.weights.huggingface import (CONFIG, FILES, MODEL_TYPE, PROCESSOR, refuse_what_transformers_lacks,
                                         their_config, their_processor, to_hugging_face)
from scratch.weights.reading import Weights, adapt, as_published, find_weights, read_weights
from scratch.weights.whole import taken_as, whole_config
from scratch.whole_file import refuse_other_than_file, refuse_replacing, whole_file, write_text

ADVICE = "free some space, or name another --out"


@dataclass(frozen=True)
class ConvertArguments:
    """Write weights for the official code, as safetensors, for transformers, or as a checkpoint of this project."""

    weights: tyro.conf.Positional[str]
    """a run's folder, a file (a checkpoint, official, safetensors, the Hugging Face Hub's), a known name: detr_r50,
    detr_r101_dc5 … (fetched once, into the folder that the environment variable DETR_CACHE names), or hf:OWNER/NAME"""
    out: Path
    """the file to write: .pth, .pt or .safetensors; with --to hf a folder"""
    to: Literal["official", "ours", "hf"] = "official"
    """whose names the weights get; as .pth or .pt, ours is a checkpoint that predict and eval take; hf: a folder that
    transformers' DetrForObjectDetection.from_pretrained loads"""
    preset: Optional[str] = None
    """what the weights are weights of, where neither file nor name tells (detr_r50_dc5, say: DC5 leaves no trace)"""
    classes: Optional[str] = None
    """what their classes are called, in the order of their labels, where the file does not tell: "person,car" """


def convert(arguments: ConvertArguments) -> None:
    """Read, check that a model takes all of it, write."""
    out = arguments.out
    if arguments.to == "hf":  # ahead of the work
        refuse_other_folder(out)
    elif out.suffix not in (".pth", ".pt", ".safetensors"):
        raise ValueError(f"got --out {out}, wanted a file that ends in .pth, .pt or .safetensors")
    else:
        refuse_other_than_file(out)
    source = find_weights(arguments.weights)
    for file in (out / FILES[0], out / CONFIG) if arguments.to == "hf" else (out,):
        refuse_replacing(file, [source, *(source.parent / name for name in (LAST, PREVIOUS, "best.pt", CONFIG))])
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
    if arguments.to == "hf":
        refuse_what_transformers_lacks(config)
        tensors = to_hugging_face(tensors, timm=config.model.dilation)
    (out if arguments.to == "hf" else out.parent).mkdir(parents=True, exist_ok=True)
    if arguments.to == "hf":
        write_safetensors(out / FILES[0], tensors, {"format": "pt"})
        for name, content in ((PROCESSOR, their_processor(config)), (CONFIG, their_config(config, classes.names))):
            write_text(out / name, json.dumps(content, indent=2) + "\n", advice=ADVICE)
    elif out.suffix == ".safetensors":
        write_safetensors(out, tensors, {"format": "pt", "classes": json.dumps(classes.to_dict()),
                                         "config": json.dumps(config.to_dict())})
    elif arguments.to == "official":
        write_torch(out, {"model": tensors})
    else:
        save_checkpoint(out, checkpoint_of(weights, config, classes))
    numbers = sum(tensor.numel() for tensor in tensors.values())
    print(f"{printable(out)}: {len(tensors)} tensors, {numbers:,} numbers, of a {config.model.backbone} detector "
          f"({config.preset}) with {config.model.num_queries} queries and "
          f"{counted(config.model.num_classes, 'class', 'classes')}, "
          f"from {arguments.weights} ({weights.kind})")
    for note in weights.notes:
        print(note)
    if weights.config is None and preset is None:
        print(taken_as(config, weights))
    published = preset_of(arguments.weights) is not None and as_published(Path(arguments.weights))
    if weights.classes is None and arguments.classes is None and not published:
        print(unnamed(classes, "--classes a,b,c"))
    if arguments.to == "hf" and config.model.dilation:
        print("note: transformers dilates a backbone of timm's alone: loading this folder needs the package timm")


def refuse_other_folder(out: Path) -> None:
    """Raise ValueError for a folder that holds something else than a DETR as transformers writes it, or for a file."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"got --out {out}, which is a file; wanted a folder for --to hf")
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        document = json.loads((out / CONFIG).read_bytes())
        if document["model_type"] == MODEL_TYPE:
            return
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ValueError(f"got --out {out}, a folder that holds something else; wanted a new one, or one with a DETR of "
                     "the same layout to replace")


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
