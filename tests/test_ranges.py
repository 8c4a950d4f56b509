"""Every number that a person, a file or a program can set is one that a run can mean, or is refused in a line."""

from __future__ import annotations

import importlib
import math
import pkgutil
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
import tyro

import commands
import detr_scratch
from scratch.config import PRESETS, Config, DataConfig, LossConfig, ModelConfig, TrainConfig
from scratch.ranges import Range, kinds, refuse_other_kinds, refuse_senseless

PARTS = (ModelConfig, LossConfig, DataConfig, TrainConfig)


def argument_classes() -> list[type]:
    """The dataclasses of all commands' arguments, of any module."""
    modules = [importlib.import_module(module.name)
               for module in pkgutil.walk_packages(commands.__path__, "commands.")]
    found = {kind for module in modules for name, kind in vars(module).items()
             if name.endswith("Arguments") and is_dataclass(kind)}
    return sorted(found, key=lambda kind: kind.__name__)


def example(kind: type) -> Any:
    """An instance with its defaults, and something for what has none."""
    given = {"config": Config(), "data": DataConfig(), "what": "coco", "weights": "w", "runs": ()}
    return kind(**{f.name: given.get(f.name, Path("x")) for f in fields(kind)
                   if f.default is MISSING and f.default_factory is MISSING})


NUMBERS = [(kind, name) for kind in (*PARTS, *argument_classes())
           for name, told in kinds(kind).items() if int in told.types and bool not in told.types]


def test_there_are_commands_and_numbers_to_look_at():
    assert {"TrainArguments", "EvalArguments", "SweepArguments", "CompareArguments"} <= {kind.__name__ for kind in argument_classes()}
    assert len(NUMBERS) > 60


@pytest.mark.parametrize("kind, name", NUMBERS, ids=[f"{kind.__name__}.{name}" for kind, name in NUMBERS])
def test_a_number_that_no_run_can_mean_is_refused_in_a_line_that_names_the_flag(kind, name):
    whole = example(kind)
    for senseless in (math.nan, math.inf, -math.inf, -1, -1.0, 10**20, 1e20, 10**400, "4", True):
        with pytest.raises(ValueError) as refused:
            replace(whole, **{name: senseless})
        line = str(refused.value)
        assert line.startswith(f"got {name} = ") and ", wanted " in line and "\n" not in line, (senseless, line)
        assert line.endswith(f"(--{kinds(kind)[name].flag})")


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_a_setting_of_another_type_is_refused(kind):
    for name, told in kinds(kind).items():
        for strange in ({}, [], b"x", 3.5 if str in told.types else "strange" if bool in told.types else ()):
            with pytest.raises(ValueError, match=f"got {name} = .*wanted"):
                replace(kind(), **{name: strange})


def test_every_field_of_the_configuration_is_looked_at():
    for kind in PARTS:
        assert set(kinds(kind)) == {f.name for f in fields(kind)}


@dataclass(frozen=True)
class Example:
    count: Optional[int] = None
    share: Annotated[float, tyro.conf.arg(name="part-of")] = 0.5
    word: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        refuse_other_kinds(self)
        refuse_senseless(self, count=Range(1, 70_000), share=Range(0, 1, "low"))


@pytest.mark.parametrize("values, line", [
    ({"count": 0}, "got count = 0, wanted 1 or more, and 70,000 at most (--count)"),
    ({"count": 2.0}, "got count = 2.0, wanted a whole number, or None (--count)"),
    ({"count": -10**60}, "got count = a number of about 61 digits, wanted 1 or more, and 70,000 at most (--count)"),
    ({"share": 0}, "got share = 0, wanted more than 0, and 1 at most (--part-of)"),
    ({"share": "x" * 200}, f"got share = '{'x' * 79}…, wanted a number (--part-of)"),
    ({"word": "c"}, "got word = 'c', wanted one of a, b (--word)"),
])
def test_the_line_says_what_was_got_and_what_was_wanted(values, line):
    with pytest.raises(ValueError) as refused:
        Example(**values)
    assert str(refused.value) == line


def test_what_a_run_can_mean_is_taken():
    assert Example(70_000, 1).share == 1 and Example(None, 1e-300).count is None


def test_a_range_without_an_end_does_not_hold_it():
    assert [Range(0, 1, end).holds(0) for end in ("", "low", "high")] == [True, False, True]
    assert [Range(0, 1, end).holds(1) for end in ("", "low", "high")] == [True, True, False]


# ── the command line ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("flag, value", [
    ("--giou-loss-coef", "-5"), ("--set-cost-bbox", "-5"), ("--focal-gamma", "-3"), ("--focal-alpha", "2"),
    ("--eos-coef", "-1"), ("--lr-drop-at", "nan"), ("--hidden-dim", "0"), ("--short-side", "99999999999999999999"),
    ("--shapes-val", "99999999999999999999"), ("--num-classes", "1000000000"), ("--groups", "1000000000"),
    ("--dim-feedforward", "1000000000"), ("--workers", "99999999999999999999"), ("--ema-decay", "1"),
    ("--num-queries", "1000000000"), ("--enc-layers", "1000000"),
])
def test_a_flag_that_no_run_can_mean_ends_before_anything_is_begun(flag, value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        detr_scratch.main(["train", "--preset", "tiny", "--device", "cpu", flag, value])
    assert stopped.value.code not in (0, None)
    said = " ".join(f"{stopped.value} {''.join(capsys.readouterr())}".replace("│", " ").split())
    assert f"got {flag[2:].replace('-', '_')} = {value}," in said and not list(tmp_path.iterdir())


# ── what a checkpoint says of itself ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spoil, words", [
    (lambda c: c["model"].update(num_queries=10**9), "num_queries"),
    (lambda c: c["model"].update(hidden_dim="256"), "hidden_dim = '256', wanted a whole number"),
    (lambda c: c["train"].update(lr=None), "lr = None, wanted a number"),
    (lambda c: c["data"].update(data=7), "data = 7, wanted a text"),
    (lambda c: c["model"].update(width=3), "unknown fields"),
    (lambda c: c["model"].update({3: 3}), "unknown fields"),
    (lambda c: c.pop("loss"), "wanted a dict of preset, model, loss, data, train"),
    (lambda c: c.update(train=[]), "wanted a dict of preset, model, loss, data, train"),
    (lambda c: c.update(preset=3), "wanted a dict of preset, model, loss, data, train"),
])
def test_a_configuration_that_is_none_is_refused_in_a_line(spoil, words):
    values = PRESETS["tiny"].to_dict()
    spoil(values)
    with pytest.raises(ValueError, match=words) as refused:
        Config.from_dict(values)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("nothing", [None, [], "tiny", 3])
def test_what_is_no_dict_is_no_configuration(nothing):
    with pytest.raises(ValueError, match="got no configuration"):
        Config.from_dict(nothing)
