"""weights: which trained weights are there, what does a file hold, and what of it fits a model?

    name ─▶ fetched once, into a cache ─┐
    file ───────────────────────────────┴─▶ read_weights ─▶ adapt ─▶ what came of each tensor

    kind                 recognised by                            becomes
    official DETR        backbone.0.body.…, class_embed.…         our names (scratch/weights/convert)
    Hugging Face DETR    model.input_projection.…, class_labels…  our names (scratch/weights/huggingface)
    torchvision ResNet   conv1.… layer4.… fc.…                    backbone.…; its classifier fc is left
    checkpoint           this project's tag                       its weights, averaged if they were
    state dict           backbone.conv1.…, class_embed.…          as it is

Other programs wrap weights and put something before each name ("module.", "model." …): both are taken off, and what was
taken is said (scratch/weights/elsewhere).

A new task keeps all weights that fit. The class head is initialised anew if the number or the names
of the classes differ: its rows stand for the old ones. A file that names no classes, but has as many,
is assumed to have the same ones, and a message says so. Fewer queries take the first N: no query
depends on another. Any other difference means another network: an error that names the tensors and
their number, never a silent skip.

Files are read without running foreign code, and what they hold is checked before it is used: a checkpoint as a whole
(scratch/blueprint), other weights for finite numbers, no more of them than a detector can have.
Proven in tests/test_weights.py, and on the official layout in tests/test_finetune.py.
Read: find_weights → read_weights → adapt
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import reprlib
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Literal, Mapping, Optional, Sequence

import torch
from torch import Tensor, nn

from scratch import kept_arrays
from scratch.blueprint import blueprint, check_state
from scratch.config import MOST_PARAMETERS, RESNETS, Config
from scratch.weights.convert import COUNTER, OFFICIAL_PREFIX, OUR_PREFIX, from_official
from scratch.weights.download import digest, fetch
from scratch.weights.elsewhere import COMPILED, behind_prefix, read_file, state_dicts
from scratch.weights.hub import BEFORE, fetch_from_hub, is_hub_name
from scratch.weights.huggingface import (CONFIG, FILES, MODEL_TYPE, PROCESSOR, classes_of_theirs, config_of_theirs,
                                         from_hugging_face, their_name)
from scratch.printable import printable
from scratch.training.checkpoint import FORMAT, best_checkpoint, state_of
from scratch.training.content import check_classes, check_dense, check_finite, check_tensors

OFFICIAL, IMAGENET = "https://dl.fbaipublicfiles.com/detr/", "https://download.pytorch.org/models/"
# What `--weights NAME` fetches: the detectors trained on COCO, and ResNets trained on ImageNet for a new detector. As
# everywhere on these two hosts, the end of a file's name is how its SHA-256 begins.
NAMED = {
    "detr_r50": OFFICIAL + "detr-r50-e632da11.pth",
    "detr_r50_dc5": OFFICIAL + "detr-r50-dc5-f0fb7ef5.pth",
    "detr_r101": OFFICIAL + "detr-r101-2c7b67e5.pth",
    "detr_r101_dc5": OFFICIAL + "detr-r101-dc5-a2e86def.pth",
    "resnet18": IMAGENET + "resnet18-f37072fd.pth",
    "resnet34": IMAGENET + "resnet34-b627a593.pth",
    "resnet50": IMAGENET + "resnet50-0676ba61.pth",
    "resnet101": IMAGENET + "resnet101-63fe2227.pth",
    "resnet152": IMAGENET + "resnet152-394f9c45.pth",
}
Kind = Literal["official DETR", "Hugging Face DETR", "torchvision ResNet", "checkpoint", "state dict"]

CLASS_HEADS = ("class_embed.", "proposal_head.class_embed.")  # a row for each class
LABELS = "label_embed.weight"  # a row for each class, then one for "unknown", which means the same everywhere
QUERIES = ("query_embed.weight", "refpoint_embed.weight", "group_embed.weight")  # a row for each query (or group)
CLASSIFIER = OUR_PREFIX + "fc."  # of an ImageNet ResNet
ROUTE = ".one_to_many."  # what only training has (model/anchors/one_to_many)


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds."""

    tensors: dict[str, Tensor]
    """named as ours, on the CPU"""
    kind: Kind
    config: Optional[dict[str, Any]] = None
    """the configuration that they were trained with, if the file tells"""
    classes: Optional[dict[str, Any]] = None
    """the ids and names of their classes, if the file tells"""
    threshold: Optional[float] = None
    """the score from which on their detections are best shown, if the file tells"""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """dilation and nheads, as far as the arguments of the official training script are in the file"""
    notes: tuple[str, ...] = ()
    """what a person should know of how they were read: which of several, what was taken off their names"""


