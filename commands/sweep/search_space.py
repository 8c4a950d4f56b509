"""search_space: which values may a sweep try?

    lr=log:1e-4:1e-2         a number between the two, every factor of ten equally likely
    dropout=0:0.3            a number between the two
    num_queries=20:100:20    20, 40, 60, 80 or 100
    hidden_dim=96,128,192    one of these (choice:96,128,192 says the same)
    fine_memory=true,false   on or off

The names are fields of scratch/config.py, and the types of those decide how a value is read. So a
slip costs a line at once, not a night: every end of a range and every listed value has to make a
configuration. What only shows when the model is built (a width that the heads do not divide) ends
that trial alone.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Optional, Sequence, Union, get_args, get_origin, get_type_hints

import optuna

from scratch.config import Config

PARTS = ("model", "loss", "data", "train")
DIGITS = 4  # of a drawn number: enough to tell trials apart, few enough to type
KEPT = {"num_classes": "it is taken from the data", "eval_split": "all trials must be judged on the same images",
        "limit_val": "all trials must be judged on the same images",
        "shapes_val": "all trials must be judged on the same images",
        "classes": "all trials must be judged on the same objects"}


def settings(config: Config) -> dict[str, Any]:
    """Every field of the four parts of a configuration; no two parts share a name."""
    return {field.name: getattr(getattr(config, part), field.name)
            for part in PARTS for field in fields(getattr(config, part))}


def changed(config: Config, values: dict[str, Any]) -> Config:
    """`config` with these fields set. ValueError, from the configuration itself, for a value that no run can mean."""
    for part in PARTS:
        section = getattr(config, part)
        mine = {field.name: values[field.name] for field in fields(section) if field.name in values}
        config = replace(config, **{part: replace(section, **mine)})
    return config


def differing(config: Config, other: Config) -> dict[str, Any]:
    """The fields of `config` that are not as in `other`."""
    before = settings(other)
    return {name: value for name, value in settings(config).items() if value != before[name]}


@dataclass(frozen=True)
class Dimension:
    """One field that a sweep varies: a list of values, or a range (even, or even in its logarithm)."""

    name: str
    kind: Literal["choice", "even", "log"]
    values: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    step: Optional[float] = None

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """As Optuna stores it."""
        if self.kind == "choice":
            return optuna.distributions.CategoricalDistribution(self.values)
        log = self.kind == "log"
        if isinstance(self.low, int):
            return optuna.distributions.IntDistribution(self.low, self.high, log, 1 if self.step is None else self.step)
        return optuna.distributions.FloatDistribution(self.low, self.high, log, self.step)

    def suggest(self, trial: optuna.Trial) -> Any:
        """The value of this field in a trial, which keeps the one that it once had."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.values)
        log = self.kind == "log"
        if isinstance(self.low, int):
            step = 1 if self.step is None else self.step
            return trial.suggest_int(self.name, self.low, self.high, step=step, log=log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=log)

    def rounded(self, value: Any) -> Any:
        """A drawn number as it is used, reported and typed: with four digits, and within the range."""
        if not isinstance(value, float) or self.kind == "choice":
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def contains(self, value: Any) -> bool:
        if self.kind == "choice":
            return any(value == one and type(value) is type(one) for one in self.values)
        if value is None or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-6

    def listed(self) -> tuple[Any, ...]:
        """All values, for a grid. ValueError if there is no end of them."""
        if self.kind == "choice":
            return self.values
        if self.step is None:
            example = (self.low * self.high) ** 0.5 if self.kind == "log" else (self.low + self.high) / 2
            example = round(example) if isinstance(self.low, int) else float(f"{example:.2g}")
            raise ValueError(f"--sampler grid tries all values, and {self.name} has a range; wanted a list, as in "
                             f'--space "{self.name}={self.low:g},{example:g},{self.high:g}", or another sampler')
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(self.rounded(self.low + k * self.step) for k in range(count))

    def to_dict(self) -> dict[str, Any]:
        """What sweep.json says of it."""
        if self.kind == "choice":
            return {"kind": self.kind, "values": list(self.values)}
        return {"kind": self.kind, "low": self.low, "high": self.high, "step": self.step}


