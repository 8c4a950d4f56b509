"""content: does a checkpoint hold what it should?

    state ─┬─ config      every field of its type and range        scratch/config
           ├─ classes     as many ids and names as config.model.num_classes
           ├─ model, ema  the names, shapes and dtypes that config.model asks for; every number finite
           ├─ step …      whole numbers, none below 0
           ├─ rng         a generator of each kind takes it
           └─ optimizer   the groups, settings and moments of the optimizer that goes on

A file that torch.load reads may still hold anything: it was cut together by a script, written by another
program, or made to do harm. Everything that is wrong with it ends in a ValueError, which says what was found where and
what belongs there, before anything is built or changed. Nothing here costs more than the file itself has: layers are
counted in the file before a model with that number of layers is described, and no value is printed at length.

What older versions did not write (`last_matching`, `parts`, `course`, `size`, newer fields of the configuration) may be
missing, and so may all that only training needs, if the file is not used for training. Proven in
tests/training/test_content.py.
Read: check_content → check_weights → check_optimizer
"""

from __future__ import annotations

import math
import random
import reprlib
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Iterator, Mapping, Optional

import numpy as np
import torch
from torch import Tensor

from scratch.config import Config

USED = ("config", "classes", "model", "ema", "last_metrics")  # what every command needs
# What only a run that goes on needs: `convert --to ours` leaves it out.
TRAINED = ("step", "epoch", "batch", "minutes", "best_ap", "evaluation_due", "world_size", "optimizer", "precision",
           "rng")
LARGEST = 2**53  # steps, epochs …: whole numbers that a float holds exactly, and more than any run has