# -- where they are ------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where fetched weights are kept: $DETR_CACHE, else ~/.cache/detr_scratch."""
    try:
        return kept_arrays.cache_folder()
    except RuntimeError as error:  # no HOME, and a user of whom the system knows nothing: a container's, often
        raise ValueError("there is no home folder here, in which fetched weights are kept: name another folder in the "
                         "environment variable DETR_CACHE, as in DETR_CACHE=/tmp/detr_scratch") from error


def is_name(name: str) -> bool:
    """Does it mean published weights? A folder that is called so, a person's own run, goes first."""
    return name in NAMED and not Path(name).is_dir()


def find_weights(name: str) -> Path:
    """The file behind a name of NAMED or hf:OWNER/NAME (fetched if need be), a path, a run's folder (best.pt, else its
    last), or a folder as the Hub has them (config.json beside model.safetensors).

    Raises what `fetch` and `fetch_from_hub` raise, and FileNotFoundError for what is neither a name nor there.
    """
    if is_hub_name(name):
        return fetch_from_hub(str(name))
    if is_name(name):
        file = NAMED[name].rpartition("/")[2]
        folder = cache_folder()
        try:
            return fetch(NAMED[name], folder / file, sha256=Path(file).stem.rpartition("-")[2])
        except OSError as error:
            raise OSError(f"{error}\nFetched weights are kept in {folder}; the environment variable DETR_CACHE "
                          "names another folder") from error
    path = Path(name)
    if path.is_dir():
        return hub_file(path) or best_checkpoint(path)
    if not path.is_file():
        near = difflib.get_close_matches(name, NAMED, n=2)
        raise FileNotFoundError(f"got weights {name!r}, which is neither a file nor a known name"
                                + (f" (did you mean {' or '.join(near)}?)" if near else "")
                                + f"; wanted a file, a folder, {BEFORE}OWNER/NAME, or one of "
                                  f"{', '.join(NAMED)}")
    return path


