"""flags: how do words on a command line become the arguments of a command?

    a preset or a checkpoint ─▶ defaults ── changed by the flags ─▶ one frozen dataclass

The flags are made of the dataclass's fields (tyro), so that a setting has one name everywhere. Some
flags decide the defaults of all others (--preset, say): `flags_given` reads these first.
"""

from __future__ import annotations

import argparse
from typing import Any, Optional, Sequence

import tyro

from scratch.config import PRESETS, Config
from scratch.ops.fast.switch import plain


def parse(arguments_type: Any, default: Any, command: str, argv: Sequence[str]) -> Any:
    """Flags from the dataclass's fields; a flag that is not given keeps the value of `default`."""
    kind = flags_given(argv, "queries").queries or ""
    if kind.isdigit() and hasattr(default, "config"):  # a number here is meant for another flag
        raise ValueError(f"got --queries {kind}; --queries sets the kind of the queries (learned, anchor or proposal): "
                         f"set their number by --num-queries {kind}")
    return tyro.cli(arguments_type, default=default, args=argv, prog=f"detr_scratch.py {command}",
                    config=(tyro.conf.OmitArgPrefixes,))


def flags_given(argv: Sequence[str], *names: str) -> argparse.Namespace:
    """The flags that decide the defaults of all others, read before them."""
    parser = argparse.ArgumentParser("detr_scratch.py", usage="%(prog)s COMMAND --help", add_help=False,
                                     allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}",
                            action="store_true" if name == "resume" else "store")
    return parser.parse_known_args(argv)[0]


def presets_that_run() -> list[str]:
    """The names of the presets, in plain mode those of the published model."""
    return [name for name, config in PRESETS.items() if not (plain() and config.model.beyond_published())]


def preset_config(name: Optional[str], device: str = "cpu") -> Config:
    default = ("detr_141m", "tiny_vanilla") if plain() else ("detr_141m_fast", "tiny")  # on a GPU, on a CPU
    name = name or default[not device.startswith("cuda")]
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; wanted one of {', '.join(PRESETS)}")
    return PRESETS[name]