@contextmanager
def naming(file: Any) -> Iterator[None]:
    """Put the name of the file before the message about its content."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file} cannot be used as a checkpoint: {error}") from error


def check_content(state: Any, training: bool = False) -> Config:
    """The configuration of a checkpoint's state, all of which was looked at but the tensors of the weights.

    training   is it to go on training? Then all that only training needs must be there, too
    Raises ValueError, saying what is wrong.
    """
    _want(isinstance(state, dict), f"it holds {described(state)}, wanted a dict of what a run remembers")
    missing = [name for name in USED if name not in state]
    _want(not missing, f"it has no {', '.join(missing)}")
    config = Config.from_dict(state["config"])
    check_dense("model", state["model"])
    check_classes(state["classes"], config.model.num_classes)
    _check_metrics(state["last_metrics"])
    missing = [name for name in TRAINED if name not in state]
    _want(not training or not missing,
          f"it holds a detector without its training ({', '.join(missing[:4])} … are missing), as convert makes them, "
          "so no run can go on from it: begin a new one with train --weights or finetune --weights")
    for name in ("step", "epoch", "batch", "parts", "world_size"):
        least = name in ("parts", "world_size")
        _want(name not in state or _whole(state[name], least), f"{name} is {described(state.get(name))}, wanted a "
                                                               f"whole number, {int(least)} or more")
    for name, least in (("minutes", 0.0), ("evaluated_at", 0.0), ("best_ap", -1.0)):
        _want(name not in state or is_number(state[name]) and state[name] >= least,
              f"{name} is {described(state.get(name))}, wanted a number, {least:g} or more")
    _want(isinstance(state.get("evaluation_due", False), bool),
          f"evaluation_due is {described(state.get('evaluation_due'))}, wanted True or False")
    _check_matching(state.get("last_matching"))
    _check_course(state.get("course"))
    run_config(state)
    if training:
        _check_groups(state["optimizer"])
        _check_precision(state["precision"])
        ranks, rng = state["world_size"], state["rng"]
        _want(isinstance(rng, (list, tuple)) and len(rng) == ranks,
              f"rng is {described(rng)}, wanted the random states of {ranks} processes")
        for one in rng:
            check_rng_state(one)
    return config


def run_config(state: dict[str, Any]) -> Config:
    """The configuration of the run that wrote a checkpoint, from which it goes on.

    The checkpoint's own is what its weights are used with: while pictures grow (training/progressive) its are smaller.
    """
    config = Config.from_dict(state["config"])
    size = state.get("size")
    if size is None:  # of an older version
        return config
    sides = ("short_side", "max_size")
    _want(isinstance(size, dict) and set(size) == {"share", *sides} and is_number(size["share"])
          and 0 < size["share"] <= 1, f"size is {described(size)}, wanted a share above 0, short_side and max_size")
    try:
        return replace(config, data=replace(config.data, **{side: size[side] for side in sides}))
    except ValueError as error:
        raise ValueError(f"size: {error}") from error


def check_classes(classes: Any, count: int) -> None:
    """Raise ValueError unless `classes` are the ids and names of `count` classes."""
    _want(isinstance(classes, dict) and all(isinstance(classes.get(name), (list, tuple)) for name in ("ids", "names")),
          f"classes are {described(classes)}, wanted a dict with lists of ids and names")
    ids, names = classes["ids"], classes["names"]
    _want(all(type(i) is int and abs(i) < 2**63 for i in ids) and len(set(ids)) == len(ids),
          f"the classes' ids are {described(ids)}, wanted whole numbers, each once")
    _want(all(isinstance(name, str) for name in names), f"the classes' names are {described(names)}, wanted texts")
    _want(len(ids) == len(names) == count, f"it names {len(names):,} classes and {len(ids):,} of their ids, wanted "
                                           f"{count:,} of both, as its configuration says (num_classes)")


# -- the weights ---------------------------------------------------------------------------------------------------

Wanted = Mapping[str, Tensor]  # of any device; their values are not looked at


def check_weights(state: dict[str, Any], wanted: Wanted) -> None:
    """Raise ValueError unless model and running average of a state are the tensors `wanted`, finite."""
    check_tensors("model", state["model"], wanted)
    if state["ema"] is None:
        return
    ema = state["ema"]
    _want(isinstance(ema, dict) and "shadow" in ema, f"ema is {described(ema)}, wanted None or a dict with shadow")
    _want(_whole(ema.get("updates", 0)), f"ema's updates are {described(ema.get('updates'))}, wanted a whole number")
    check_tensors("ema", ema["shadow"], {name: tensor for name, tensor in wanted.items() if tensor.is_floating_point()})


def check_tensors(what: str, tensors: Any, wanted: Wanted) -> None:
    """Raise ValueError unless `tensors` are dense ones of the names, shapes and kinds of `wanted`, finite."""
    check_names(what, tensors, wanted)
    for name, tensor in tensors.items():
        like = wanted[name]
        _want(tensor.shape == like.shape, f"{what}: {name} is {tuple(tensor.shape)}, wanted {tuple(like.shape)}, as "
                                          "the configuration says")
        _want(_kind(tensor) == _kind(like), f"{what}: {name} is of {tensor.dtype}, wanted {like.dtype}")
    check_finite(what, tensors)


def check_names(what: str, tensors: Any, wanted: Any) -> None:
    """Raise ValueError unless `tensors` are a dict of dense tensors with the names `wanted`."""
    check_dense(what, tensors)
    for names, said in (([name for name in wanted if name not in tensors], "missing"),
                        ([name for name in tensors if name not in wanted], "too many")):
        _want(not names, f"{what} has {len(tensors):,} tensors, wanted {len(wanted):,}: {_few(names)} {said}")


def check_dense(what: str, tensors: Any) -> None:
    """Raise ValueError unless `tensors` are dense ones of real or whole numbers, by names that are texts."""
    _want(isinstance(tensors, dict) and bool(tensors), f"{what} is {described(tensors)}, wanted a dict of tensors")
    for name, tensor in tensors.items():
        _want(isinstance(name, str), f"a name in {what} is {described(name)}, wanted a text")
        _want(isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type != "meta"
              and _kind(tensor) in ("float", "whole"),
              f"{what}: {described(name)} is {described(tensor)}, wanted a tensor of numbers")


def check_finite(what: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a number is NaN or infinite; the names are known to be harmless."""
    for name, tensor in tensors.items():
        # The extremes are NaN if any number is, and cost no memory.
        tensor = tensor.detach()
        _want(_kind(tensor) != "float" or not tensor.numel() or all(map(math.isfinite, map(float, tensor.aminmax()))),
              f"{what}: {name} holds NaN or infinity, as after a training that diverged, and nothing can be found "
              "with it: take an earlier copy")


