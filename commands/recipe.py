"""recipe: what does the data ask for, before the flags of a training run are read?

    --data DIR ─▶ summarise ─▶ choose ─▶ the defaults of all flags ─▶ told, beside what was given

`scratch/recipe` chooses; this reads the data for it, and says what was chosen. Read: chosen_for → told
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any, Callable, Optional

import torch

from scratch.config import Config, DataConfig
from scratch.data.annotations import read_annotations
from scratch.data.coco import find_splits
from scratch.data.summary import DataSummary, summarise
from scratch.printable import counted
from scratch.recipe import FOLLOWED, Choice, Machine, choose


def machine_of(device: str) -> Machine:
    """What a device's name ("cpu", "cuda", "cuda:1") says of the machine.

    Of several GPUs the smallest counts: processes that train together have to choose alike.
    """
    kind, _, number = device.partition(":")
    gpus = [int(number)] if number else range(torch.cuda.device_count()) if kind == "cuda" else ()
    return Machine(kind, min((torch.cuda.get_device_properties(gpu).total_memory / 2**30 for gpu in gpus), default=None))


def seen(data: DataConfig) -> Optional[tuple[DataSummary, int]]:
    """The training split in numbers, and the pictures of the split that is evaluated; None for data that cannot be
    read, or has no box: what is wrong with it, the run itself says."""
    try:
        splits = find_splits(data, need=("train", data.eval_split))
        sizes = {}
        for split in dict.fromkeys(("train", data.eval_split)):
            images, file = splits[split]
            limit = data.limit_train if split == "train" else data.limit_val
            sizes[split] = read_annotations(file, None, limit, data.classes, images, data.as_is,
                                            remember=data.remember)
    except (OSError, ValueError):
        return None
    summary = summarise(sizes["train"])
    return (summary, len(sizes[data.eval_split])) if summary.boxes else None


def chosen_for(preset: Config, data: DataConfig, device: str, budget_is_given: bool,
               with_flags: Callable[[Config], Config] = lambda config: config) -> tuple[str, list[Choice]]:
    """What the recipe says of `data` on this device: a headline, and the choices; ("", []) without any.

    data              where it is and how it is read, as the flags say
    budget_is_given   flags say how many epochs or steps: no limit of minutes then
    with_flags        a configuration changed by the flags that are given
    """
    if data.data == "shapes" and data.train_images is None:
        return "", []  # the presets are made for them
    found = seen(data)
    if found is None:
        return "", []
    summary, evaluated = found
    choices = choose(preset, summary, evaluated, machine_of(device), values_given(preset, with_flags))
    if budget_is_given:
        choices = [replace(choice, value=None, reason="epochs or steps are given") if choice.field == "max_minutes"
                   else choice for choice in choices]
    headline = (f"recipe for {counted(summary.pictures, 'picture')} with {counted(summary.boxes, 'box', 'boxes')} of "
                f"{counted(summary.classes, 'class', 'classes')} (a flag counts more; --recipe none: the preset as it "
                "is)")
    return headline, choices


def values_given(preset: Config, with_flags: Callable[[Config], Config]) -> dict[str, Any]:
    """The values of FOLLOWED that flags give: those that come out the same, whatever they are without flags."""
    def after(side: int, **model: Any) -> dict[str, Any]:
        data, model_of = replace(preset.data, short_side=side), replace(preset.model, **model)
        config = with_flags(replace(preset, data=data, model=model_of))
        return {name: getattr(config.data if name == "short_side" else config.model, name) for name in FOLLOWED}
    some, others = (after(64, dilation=False, fine_memory=False, queries="anchor"),
                    after(96, dilation=True, fine_memory=True, queries="proposal"))
    return {name: value for name, value in some.items() if value == others[name]}


def told(headline: str, choices: list[Choice], config: Config) -> str:
    """A line for each choice, or for some of one reason: what the run takes, and why."""
    rows = []
    for reason, of_one_reason in groupby(choices, key=lambda choice: choice.reason):
        taken = [(choice, getattr(getattr(config, choice.part), choice.field)) for choice in of_one_reason]
        given = [as_flag(choice.flag, choice.value) for choice, value in taken if value != choice.value]
        rows.append((" ".join(as_flag(choice.flag, value) for choice, value in taken),
                     reason + (f" (as given; recipe: {' '.join(given)})" if given else "")))
    width = max(len(flags) for flags, _ in rows)
    return "\n".join([headline, *(f"  {flags:<{width}}  {reason}" for flags, reason in rows)])


def as_flag(flag: str, value: object) -> str:
    """A flag as it is typed: --lr 0.001, --turns, --no-turns."""
    if isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    return f"{flag} {value:g}" if isinstance(value, float) else f"{flag} {value}"