def hub_file(folder: Path) -> Optional[Path]:
    """The file of weights in a folder as the Hub has them; None for another folder, such as a run's."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def as_published(path: Path) -> bool:
    """Does a file under a published name hash as that name says? True of everything else."""
    name = next((url.rpartition("/")[2] for url in NAMED.values() if url.endswith(f"/{path.name}")), None)
    return name is None or not path.is_file() or digest(path).startswith(Path(name).stem.rpartition("-")[2])


# -- what they are -------------------------------------------------------------------------------------------------


# How a detector or a backbone is recognised, after any prefix: two names that only it has.
KNOWN_BY: tuple[tuple[Kind, str, str], ...] = (
    ("official DETR", f"{OFFICIAL_PREFIX}conv1.weight", "class_embed.weight"),
    ("Hugging Face DETR", "model.input_projection.weight", "class_labels_classifier.weight"),
    ("state dict", f"{OUR_PREFIX}conv1.weight", "class_embed.weight"),
    ("torchvision ResNet", "conv1.weight", "layer4.0.conv1.weight"))


def read_weights(path: Path) -> Weights:
    """The weights in a file, recognised by its content.

    Raises FileNotFoundError, and ValueError, saying what the file holds, where that is no detector and no ResNet, or
    contradicts itself.
    """
    path = Path(path)
    content, metadata = read_file(path)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        state = state_of(content, path)
        check_state(state, path)
        averaged = state["ema"]["shadow"] if state["ema"] else {}
        return Weights({**state["model"], **averaged}, "checkpoint", state["config"], state["classes"],
                       state["last_metrics"].get("threshold"))
    found = [(names, *known) for names, state in state_dicts(content) if (known := _recognised(state))]
    theirs = path.name in FILES or bool(found) and found[0][1] == "Hugging Face DETR"
    document = _beside(path, CONFIG) if theirs else {}  # beside other weights it is another program's
    another = document.get("model_type", MODEL_TYPE)
    if not found and another != MODEL_TYPE:
        raise ValueError(f"{path} holds a {str(another)[:60]} model, as {CONFIG} beside it says, which is another "
                         f"network; wanted a DETR ({MODEL_TYPE})")
    if not found:
        raise ValueError(f"{path} holds {_described(content)}; wanted an official DETR ({OFFICIAL_PREFIX}…, "
                         "class_embed.…), one of the Hugging Face Hub (model.input_projection.…), a torchvision ResNet "
                         "(conv1.…, layer1.… to layer4.…), or what this project has saved")
    names, kind, prefix, tensors, others = found[0]
    notes = [f"taken from {'.'.join(names)!r} of the file" + (
        ", the running average of its training, not from " + ", ".join(repr(".".join(other[0])) for other in found[1:])
        if len(found) > 1 else "")] if names and names != ("model",) or len(found) > 1 else []
    notes += [f"{prefix!r} was taken off the beginning of {len(tensors):,} names"] if prefix else []
    notes += [f"{len(others):,} others were left: {grouped(others)}"] if others else []
    try:
        check_dense("its weights", tensors)
        if (numbers := sum(tensor.numel() for tensor in tensors.values())) > 2 * MOST_PARAMETERS:  # some are buffers
            raise ValueError(f"it claims {numbers:,} numbers; at most {2 * MOST_PARAMETERS:,} are read")
        tensors = from_hugging_face(tensors) if kind == "Hugging Face DETR" else tensors
        for name in (f"{OUR_PREFIX}conv1.weight", "class_embed.weight"):
            if name in tensors and tensors[name].dim() != (4 if name.startswith(OUR_PREFIX) else 2):
                raise ValueError(f"{name} is {tuple(tensors[name].shape)}, which is none")
        check_finite("its weights", {printable(name)[:100]: tensor for name, tensor in tensors.items()})
        told = {}
        if kind == "Hugging Face DETR":
            told = _told_by_theirs(document, _beside(path, PROCESSOR), tensors, _by_timm(content)) if document else {}
            notes += told.pop("notes", ()) if told else [f"note: there is no {CONFIG} beside {path.name}, which would "
                                                         "name the classes and the number of attention heads"]
        elif kind != "torchvision ResNet":
            told = _told(metadata, tensors)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used as weights: {error}") from error
    return Weights(tensors, kind, **told, arguments=_arguments(content), notes=tuple(notes))


def _recognised(state: dict[str, Tensor]) -> Optional[tuple[Kind, str, dict[str, Tensor], list[str]]]:
    """What a state dict is, what stood before its names, its tensors in our names, and the names that were left.

    None for one that is neither a detector nor a backbone. What torch.compile puts into names is taken out everywhere.
    """
    plain = {key.replace(COMPILED, ""): value for key, value in state.items()}
    compiled = COMPILED if any(COMPILED in key for key in state) else ""
    if panoptic(plain):
        return None
    for kind, first, second in KNOWN_BY:
        if not (found := behind_prefix(plain, first, second)):
            continue
        prefix, tensors, others = found
        if kind == "torchvision ResNet":
            # The rest of it would be another network, whose backbone was not asked for.
            if any("encoder_k." not in key and not key.endswith(("queue", "queue_ptr")) for key in others):
                return None
            tensors = {OUR_PREFIX + key: value for key, value in tensors.items()}
        elif kind == "official DETR":
            tensors = from_official(tensors)
        return kind, prefix + compiled, tensors, others
    return None


def _told(metadata: dict[str, str], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Configuration and classes, from the texts beside the tensors. Raises ValueError where these contradict them."""
    told = {}
    for name in ("config", "classes"):
        if name in metadata:
            try:
                told[name] = json.loads(metadata[name])
            except (ValueError, RecursionError) as error:
                raise ValueError(f"its metadata's {name} is no JSON ({type(error).__name__})") from error
    if "config" in told:
        model = Config.from_dict(told["config"]).model
        wanted = {key: value for key, value in blueprint(model, tensors).items() if not key.endswith(COUNTER)}
        counted = {key: value for key, value in tensors.items() if not key.endswith(COUNTER)}
        check_tensors("its weights", counted, wanted)
    if "classes" in told:
        rows = len(tensors["class_embed.weight"])
        # A class head alone does not show whether its last row is "no object".
        counts = (model.num_classes,) if "config" in told else (rows, rows - 1)
        there = told["classes"].get("names") if isinstance(told["classes"], dict) else None
        check_classes(told["classes"], len(there) if isinstance(there, list) and len(there) in counts else counts[0])
    return told


