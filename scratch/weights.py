"""weights: which trained weights are there, what does a file hold, and what of it fits a model?

    name ─▶ fetched once, into the cache ─┐
    file ─────────────────────────────────┴─▶ read_weights ─▶ adapt ─▶ what came of each tensor

    kind                 recognised by                       becomes
    official DETR        backbone.0.body.…, class_embed.…    our names (scratch/convert)
    torchvision ResNet   conv1.… layer4.… fc.…               backbone.…; its classifier fc is left
    checkpoint           this project's tag                  its weights, averaged if they were
    state dict           backbone.conv1.…, class_embed.…     as it is

A new task keeps all that fits. Classes are learnt anew where their number or their names differ:
the rows of a class head mean the old ones. A file that names none, and has as many, is taken to be
of the same ones, and that is said. Fewer queries take the first N: each is a place to look at, and
none depends on another. Whatever else differs is another network, and an error that counts and
names, never a silent skip.

Files are read without running foreign code (weights_only=True, or safetensors).
Proven in tests/test_weights.py, and on the official layout in tests/test_finetune.py.
Read: find_weights → read_weights → adapt
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import pickle
import re
import textwrap
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Literal, Optional, Sequence

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from scratch.convert import COUNTER, OFFICIAL_PREFIX, OUR_PREFIX, from_official
from scratch.download import fetch
from scratch.training.checkpoint import FORMAT, VERSION, best_checkpoint

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
Kind = Literal["official DETR", "torchvision ResNet", "checkpoint", "state dict"]

CLASS_HEADS = ("class_embed.", "proposal_head.class_embed.")  # a row for each class
LABELS = "label_embed.weight"  # a row for each class, then one for "unknown", which means the same everywhere
QUERIES = ("query_embed.weight", "refpoint_embed.weight", "group_embed.weight")  # a row for each query (or group)
CLASSIFIER = OUR_PREFIX + "fc."  # of an ImageNet ResNet


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


# -- where they are ------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where fetched weights are kept: $DETR_CACHE, else ~/.cache/detr_scratch."""
    try:
        return Path(os.environ.get("DETR_CACHE") or "~/.cache/detr_scratch").expanduser()
    except RuntimeError as error:  # no HOME, and a user of whom the system knows nothing: a container's, often
        raise ValueError("there is no home folder here, in which fetched weights are kept: name another folder in the "
                         "environment variable DETR_CACHE, as in DETR_CACHE=/tmp/detr_scratch") from error


def is_name(name: str) -> bool:
    """Does it mean published weights? A folder that is called so, a person's own run, goes first."""
    return name in NAMED and not Path(name).is_dir()


def find_weights(name: str) -> Path:
    """The file behind a name of NAMED (fetched if need be), a path, or a run's folder (best.pt, else its last).

    Raises what `fetch` raises, and FileNotFoundError for what is neither a name nor there.
    """
    if is_name(name):
        file = NAMED[name].rpartition("/")[2]
        try:
            return fetch(NAMED[name], cache_folder() / file, sha256=Path(file).stem.rpartition("-")[2])
        except OSError as error:
            raise OSError(f"{error}\nFetched weights are kept in {cache_folder()}; the environment variable DETR_CACHE "
                          "names another folder") from error
    path = Path(name)
    if path.is_dir():
        return best_checkpoint(path)
    if not path.is_file():
        near = difflib.get_close_matches(name, NAMED, n=2)
        raise FileNotFoundError(f"got weights {name!r}, which is neither a file nor a known name"
                                + (f" (did you mean {' or '.join(near)}?)" if near else "")
                                + f"; wanted a file, or one of {', '.join(NAMED)}")
    return path


# -- what they are -------------------------------------------------------------------------------------------------


