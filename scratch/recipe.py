"""recipe: how should a detector be trained on this data, on this machine?

    DataSummary, Machine ─▶ choose ─▶ [Choice: field, value, reason] ─▶ applied ─▶ Config

`train --data DIR` without a preset's name begins from the device's preset and changes it so; a flag that
is given counts more, `--recipe none` leaves the preset as it is. What was chosen is printed, a line for
each choice, and travels in the checkpoint as the run's configuration: a run that goes on chooses nothing.

    --short-side     small_object × short_side = 12 pixels        more pixels cost time: quadratically
    --turns          where boxes look the same from all sides     four pictures from one
    --colour         0.3 where there is an up and a down          scenes have another light in each picture
    --num-queries    3 × the most objects in a picture            several cells propose one object: see SPARE
    …

docs/recipe.md has what was measured on BCCD's blood cells and on raccoons, and what was not. Lower learning rates did not
help, for example. What is not named here stays as the preset has it.

A pure function: the same numbers give the same choices. Proven in tests/test_recipe.py.
Read: Choice → choose → applied
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Optional

from scratch.config import Config
from scratch.data.summary import DataSummary

SMALL_PIXELS = 12  # of a small object's side: it then covers one and a half cells of the decoder's grid each way
SIDES = (144, 256)  # pixels of the shorter side, the least and the most, on a CPU
GPU_SIDES = (256, 640)
GIB_A_PIXEL = 4.2 / 256**2  # of a GPU's memory: detr_141m_fast, 16 squares (docs/gpu_estimate.md)
SPARE = 3  # queries for each object of the fullest picture. The cells with the best scores become queries, and each cell
#            within an object proposes it: with fewer queries, large objects leave too few for small ones
MOST_QUERIES = 300
COLOUR = 0.3  # strength of the colour jitter for scenes
FULL = 8.0  # objects in a picture, on average: with more, a mosaic shows them too small and too many
MINUTES = (10, 60)  # the least and the most
EVALUATIONS = 15  # in a run
EVALUATED_A_SECOND = {"cpu": 60, "cuda": 600}  # pictures: rough, so that evaluations take a tenth of the time at most


@dataclass(frozen=True)
class Machine:
    """Where a run takes place."""

    kind: str = "cpu"
    """cpu, cuda or mps"""
    gib: Optional[float] = None
    """GiB of the GPU's memory; None: not known, or no GPU"""


@dataclass(frozen=True)
class Choice:
    """One field of the configuration, its value, and why it has it."""

    part: str
    """which part of the Config: model, data or train"""
    field: str
    value: Any
    reason: str

    @property
    def flag(self) -> str:
        return "--" + self.field.replace("_", "-")


def choose(config: Config, data: DataSummary, evaluated: int, machine: Machine) -> list[Choice]:
    """What to change of a preset for this data, in the order in which it is told; what is not named stays.

    config      the preset of this machine
    evaluated   pictures of the split that is evaluated
    """
    minutes = _minutes(data.boxes)
    side, bound = _side(data, machine)
    queries, enough = _queries(config.model.num_queries, data.most_objects)
    full = data.typical_objects > FULL
    cost = evaluated / EVALUATED_A_SECOND.get(machine.kind, 60) / 60  # minutes
    rhythm = round(max(minutes / EVALUATIONS, 10 * cost), 1)
    often = f"{evaluated:,} pictures to evaluate: {EVALUATIONS} times in the run, or in a tenth of its time"
    objects = f"{data.typical_objects:.1f} objects in a picture: " + (
        "many, so crops show them larger; four pictures in one would be too full" if full else
        "few, so four pictures in one show more of them, in more sizes")
    # Growing pictures pay on the generated shapes. On photographs they lost: docs/recipe.md.
    steady = [Choice("data", "grow", 0.0, "pictures of one size, from the first step on")] if config.data.grow else []
    light = [] if data.turnable else [
        Choice("data", "colour", max(COLOUR, config.data.colour), "where there is an up and a down, light varies, too")]
    return [
        Choice("data", "short_side", side, f"a small object has {data.small_object:.2f} of a picture's side: "
               f"{data.small_object * side:.0f} pixels of {side}{bound}"),
        *steady,
        Choice("data", "turns", data.turnable, "boxes look the same from all four sides" if data.turnable else
               "there is an up and a down, or too few boxes to know"),
        *light,
        Choice("data", "augment", "zoom" if full else config.data.augment, objects),
        Choice("data", "mosaic", 0.0 if full else config.data.mosaic, objects),
        Choice("model", "num_queries", queries, f"{data.most_objects} objects in the fullest picture, {enough}"),
        Choice("train", "max_minutes", minutes, f"{data.boxes:,} boxes: ten minutes more for ten times as many"),
        Choice("train", "eval_every", 1, often),
        Choice("train", "eval_minutes", rhythm, often),
    ]


def applied(config: Config, choices: list[Choice]) -> Config:
    """The configuration with the choices in it."""
    for choice in choices:
        part = replace(getattr(config, choice.part), **{choice.field: choice.value})
        config = replace(config, **{choice.part: part})
    return config


def _queries(least: int, most_objects: int) -> tuple[int, str]:
    """SPARE for each object of the fullest picture, in steps of 10; and whether they are enough, in words."""
    wanted = 10 * math.ceil(SPARE * most_objects / 10)
    if wanted <= least:
        return least, "and the preset's queries are enough for them"
    if wanted > MOST_QUERIES:
        return max(least, MOST_QUERIES), "the most here"
    return wanted, f"{SPARE} queries for each, since several propose the same object"


def _minutes(boxes: int) -> float:
    """20 for 200 boxes, 10 more for ten times as many; in steps of 5."""
    least, most = MINUTES
    return float(min(most, max(least, 5 * round((10 * math.log10(max(1, boxes)) - 3) / 5))))


def _side(data: DataSummary, machine: Machine) -> tuple[int, str]:
    """Pixels of the shorter side, a multiple of 16; and what bounds it, in words."""
    least, most = GPU_SIDES if machine.kind == "cuda" else SIDES
    if machine.kind == "cuda" and machine.gib:  # seven tenths of it, for what is not counted
        most = max(least, min(most, int((0.7 * machine.gib / GIB_A_PIXEL) ** 0.5)))
    wanted = SMALL_PIXELS / data.small_object if data.small_object else least
    side = 16 * round(min(most, max(least, wanted)) / 16)
    return side, {wanted < least: ", the least here", wanted > most: ", the most here"}.get(True, "")