def _arguments(content: Any) -> dict[str, Any]:
    """What no shape shows, by the arguments that the official training script saves beside the weights."""
    args = content.get("args") if isinstance(content, dict) else None
    args = vars(args) if isinstance(args, argparse.Namespace) else args if isinstance(args, dict) else {}
    kinds = {"dilation": bool, "nheads": int}
    return {name: args[name] for name, kind in kinds.items() if type(args.get(name)) is kind and args[name] >= 0}


def _beside(path: Path, name: str) -> dict[str, Any]:
    """What a JSON file beside the weights holds; {} where it is not there, or none of the Hub's.

    Raises ValueError for one that is no JSON.
    """
    file = path.with_name(name)
    if not file.is_file():
        return {}
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read ({type(error).__name__}): it is no JSON; fetch it again") from error
    if not isinstance(document, dict) or name == CONFIG and "model_type" not in document:
        return {}
    return document


def _told_by_theirs(document: Mapping[str, Any], processor: Mapping[str, Any], tensors: dict[str, Tensor],
                    timm: bool) -> dict[str, Any]:
    """The same, from the two files that the Hub has beside weights; and notes on what is not done as they say."""
    config, notes = config_of_theirs(document, backbone_among(tensors), processor)
    classes = classes_of_theirs(document)
    rows = len(tensors["class_embed.weight"])
    if classes and len(classes["names"]) != rows - 1:
        raise ValueError(f"{CONFIG} beside it names {len(classes['names']):,} classes, its class head has {rows:,} "
                         "rows, wanted one for each class and one for no object")
    values = config.to_dict()
    values["model"]["num_classes"] = rows - 1
    wanted = {key: value for key, value in blueprint(Config.from_dict(values).model, tensors).items()
              if not key.endswith(COUNTER)}
    problems = {"missing": [their_name(key, timm) for key in wanted if key not in tensors],
                "unexpected": [key for key in tensors if key not in wanted],
                "of another shape": [f"{their_name(key, timm)} (ours {key}) is {tuple(tensors[key].shape)}, wanted "
                                     f"{tuple(like.shape)}" for key, like in wanted.items()
                                     if key in tensors and tensors[key].shape != like.shape]}
    if found := [f"{len(names)} {what}: {grouped(names)}" for what, names in problems.items() if names]:
        raise ValueError(f"it is not the network that {CONFIG} beside it describes\n  " + "\n  ".join(found))
    return {"config": values, "classes": classes, "notes": notes}


def _by_timm(content: Any) -> bool:
    """Has the backbone in the file the names of timm's?"""
    return not any(".embedder.embedder." in key for _, state in state_dicts(content) for key in state)


def backbone_among(tensors: Mapping[str, Tensor]) -> Optional[str]:
    """The name in RESNETS of the backbone among tensors of our names, told by its blocks; None if there is none."""
    depths = tuple(len({key.split(".")[2] for key in tensors if key.startswith(f"backbone.layer{stage}.")})
                   for stage in (1, 2, 3, 4))
    block = "bottleneck" if "backbone.layer1.0.conv3.weight" in tensors else "basic"
    stem = tensors.get("backbone.conv1.weight")
    found = (block, depths, len(stem) if stem is not None and stem.dim() else 0)
    return next((name for name, known in RESNETS.items() if known == found), None)


def panoptic(state: dict[str, Any]) -> bool:
    return any(key.startswith("detr.") for key in state)


def _described(content: Any) -> str:
    """What a file holds, in words."""
    for _, state in state_dicts(content):
        if panoptic(state):
            return f"a DETR for panoptic segmentation ({grouped(state)})"
        if any(".sampling_offsets." in key for key in state):
            return f"a Deformable DETR, which is another network ({grouped(state)})"
        content = state
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    names = [key if isinstance(key, str) else reprlib.repr(key) for key in list(content)[:1000]]
    tensors = all(isinstance(value, Tensor) for value in content.values())
    return f"{len(content):,} {'tensors' if tensors else 'entries'}: {grouped(names) or 'none'}"


