"""content: a checkpoint that contradicts itself is refused in words, and nothing is built or changed for it."""

from __future__ import annotations

import copy
import random
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import torch
from torch import Tensor

from scratch.blueprint import check_state
from scratch.config import Config
from scratch.data.classes import Classes
from scratch.model.build import build_detr
from scratch.training.checkpoint import load_checkpoint
from scratch.training.content import check_content, described, run_config
from scratch.training.loop import train_step
from scratch.training.run import Run
from tests.training.test_loop import make_run, random_batch, small_config


def trained(folder: Path, **train: Any) -> Run:
    """A run after a step and an evaluation."""
    run = make_run(small_config(ema_decay=0.9, **train), folder)
    train_step(run, [random_batch(2)])
    run.ema.update(run.unwrapped)
    run.step, run.batches_per_epoch, run.best_ap = 1, 5, 0.25
    run.last_metrics = {"AP": 0.25, "AP50": 0.5, "AR_1": None, "threshold": 0.4,
                        "per_class": {"cat": {"AP": None, "AP50": None}, "dog": {"AP": 0.5, "AP50": 1.0}}}
    run.course = run.course.trained(9.0).judged(1, 0.25).noted("overfitting").trained(8.0)
    run.last_matching = {"image_ids": torch.tensor([7, 9]), "sizes": torch.tensor([1, 2]),
                         "queries": torch.tensor([4, 0, 6], dtype=torch.int32)}
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def saved(run: Run) -> dict[str, Any]:
    run.save()
    return load_checkpoint(run.directory / "last.pt")


def changed(state: dict[str, Any], way: str, value: Any) -> dict[str, Any]:
    """A copy of a state with another value at "config.model.num_queries", say; `del` takes it away."""
    state = copy.deepcopy(state)
    *before, last = way.split("/")
    place: Any = state
    for name in before:
        place = place[int(name) if isinstance(place, (list, tuple)) or name.isdigit() else name]
    if value is del_:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) or last.isdigit() else last] = value
    return state


del_ = object()
ENDLESS: list = [[]]
for _ in range(60):
    ENDLESS = [ENDLESS, ENDLESS]  # 60 lists, whose text would have 2⁶⁰ brackets


@pytest.mark.parametrize("switch", [None, True])
def test_a_switch_that_another_version_of_torch_adds_to_a_group_is_let_through(
        switch: Any, run: Run, saved: dict[str, Any]):
    run.load_state_dict(changed(saved, "optimizer/param_groups/0/newer", switch))
    assert run.optimizer.param_groups[0]["newer"] is switch