def read_weights(path: Path) -> Weights:
    """The weights in a file, recognised by its content.

    Raises FileNotFoundError, and ValueError, saying what the file holds, where that is no detector and no ResNet.
    """
    path = Path(path)
    content, told = _load(path)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        if content["version"] > VERSION:
            raise ValueError(f"{path} has checkpoint version {content['version']}, this code reads up to {VERSION}: "
                             "update the code")
        state = content["state"]
        averaged = state["ema"]["shadow"] if state.get("ema") else {}
        return Weights({**state["model"], **averaged}, "checkpoint", state["config"], state["classes"],
                       state["last_metrics"].get("threshold"))
    state = content["model"] if isinstance(content, dict) and isinstance(content.get("model"), dict) else content
    told = {name: json.loads(told[name]) for name in ("config", "classes") if name in told}
    if isinstance(state, dict) and state and all(isinstance(value, Tensor) for value in state.values()):
        if any(key.startswith(OFFICIAL_PREFIX) for key in state) and "class_embed.weight" in state:
            return Weights(from_official(state), "official DETR", **told)
        if "conv1.weight" in state and "layer4.0.conv1.weight" in state:
            return Weights({OUR_PREFIX + key: value for key, value in state.items()}, "torchvision ResNet")
        if f"{OUR_PREFIX}conv1.weight" in state and "class_embed.weight" in state:
            return Weights(dict(state), "state dict", **told)
    raise ValueError(f"{path} holds {_described(state)}; wanted an official DETR ({OFFICIAL_PREFIX}…, class_embed.…), "
                     "a torchvision ResNet (conv1.…, layer1.… to layer4.…), or what this project has saved")


def _load(path: Path) -> tuple[Any, dict[str, str]]:
    """The content of a file, and the texts that a safetensors file keeps beside its tensors."""
    with open(path, "rb") as file:
        head = file.read(9)
    try:
        if head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:  # a header's length, its JSON
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
        if zipfile.is_zipfile(path) and (damaged := zipfile.ZipFile(path).testzip()):  # torch.load looks at none
            raise RuntimeError(f"wrong checksum of {damaged}")
        # The official training script saves its arguments, too: values in a Namespace, and so as harmless as a dict.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True), {}
    except Exception as error:  # damaged files make readers raise anything
        reason = str(error).partition("\n")[0]
        if head.lstrip()[:1] == b"<":
            reason = "it is a web page: was it saved in the place of the file?"
        elif isinstance(error, pickle.UnpicklingError) and (strange := re.search(r"GLOBAL ([\w.]+)", str(error))):
            reason = f"it holds objects of {strange[1]}, which could run foreign code; save its state_dict alone"
        elif isinstance(error, (SafetensorError, RuntimeError, EOFError)):
            reason = f"it is damaged, or cut short: {reason}"
        raise ValueError(f"{path} cannot be read as weights ({reason})") from error


def _described(content: Any) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    if any(str(key).startswith("detr.") for key in content):
        return f"a DETR for panoptic segmentation ({grouped(map(str, content))})"
    tensors = all(isinstance(value, Tensor) for value in content.values())
    return f"{len(content):,} {'tensors' if tensors else 'entries'}: {grouped(map(str, content)) or 'none'}"


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
    Kept at the model's own values: a class head for other classes or another number of them, and what is no backbone if
    the weights are an ImageNet ResNet's. A batch norm's statistics fit frozen and trained norms alike; its counter is
    of no weight. Raises ValueError that counts and names what is missing, unexpected or of another shape beyond that.
    """
    wanted, given = model.state_dict(), weights.tensors
    renamed = bool(classes and weights.classes) and list(classes) != list(weights.classes["names"])
    fates: dict[str, dict[str, Tensor]] = {name: {} for name in ("loaded", "replaced", "shortened", "initial")}
    missing, misshapen = [], []
    for key, own in wanted.items():
        new = given.get(key)
        if new is None:
            if weights.kind == "torchvision ResNet" and not key.startswith(OUR_PREFIX):
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
    unused = tuple(key for key in given if key not in wanted and (key.endswith(COUNTER) or key.startswith(CLASSIFIER)))
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
    names = list(names)
    if len(names) <= 4:
        return ", ".join(names)
    groups = Counter(".".join(name.split(".")[:2]) for name in names)
    whole = {".".join(name.split(".")[:2]): name for name in names}
    shown = [f"{group} ({count})" if count > 1 else whole[group] for group, count in groups.items()]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
