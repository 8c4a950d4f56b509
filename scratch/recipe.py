"""recipe: how should a detector be trained on this data, on this machine?

    DataSummary, Machine ─▶ choose ─▶ [Choice: field, value, reason] ─▶ applied ─▶ Config

`train --data DIR` without a preset's name begins from the device's preset and changes it so; a flag that
is given counts more, `--recipe none` leaves the preset as it is. What was chosen is printed, a line for
each choice, and travels in the checkpoint as the run's configuration: a run that goes on chooses nothing.

    --dilation       cells of 32 pixels are too coarse            cells of 16: cheaper than larger pictures
    --short-side     a small object has 1½ cells of the decoder   more pixels cost time: quadratically
    --turns          where boxes look the same from all sides     four pictures from one
    --colour         0.3 where there is an up and a down          scenes have another light in each picture
    --num-queries    3 × the most objects in a picture            several cells propose one object: see SPARE
    …

docs/recipe.md has what was measured, on sets of photographs, and what was not. Lower learning rates did not help, nor
did crops instead of mosaics. What is not named here stays as the preset has it.

A pure function: the same numbers give the same choices. Proven in tests/test_recipe.py.
Read: Choice → choose → applied
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Mapping, Optional

from scratch.config import Config
from scratch.data.summary import DataSummary
from scratch.printable import counted

SMALL_CELLS = 1.5  # of the decoder's grid, that a small object covers each way: 12 pixels for tiny
SIDES = (192, 256)  # pixels of the shorter side, the least and the most, on a CPU
GPU_SIDES = (256, 640)
GIB_A_PIXEL = {  # of a GPU's memory, with 16 squares: COUNTED in training/step_memory
    "tiny": 0.205 / 192**2, "detr_r50_fast": 1.81 / 256**2, "detr_141m_fast": 4.3 / 256**2}
DILATED = 1.5  # times as much, where a preset's last stage is dilated
SPARE = 3  # queries for each object of the fullest picture. The cells with the best scores become queries, and each cell
#            within an object proposes it: with fewer queries, large objects leave too few for small ones
MOST_QUERIES = 300
COLOUR = 0.3  # strength of the colour jitter for scenes
FOLLOWED = ("dilation", "fine_memory", "queries", "short_side")  # flags whose values other choices depend on
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


def choose(config: Config, data: DataSummary, evaluated: int, machine: Machine,
           given: Mapping[str, Any] = MappingProxyType({})) -> list[Choice]:
    """What to change of a preset for this data, in the order in which it is told; what is not named stays.

    config      the preset of this machine
    evaluated   pictures of the split that is evaluated
    given       values of FOLLOWED that flags gave instead: the other choices follow them
    """
    given_model = {name: value for name, value in given.items() if name not in ("short_side", "dilation")}
    config = replace(config, model=replace(config.model, **given_model))
    why = _too_coarse(config, data, machine, given.get("short_side"))
    cells = [Choice("model", "dilation", True, f"{why}: cells of 16 pixels instead of 32")] if why else []
    dilated = given.get("dilation", config.model.dilation or bool(why))
    config = replace(config, model=replace(config.model, dilation=dilated))
    minutes = _minutes(data.pictures)
    side, seen = _side(config, data, machine)
    shown = given.get("short_side", side)
    seen = seen if shown == side else _pixels(data, shown)
    queries, enough = _queries(config, shown, data.most_objects)
    cost = evaluated / EVALUATED_A_SECOND.get(machine.kind, 60) / 60  # minutes
    rhythm = round(max(minutes / EVALUATIONS, 10 * cost), 1)
    often = (f"{counted(evaluated, 'picture')} to evaluate: about {counted(round(minutes / rhythm), 'evaluation')}, in all a "
             "tenth of the run at most")
    # Growing pictures pay on the generated shapes. On photographs they lost: docs/recipe.md. Second predictions pay on
    # shapes, too; blood cells gained nothing by them at equal minutes: hyper_parameter_tuning_charts/index.md.
    steady = [Choice("data", "grow", 0.0, "pictures of one size, from the first step on")] if config.data.grow else []
    if config.model.one_to_many:
        steady.append(Choice("model", "one_to_many", 0, "a shorter step instead of a second prediction of each query"))
    light = [] if data.turnable else [
        Choice("data", "colour", max(COLOUR, config.data.colour), "where there is an up and a down, light varies, too")]
    return [
        *cells,
        Choice("data", "short_side", side, seen),
        *steady,
        Choice("data", "turns", data.turnable, "boxes look the same from all four sides" if data.turnable else
               "there is an up and a down, or too few boxes to know"),
        *light,
        Choice("model", "num_queries", queries, f"{_fullest(data)}, {enough}"),
        Choice("train", "max_minutes", minutes,
               f"{counted(data.pictures, 'picture')}: 20 minutes for 200, and 10 more for each ten times as many"),
        Choice("train", "eval_every", 1, often),
        Choice("train", "eval_minutes", rhythm, often),
    ]


def applied(config: Config, choices: list[Choice]) -> Config:
    """The configuration with the choices in it."""
    for choice in choices:
        part = replace(getattr(config, choice.part), **{choice.field: choice.value})
        config = replace(config, **{choice.part: part})
    return config


def _fullest(data: DataSummary) -> str:
    return f"{counted(data.most_objects, 'object')} in the fullest picture"


def _queries(config: Config, side: int, most_objects: int) -> tuple[int, str]:
    """SPARE for each object of the fullest picture, in steps of 10; and whether they are enough, in words."""
    wanted, least = 10 * math.ceil(SPARE * most_objects / 10), config.model.num_queries
    asked = max(least, min(wanted, MOST_QUERIES))
    data, model = replace(config.data, short_side=side), replace(config.model, num_queries=asked)
    possible = replace(config, data=data, model=model).most_found
    if possible < min(wanted, MOST_QUERIES):
        return max(least, possible), f"and {possible} cells of {config.model.stride} pixels to propose them"
    if wanted <= least:
        return least, f"and the preset's queries are enough for {'it' if most_objects == 1 else 'them'}"
    if wanted > MOST_QUERIES:
        return asked, "the most here"
    return wanted, f"{SPARE} queries for each, since several propose the same object"


def _minutes(pictures: int) -> float:
    """20 for 200 pictures, 10 more for ten times as many; in steps of 5."""
    least, most = MINUTES
    return float(min(most, max(least, 5 * round((10 * math.log10(max(1, pictures)) - 3) / 5))))


def _side(config: Config, data: DataSummary, machine: Machine) -> tuple[int, str]:
    """Pixels of the shorter side, in whole cells of the encoder; and why, in words."""
    stride, (least, most) = config.model.stride, _sides(config, machine)
    of_objects, of_number = _wanted_sides(config, data)
    least = stride * math.ceil(least / stride)
    side = max(least, min(most // stride, round(max(of_objects, of_number) / stride)) * stride)
    if of_number > max(least, of_objects) and side > least:
        return side, f"{_fullest(data)}, and cells to propose them"
    covered = SMALL_CELLS * side / of_objects if of_objects else SMALL_CELLS
    few = "" if covered >= 1 else (
        f", {covered:.1f} cells of the decoder instead of {SMALL_CELLS}: cut large pictures into parts")
    bound = {of_objects < least: ", the least here", of_objects > most: ", the most here"}.get(True, "")
    return side, f"{_pixels(data, side)}{bound}{few}"


def _pixels(data: DataSummary, side: int) -> str:
    return (f"a small object has {data.small_object:.2g} of a picture's side: {data.small_object * side:.0f} pixels of "
            f"{side}")


def _sides(config: Config, machine: Machine) -> tuple[int, int]:
    """The least and the most pixels of the shorter side on this machine."""
    if machine.kind != "cuda":
        return SIDES
    least, most = GPU_SIDES
    if machine.gib:  # seven tenths of it, for what is not counted
        most = max(least, min(most, int((0.7 * machine.gib / _gib_a_pixel(config)) ** 0.5)))
    return least, most


def _gib_a_pixel(config: Config) -> float:
    known = GIB_A_PIXEL.get(config.preset, max(GIB_A_PIXEL.values()))
    return known * DILATED if config.model.dilation and config.preset != "tiny" else known  # tiny was counted dilated


def _wanted_sides(config: Config, data: DataSummary) -> tuple[float, int]:
    """Pixels at which a small object covers SMALL_CELLS of the decoder's cells, and at which there are SPARE cells of the
    encoder for each object of the fullest picture; 0 where nothing asks for any."""
    model = config.model
    cell = model.stride / (2 if model.fine_memory else 1)  # pixels
    cells = min(MOST_QUERIES, SPARE * data.most_objects) if model.queries == "proposal" else 0
    return SMALL_CELLS * cell / data.small_object if data.small_object else 0.0, model.stride * math.ceil(cells**0.5)


def _too_coarse(config: Config, data: DataSummary, machine: Machine, given_side: Optional[int]) -> str:
    """Why a network with the stride of 32 would need more than the least side (or the given one); "" if it would not,
    if its stride is 16 already, or if there is no memory for that."""
    side = given_side or _sides(config, machine)[0]
    dilated = replace(config, model=replace(config.model, dilation=True))
    if config.model.dilation or machine.gib and 0.7 * machine.gib < _gib_a_pixel(dilated) * side**2:
        return ""
    of_objects, of_number = _wanted_sides(config, data)
    return "small objects" if of_objects > side else "many objects" if of_number > side else ""