def _kind(tensor: Tensor) -> str:
    """float or whole, which load with any number of bits; or another dtype."""
    return ("float" if tensor.dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64) else
            "whole" if tensor.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8) else
            str(tensor.dtype))


# -- what only training needs --------------------------------------------------------------------------------------


def check_optimizer(saved: Any, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError unless `saved` is the state_dict of an optimizer with the groups and weights of this one.

    What torch adds to groups from version to version, switches that are None, True or False, may be missing or too many.
    """
    _check_groups(saved)
    groups = saved["param_groups"]
    own_groups = optimizer.param_groups
    outline = [(group["name"], len(group["params"])) for group in groups]
    own_outline = [(group["name"], len(group["params"])) for group in own_groups]
    _want(outline == own_outline, f"the optimizer's groups are {described(outline)}, wanted {described(own_outline)}")
    places = [place for group in groups for place in group["params"]]
    _want(all(type(place) is int for place in places) and len(set(places)) == len(places),
          "the optimizer's weights are not numbered")
    weights: dict[int, Tensor] = dict(zip(places, (weight for group in own_groups for weight in group["params"])))
    for group, own in zip(groups, own_groups):
        unknown = {name: value for name, value in group.items() if name not in own}
        _want(all(isinstance(name, str) and (value is None or isinstance(value, bool)) for name, value in unknown.items()),
              f"group {own['name']} of the optimizer has {described(unknown)}, wanted {described(sorted(own))} alone")
        for name, value in own.items():
            switch = value is None or isinstance(value, bool)
            if name in ("params", "name") or switch and name not in group:
                continue
            there = group.get(name)
            fits = (there is None or isinstance(there, bool) if switch else
                    is_number(there) and there >= 0 if is_number(value) else
                    isinstance(there, (list, tuple)) and len(there) == len(value) and all(map(is_number, there))
                    if isinstance(value, (list, tuple)) else type(there) is type(value))
            if name == "betas" and fits or name == "momentum" and fits:
                fits = all(0 <= each < 1 for each in (there if name == "betas" else [there]))
            if name == "maps":
                fits = fits and list(there) == list(value)
            _want(fits, f"the optimizer's {name} of group {own['name']} is {described(there)}, wanted as "
                        f"{described(value)}")
    for place, memory in saved["state"].items():
        _want(type(place) is int and place in weights and isinstance(memory, dict),
              f"the optimizer's state of {described(place)} is {described(memory)}, wanted a dict for one of its "
              "weights")
        own_names = _remembered(optimizer, weights[place])
        _want(own_names is None or set(memory) in (set(), own_names),
              f"the optimizer remembers {described(memory)} of a weight, wanted "
              f"{sorted(own_names or ())}")
        for name, value in memory.items():
            if name == "step":
                count = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
                _want(is_number(count) and 0 <= count <= LARGEST, f"the optimizer's step is {described(value)}, wanted "
                                                               "a number, 0 or more")
            else:
                _want(isinstance(value, Tensor) and value.layout == torch.strided and _kind(value) == "float"
                      and value.shape == weights[place].shape, f"the optimizer's {name} is {described(value)}, wanted "
                      f"a tensor {tuple(weights[place].shape)}")
                check_finite("the optimizer", {name: value})
                _want(name != "exp_avg_sq" or bool((value >= 0).all()), "the optimizer's mean of squares is below 0")


def _check_groups(saved: Any) -> None:
    """Raise ValueError unless an optimizer's state_dict has groups of weights with names."""
    _want(isinstance(saved, dict) and isinstance(saved.get("state"), dict)
          and isinstance(saved.get("param_groups"), list),
          f"optimizer is {described(saved)}, wanted a dict with state and param_groups")
    _want(all(isinstance(group, dict) and isinstance(group.get("params"), list)
              and isinstance(group.get("name"), str) for group in saved["param_groups"]),
          "an optimizer's group is no dict with name and params")


def _remembered(optimizer: torch.optim.Optimizer, weight: Tensor) -> Optional[set[str]]:
    """What an optimizer of ours remembers of a weight; None for one of torch's."""
    if not type(optimizer).__module__.startswith("scratch."):
        return None
    group = next(group for group in optimizer.param_groups if any(each is weight for each in group["params"]))
    return {"momentum"} if group.get("maps") else {"step", "exp_avg", "exp_avg_sq"}


def check_rng_state(state: Any) -> None:
    """Raise ValueError unless generators can be put to what `checkpoint.rng_state` gave; none of the process is."""
    names = ("python", "numpy", "torch", "cuda")
    _want(isinstance(state, dict) and all(name in state for name in names),
          f"a random state is {described(state)}, wanted a dict with {', '.join(names)}")
    for name, look in (("python", _try_python), ("numpy", _try_numpy), ("torch", _try_torch)):
        try:
            fits = look(state[name])
        except (ValueError, TypeError, RuntimeError, OverflowError, IndexError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"the random state of {name} cannot be used ({reason})") from error
        _want(fits, f"the random state of {name} is {described(state[name])}, which is none")
    cuda = state["cuda"]
    _want(cuda is None or isinstance(cuda, Tensor) and cuda.dtype == torch.uint8 and cuda.dim() == 1
          and 16 <= len(cuda) <= 2**16, f"the random state of cuda is {described(cuda)}, which is none")


def _try_python(state: Any) -> bool:
    fits = (isinstance(state, tuple) and len(state) == 3 and isinstance(state[1], tuple) and len(state[1]) == 625
            and (state[2] is None or is_number(state[2])))
    if fits:
        random.Random().setstate(state)
    return fits


def _try_numpy(state: Any) -> bool:
    if not (isinstance(state, (tuple, list)) and len(state) == 5):
        return False
    kind, key, position, has_gauss, cached = state
    # NumPy believes the position, and would read beyond the end of its numbers.
    fits = (kind == "MT19937" and isinstance(key, Tensor) and key.shape == (624,) and not key.is_floating_point()
            and _whole(position) and position <= 624 and has_gauss in (0, 1) and is_number(cached))
    if fits:
        key = key.cpu().to(torch.int64)
        fits = bool(((key >= 0) & (key < 2**32)).all())
        np.random.RandomState().set_state((kind, key.numpy().astype(np.uint32), position, has_gauss, cached))
    return fits


def _try_torch(state: Any) -> bool:
    fits = isinstance(state, Tensor) and state.dtype == torch.uint8 and state.dim() == 1
    if fits:
        torch.Generator().set_state(state.cpu())
    return fits


def _check_precision(state: Any) -> None:
    names = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}
    _want(isinstance(state, dict) and (not state or set(state) == names and all(
        is_number(value) and value >= (name != "_growth_tracker") * 1e-30 for name, value in state.items())),
        f"precision is {described(state)}, wanted an empty dict, or the positive numbers of a loss scaler")
    _want(not state or all(_whole(state[name]) for name in ("growth_interval", "_growth_tracker")),
          f"precision is {described(state)}, wanted whole numbers for what it counts")