def test_weights_that_were_saved_with_their_gradients_switch_on_are_read_without_a_warning(saved: dict[str, Any]):
    name = next(iter(saved["model"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_state(changed(saved, f"model/{name}", torch.nn.Parameter(saved["model"][name])), "last.pt", training=True)


@pytest.mark.parametrize("size", [del_, None])
def test_a_checkpoint_of_before_pictures_grew_is_of_its_own_size(size: Any, run: Run, saved: dict[str, Any]):
    state = changed(saved, "size", size)
    run.load_state_dict(state)
    assert run.share == 1.0
    config = run_config(state)
    assert config.data.short_side == saved["config"]["data"]["short_side"] == 144


def test_what_a_run_saves_is_what_it_says_that_it_is(run: Run, saved: dict[str, Any]):
    check_state(saved, "last.pt", training=True)
    run.load_state_dict(saved)
    assert run.step == 1 and run.last_metrics["AP50"] == 0.5


@pytest.mark.parametrize("way, value, said", [
    ("config", del_, "it has no config"), ("model", del_, "it has no model"), ("ema", del_, "it has no ema"),
    ("config", None, "got no configuration"),
    ("config/model", [], "got no configuration"),
    ("config/model/num_queries", "7", "config.model: got num_queries = '7', wanted a whole number"),
    ("config/model/num_queries", True, "num_queries = True, wanted a whole number"),
    ("config/model/num_queries", 10**30, "num_queries = 10{30}, wanted 1 or more"),
    ("config/model/num_queries", 10**9, "num_queries = 10{9}, wanted 1 or more, and 10,000 at most"),
    ("config/model/num_queries", 8, r"query_embed.weight is \(7, 16\), wanted \(8, 16\)"),
    ("config/model/groups", 10**9, "groups = 10{9}, wanted 1 or more"),
    ("config/model/enc_layers", 10**6, "enc_layers = 1000000, wanted"),
    ("config/model/dec_layers", 3, "dec_layers=3, its weights are of 2 such"),
    ("config/model/hidden_dim", 2**40, "got hidden_dim = "),
    ("config/model/dim_feedforward", 2**50, "got dim_feedforward = "),
    ("config/model/hidden_dim", 0, "got hidden_dim = 0"), ("config/model/nheads", 0, "got nheads = 0"),
    ("config/model/backbone", "vgg", "config.model: got backbone = 'vgg', wanted one of resnet_tiny"),
    ("config/train/lr", float("nan"), "config.train: got lr = nan, wanted 0 or more"),
    ("config/train/newer", 1, "unknown fields .'newer'.: it was written by another version"),
    ("config/data/short_side", -4, "config.data: got short_side = -4"),
    ("size", [], "size is a list of 0 .*wanted a share"), ("size/share", 0.0, "wanted a share above 0"),
    ("size/share", float("nan"), "wanted a share above 0"), ("size/short_side", "9", "size: got short_side = '9'"),
    ("size/max_size", 10**9, "size: got max_size = 10{9}"),
    ("classes", {}, "wanted a dict with lists of ids and names"),
    ("classes/names", ["cat"], "it names 1 classes and 3"),
    ("classes/names", ["cat", "dog", 7], "names are .*wanted texts"),
    ("classes/ids", [1, 1, 2], "wanted whole numbers, each"),
    ("model", {}, "model is a dict of 0"), ("model", [], "model is a list of 0"),
    ("model/class_embed.bias", torch.zeros(5), r"class_embed.bias is \(5,\), wanted \(4,\)"),
    ("model/class_embed.bias", torch.zeros(4, dtype=torch.int64), "is of torch.int64, wanted torch.float32"),
    ("model/class_embed.bias", torch.zeros(4, dtype=torch.complex64), "wanted a tensor of numbers"),
    ("model/class_embed.bias", torch.full((4,), float("nan")), "class_embed.bias holds NaN or inf.*take an earlier"),
    ("model/class_embed.bias", torch.full((4,), float("-inf")), "class_embed.bias holds NaN or infinity"),
    ("model/class_embed.bias", "weights", "'class_embed.bias' is 'weights', wanted a tensor"),
    ("model/class_embed.bias", torch.zeros(4).to_sparse(), "wanted a tensor of numbers"),
    ("model/class_embed.bias", del_, "'class_embed.bias' missing"), ("model/extra", torch.zeros(1), "'extra' too many"),
    ("ema", 3, "ema is 3, wanted None or a dict"),
    ("ema/shadow/class_embed.bias", torch.zeros(5), "ema: class_embed.bias"),
    ("last_metrics", None, "last_metrics is None"),
    ("last_metrics/AP", "high", "AP is 'high', wanted a number or None"),
    ("last_metrics/threshold", float("nan"), "threshold is nan, wanted a score"),
    ("last_metrics/threshold", "0.5", "threshold is '0.5', wanted a score"),
    ("last_metrics/per_class", {"cat": 0.5}, "wanted AP and AP50 of each class"),
    ("step", -1, "step is -1, wanted a whole number, 0 or more"), ("step", ENDLESS, "step is a list of 2"),
    ("minutes", float("nan"), "minutes is nan"), ("best_ap", "0.5", "best_ap is '0.5'"), ("parts", 0, "parts is 0"),
    ("course", [], "course is a list of 0"), ("course/points", del_, "course is a dict of 5"),
    ("course/points/0", [1, 2], "point of the course is a list of 2"),
    ("course/points/0/0", -1, "point of the course is .*wanted a step, an AP and a loss"),
    ("course/points/0/1", "high", "point of the course is"), ("course/said", [3], "what the course said is"),
    ("course/total", float("nan"), "the course's losses are"), ("course/first", ["low"], "the course's losses are"),
    ("course/count", -1, "the course's losses are"),
    ("last_matching", [1], "last_matching is a list"), ("last_matching/sizes", torch.tensor([9, 9]), "contradict"),
])
def test_what_contradicts_itself_is_refused_with_the_place_and_what_belongs_there(saved, way, value, said):
    for training in (False, True):
        with pytest.raises(ValueError, match=f"^last.pt cannot be used as a checkpoint: .*({said})"):
            check_state(changed(saved, way, value), "last.pt", training)


@pytest.mark.parametrize("way, value, said", [
    ("optimizer", del_, "a detector without its training .optimizer . are missing.*finetune --weights"),
    ("step", del_, "a detector without its training"), ("rng", [], "rng is .* wanted the random states of 1 proc"),
    ("optimizer", [], "optimizer is a list"),
    ("optimizer/param_groups", {}, "wanted a dict with state and param_groups"),
    ("optimizer/param_groups/0/params", None, "no dict with name and params"),
    ("optimizer/param_groups/0/eps", float("nan"), "optimizer's eps of group backbone is nan"),
    ("optimizer/param_groups/0/betas", (0.9, 1.5), "optimizer's betas of group"),
    ("optimizer/param_groups/0/lr", "fast", "optimizer's lr of group"),
    ("optimizer/param_groups/0/7", 10**9, "group backbone of the optimizer has a dict of 1 .*wanted a list of"),
    ("optimizer/param_groups/0/newer", 0.5, "group backbone of the optimizer has a dict of 1 .*wanted a list of"),
    ("optimizer/param_groups/0/eps", del_, "optimizer's eps of group backbone is None"),
    ("optimizer/state/0", 3, "optimizer's state of 0 is 3"),
    ("optimizer/state/999999", {}, "optimizer's state of 999999 is a dict"),
    ("optimizer/state/0/exp_avg", torch.zeros(3), "optimizer's exp_avg is a tensor|remembers"),
    ("rng/0/python", [1, 2], "random state of python"),
    ("rng/0/torch", torch.zeros(7, dtype=torch.uint8), "state of torch"),
    ("rng/0/numpy", ("MT19937", torch.zeros(624), 3, 0, 0.0), "random state of numpy"),
    ("rng/0/numpy", ("MT19937", torch.zeros(624, dtype=torch.int64), 10**6, 0, 0.0), "random state of numpy"),
    ("rng/0/cuda", "yes", "random state of cuda"), ("precision", {"scale": -1.0}, "positive numbers of a loss scaler"),
    ("world_size", 0, "world_size is 0"), ("evaluation_due", 1, "evaluation_due is 1, wanted True or False"),
])
def test_what_only_training_needs_is_looked_at_before_anything_of_a_run_has_changed(run, saved, way, value, said):
    before, drawn = {name: tensor.clone() for name, tensor in run.unwrapped.state_dict().items()}, random.getstate()
    with pytest.raises(ValueError, match=f"^last.pt cannot be used as a checkpoint: .*({said})"):
        run.load_state_dict(changed(saved, way, value), "last.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.unwrapped.state_dict().items())
    assert random.getstate() == drawn


@pytest.mark.parametrize("names", [("optimizer", "rng", "step", "epoch", "batch", "minutes", "best_ap", "precision",
                                    "evaluation_due", "world_size", "last_matching", "parts", "course"),
                                   ("last_matching", "parts", "course")])
def test_what_older_versions_did_not_write_or_only_training_needs_may_be_missing(saved, names):
    check_state({name: value for name, value in saved.items() if name not in names}, "last.pt")


def test_a_field_that_older_configurations_lack_has_its_default(saved):
    state = copy.deepcopy(saved)
    del state["config"]["model"]["fine_memory"], state["config"]["data"]["mixup"]
    assert check_content(state, training=True) == Config.from_dict(saved["config"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_are_weights(saved, dtype):
    state = {**saved, "model": {name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                                for name, tensor in saved["model"].items()}}
    check_state(state, "last.pt")


def test_a_message_is_short_whatever_the_value_is():
    for value in (ENDLESS, "x" * 10**6, 10**5000, {"a": ENDLESS}, [10**5000] * 9, {10**5000: 1}, torch.zeros(10**6),
                  object()):
        assert len(described(value)) < 300


# -- mutants by chance ---------------------------------------------------------------------------------------------

VALUES: tuple[Callable[[Any], Any], ...] = (
    lambda value: None, lambda value: "text", lambda value: -1, lambda value: 0, lambda value: 3.7, lambda value: 10**9,
    lambda value: 10**30, lambda value: True, lambda value: [], lambda value: {}, lambda value: float("nan"),
    lambda value: float("inf"), lambda value: ENDLESS, lambda value: torch.zeros(2, 3), lambda value: (value, value),
    lambda value: {"a": value}, lambda value: torch.tensor(float("nan")),
    lambda value: value.double() if isinstance(value, Tensor) else str(value)[:50],
    lambda value: value[..., None] if isinstance(value, Tensor) else [value],
    lambda value: torch.full_like(value, 1 << 6) if isinstance(value, Tensor) else -(10**12),
    lambda value: torch.zeros(1).expand(10**9) if isinstance(value, Tensor) else "\x1b[2J")


def places(value: Any, depth: int = 4) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a state, four levels deep."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        if depth:
            yield from places(item, depth - 1)


def mutant(state: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A copy with one thing changed, taken away or added; each part of the state is as likely."""
    state = {name: copy.copy(part) if name == "model" else copy.deepcopy(part) for name, part in state.items()}
    part = draw.choice(list(state))
    container, key = draw.choice([(state, part), *places(state[part])] if draw.random() < 0.9 else [(state, part)])
    kind = draw.random()
    if kind < 0.15:
        del container[key]
    elif kind < 0.25 and isinstance(container, dict):
        container[draw.choice(["more", 7, ("a", 1)])] = draw.choice(VALUES)(container[key])
    else:
        container[key] = draw.choice(VALUES)(container[key])
    return state


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_each_of_many_mutants_is_refused_in_words_or_is_a_whole_detector_and_run(tmp_path, optimizer):
    run = trained(tmp_path, optimizer=optimizer)
    run.save()
    saved, draw, refused = load_checkpoint(tmp_path / "last.pt"), random.Random(5), 0
    model = build_detr(run.config.model)
    for _ in range(100):
        state = mutant(saved, draw)
        try:
            check_state(state, "mutant.pt")
        except ValueError as error:
            refused += 1
            assert str(error).startswith("mutant.pt cannot be used")
            assert len(str(error)) < 1000 and "\x1b" not in str(error)
        else:
            config = Config.from_dict(state["config"])
            if config.model == run.config.model:
                model.load_state_dict(state["model"])
                assert len(Classes.from_dict(state["classes"])) == config.model.num_classes
        try:
            run.load_state_dict(state, "mutant.pt")
        except ValueError as error:
            assert len(str(error)) < 1500
    assert 30 < refused < 100
    run.load_state_dict(saved)
    train_step(run, [random_batch(1)])