# -- what fits -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adapted:
    """What came of each tensor of a file and of a model; `frozen` and the counts are of the model's parameters."""

    kind: Kind
    loaded: tuple[str, ...]
    replaced: tuple[str, ...]
    shortened: tuple[str, ...]
    initial: tuple[str, ...]
    unused: tuple[str, ...]
    frozen: tuple[str, ...]
    parameters: int
    trained: int
    unnamed: bool
    """a class head was loaded from a file that does not name its classes"""

    def text(self) -> str:
        """A line or two for each fate: how many tensors, what became of them, their names."""
        fates = {"loaded": "as they are", "replaced": "of other classes: begins at random",
                 "shortened": "the first of its rows", "initial": "not in the file: begins at random",
                 "unused": "in the file, of no use here", "frozen": "never trained"}
        lines = [f"weights of kind {self.kind}:"]
        for fate, meaning in fates.items():
            if names := getattr(self, fate):
                whole = grouped(names).replace(" (", "\0(")  # a group and its count stay on one line
                lines += textwrap.wrap(f"{fate:<9} {len(names):>4}  ({meaning}) {whole}", 116, initial_indent="  ",
                                       subsequent_indent=" " * 18, break_on_hyphens=False)
        if self.unnamed:
            lines.append("  class head kept: the weights do not name their classes, and are taken to be of these, "
                         "which are as many")
        learn = f"  {self.trained:,} of {self.parameters:,} parameters learn"
        return "\n".join([*lines, learn]).replace("\0", " ")


@torch.no_grad()
def adapt(model: nn.Module, weights: Weights, classes: Optional[Sequence[str]] = None) -> Adapted:
    """Copy into `model` all of the weights that fits: whole, or nothing at all.

    classes   what the model's labels are called, in their order; None: as those of the weights
    Kept at the model's own values: a class head for other classes or another number of them, what is no backbone if the
    weights are an ImageNet ResNet's, and a one-to-many route that is not in the file. One that only the file has is
    left out: nothing but training uses it. A batch norm's statistics fit frozen and trained norms alike; its counter
    is of no weight. Raises ValueError that counts and names what is missing, unexpected or of another shape beyond that.
    """
    wanted, given = model.state_dict(), weights.tensors
    renamed = bool(classes and weights.classes) and list(classes) != list(weights.classes["names"])
    fates: dict[str, dict[str, Tensor]] = {name: {} for name in ("loaded", "replaced", "shortened", "initial")}
    missing, misshapen = [], []
    for key, own in wanted.items():
        new = given.get(key)
        if new is None:
            if ROUTE in key or weights.kind == "torchvision ResNet" and not key.startswith(OUR_PREFIX):
                fates["initial"][key] = own
            elif not key.endswith(COUNTER):
                missing.append(key)
        elif new.shape == own.shape and not (renamed and key.startswith((*CLASS_HEADS, LABELS))):
            fates["loaded"][key] = new
        elif new.shape[1:] == own.shape[1:] and key.startswith(CLASS_HEADS):
            fates["replaced"][key] = own
        elif new.shape[1:] == own.shape[1:] and key == LABELS:
            fates["replaced"][key] = torch.cat((own[:-1], new[-1:].to(own)))  # (K+1,D)
        elif new.shape[1:] == own.shape[1:] and key in QUERIES and len(new) > len(own):
            fates["shortened"][key] = new[:len(own)]
        else:
            misshapen.append(f"{key} is {tuple(new.shape)}, wanted {tuple(own.shape)}")
    unused = tuple(key for key in given if key not in wanted and (
        key.endswith(COUNTER) or key.startswith(CLASSIFIER) or ROUTE in key))
    unexpected = [key for key in given if key not in wanted and key not in unused]
    problems = [f"{len(names)} {what}: {grouped(names)}" for what, names in (
        ("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)) if names]
    if problems:
        raise ValueError(f"these weights ({weights.kind}) are for another network: choose --preset (or --backbone, "
                         "--hidden-dim …) as they were trained; --num-queries may be theirs or fewer\n  "
                         + "\n  ".join(problems))
    model.load_state_dict({key: value for fate in fates.values() for key, value in fate.items()}, strict=False)
    frozen = tuple(name for name, parameter in model.named_parameters() if not parameter.requires_grad)
    return Adapted(weights.kind, **{fate: tuple(names) for fate, names in fates.items()}, unused=unused, frozen=frozen,
                   parameters=sum(p.numel() for p in model.parameters()),
                   trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
                   unnamed=bool(classes and not weights.classes) and "class_embed.weight" in fates["loaded"])


def grouped(names: Iterable[str]) -> str:
    """Up to four names, or how many begin alike: "backbone.layer1 (40), class_embed.bias"."""
    names = [printable(name)[:100] for name in names]  # they are a file's
    if len(names) <= 4:
        return ", ".join(names)
    groups = Counter(".".join(name.split(".")[:2]) for name in names)
    whole = {".".join(name.split(".")[:2]): name for name in names}
    shown = [f"{group} ({count})" if count > 1 else whole[group] for group, count in groups.items()]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