def parse_space(texts: Sequence[str], config: Config) -> list[Dimension]:
    """The dimensions that `--space` names; ValueError, with what was wanted, for anything that no run can mean."""
    if not texts:
        raise ValueError('got no --space, wanted at least one field to vary, as in --space "lr=log:1e-4:1e-2"')
    space = [parse_dimension(text, config) for text in texts]
    names = [dimension.name for dimension in space]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"got {', '.join(twice)} twice, wanted each field in one --space")
    for dimension in space:
        for value in dimension.values or (dimension.low, dimension.high):
            try:
                changed(config, {dimension.name: value})
            except ValueError as error:
                raise ValueError(f"--space {dimension.name}: {error}") from None
    return space


def parse_dimension(text: str, config: Config) -> Dimension:
    """One --space."""
    name, equals, values = (part.strip() for part in text.partition("="))
    name = name.replace("-", "_")
    types = {field: kind for part in PARTS for field, kind in get_type_hints(type(getattr(config, part))).items()}
    if name not in types:
        near = difflib.get_close_matches(name, types, n=3, cutoff=0.5)
        raise ValueError(f"--space {text!r}: no field of scratch/config.py is called {name!r}"
                         + (f"; did you mean {', '.join(near)}?" if near else "; train --help lists them all"))
    if name in KEPT or not _readers(types[name]):
        reason = KEPT.get(name, "it is neither a number nor one of several choices")
        raise ValueError(f"--space {text!r}: {name} cannot be swept, for {reason}")
    if not equals or not values:
        raise ValueError(f'--space {text!r}: wanted values, as in "{name}=A,B,C" or "{name}=log:LOW:HIGH"')
    kind, colon, rest = values.partition(":")
    if kind == "choice" and colon:
        values = rest
    elif ":" in values:
        return _range(text, name, types[name], values)
    listed = tuple(_read(text, name, types[name], value.strip()) for value in values.split(","))
    if len(set(listed)) < len(listed):
        raise ValueError(f"--space {text!r}: wanted each value once")
    return Dimension(name, "choice", listed)


def _range(text: str, name: str, kind: Any, values: str) -> Dimension:
    """LOW:HIGH, LOW:HIGH:STEP or log:LOW:HIGH."""
    log = values.startswith("log:")
    numbers = [_read(text, name, kind, value.strip()) for value in values.removeprefix("log:").split(":")]
    if any(type(number) not in (int, float) for number in numbers):
        raise ValueError(f'--space {text!r}: {name} is no number; wanted a list, as in "{name}=A,B"')
    if len(numbers) not in ((2,) if log else (2, 3)):
        raise ValueError(f'--space {text!r}: wanted "LOW:HIGH", "LOW:HIGH:STEP" or "log:LOW:HIGH"')
    low, high, step = (*numbers, None)[:3]
    if not low < high or log and low <= 0 or step is not None and step <= 0:
        raise ValueError(f"--space {text!r}: wanted a range that rises{', from above 0' if log else ''}"
                         + (", in steps above 0" if step is not None else ""))
    if step is not None:  # the last step that is within the range is its end
        high = type(low)(f"{low + int((high - low) / step + 1e-9) * step:.12g}")
    return Dimension(name, "log" if log else "even", low=low, high=high, step=step)


def _readers(kind: Any) -> list[Any]:
    """The ways to read a value of a field's type: int, float, bool, None, or a choice itself; [] for free text."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if get_origin(kind) is Union:
        inner = [_readers(one) for one in get_args(kind) if one is not type(None)]
        return [None, *sum(inner, [])] if all(inner) else []
    return [kind] if kind in (int, float, bool) else []


def _read(text: str, name: str, kind: Any, value: str) -> Any:
    """A value as the field's type has it."""
    wanted = []
    for reader in _readers(kind):
        words = {int: "a whole number", float: "a number", bool: "true or false", None: "None"}
        wanted.append(words.get(reader, reader))
        if reader is bool and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if reader is None and value == "None":
            return None
        if isinstance(reader, str) and value == reader:
            return value
        if reader in (int, float):
            try:
                number = float(value)
            except ValueError:
                continue
            if math.isfinite(number) and (reader is float or number == int(number)):
                return reader(number)
    raise ValueError(f"--space {text!r}: got {value!r} for {name}, wanted {' or '.join(wanted)}")