# -- what evaluations left -----------------------------------------------------------------------------------------


def _check_metrics(metrics: Any) -> None:
    _want(isinstance(metrics, dict), f"last_metrics is {described(metrics)}, wanted a dict")
    figures = [(name, value) for name, value in metrics.items()
               if isinstance(name, str) and name.startswith(("AP", "AR"))]
    per_class = metrics.get("per_class", {})
    _want(isinstance(per_class, dict) and all(
        isinstance(name, str) and isinstance(of, dict) and {"AP", "AP50"} <= set(of) for name, of in per_class.items()),
        f"last_metrics' per_class is {described(per_class)}, wanted AP and AP50 of each class")
    figures += [(f"{name} of a class", of[name]) for of in per_class.values() for name in ("AP", "AP50")]
    for name, value in figures:
        _want(value is None or is_number(value), f"last_metrics: {name} is {described(value)}, wanted a number or None")
    threshold = metrics.get("threshold", 0.0)
    _want(is_number(threshold) and 0 <= threshold <= 1,
          f"last_metrics' threshold is {described(threshold)}, wanted a score from 0 to 1")


def _check_matching(matching: Any) -> None:
    if matching is None:
        return
    names = ("image_ids", "sizes", "queries")
    _want(isinstance(matching, dict) and set(matching) == set(names) and all(
        isinstance(values, Tensor) and values.dim() == 1 and _kind(values) == "whole" and values.layout == torch.strided
        for values in matching.values()), f"last_matching is {described(matching)}, wanted rows of whole numbers: "
                                          f"{', '.join(names)}")
    ids, sizes, queries = (matching[name] for name in names)
    _want(len(ids) == len(sizes) and bool((sizes >= 0).all()) and int(sizes.sum()) == len(queries),
          f"last_matching is of {len(ids)} images with {len(queries)} objects, which its sizes contradict")


def _check_course(course: Any) -> None:
    if course is None:
        return
    names = ("points", "said", "first", "latest", "total", "count")
    _want(isinstance(course, dict) and set(course) == set(names) and all(
        isinstance(course[name], (list, tuple)) for name in names[:4]),
        f"course is {described(course)}, wanted a dict of {', '.join(names)}")
    for point in course["points"]:
        _want(isinstance(point, (list, tuple)) and len(point) == 3 and _whole(point[0])
              and all(value is None or is_number(value) for value in point[1:]),
              f"a point of the course is {described(point)}, wanted a step, an AP and a loss")
    _want(all(isinstance(name, str) for name in course["said"]),
          f"what the course said is {described(course['said'])}, wanted texts")
    _want(all(map(is_number, (*course["first"], *course["latest"], course["total"]))) and _whole(course["count"]),
          f"the course's losses are {described(course['first'])}, {described(course['latest'])}, "
          f"{described(course['total'])} and {described(course['count'])}, wanted numbers")


# -- words ---------------------------------------------------------------------------------------------------------


def is_number(value: Any) -> bool:
    """A finite number, and no bool."""
    return type(value) is float and math.isfinite(value) or type(value) is int and abs(value) <= LARGEST


def _whole(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value <= LARGEST


def _want(right: bool, said: str) -> None:
    if not right:
        raise ValueError(said)


def described(value: Any) -> str:
    """A value in a few letters: a file's may be endless, or hold itself."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    if type(value) is int and abs(value) > LARGEST:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, dict):
        names = ", ".join(map(_plain, list(value)[:4]))
        return f"a dict of {len(value):,} ({names}{' …' if len(value) > 4 else ''})"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value):,} ({', '.join(map(_plain, value[:4]))}" + (
            " …)" if len(value) > 4 else ")")
    return _plain(value)


def _plain(value: Any) -> str:
    if type(value) in (str, bool, float, type(None)) or type(value) is int and abs(value) <= LARGEST:
        return reprlib.repr(value)
    if isinstance(value, (list, tuple)) and len(value) <= 3 and all(
            type(each) in (str, float, bool) or type(each) is int and abs(each) <= LARGEST for each in value):
        return reprlib.repr(value)
    return f"a {type(value).__name__}"


def _few(names: list[Any]) -> str:
    return ", ".join(_plain(name) for name in names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
