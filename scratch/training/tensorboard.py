"""tensorboard: what does a browser show of a run while it learns?

    tensorboard --logdir runs        then open the page that it names

    Scalars    every step: the losses (in all, and classes, L1 and GIoU of each decoder layer), the learning rates, the
               gradient's length, the speed, the wait for data, the memory; every evaluation: the twelve COCO figures,
               the same losses, class and cardinality errors, the health figures
    Images     predictions beside the truth, at every evaluation
    Text       the configuration, and each warning where it was given
    Histograms of weights and gradients, on request (--histograms-every)
    HParams    the settings that differ from the preset, beside what came of them, so that runs can be compared

TensorBoard's own event file lies in the run's folder. A run that goes on after a crash takes back
what it had written after its checkpoint (`purge_step`), as its log.jsonl does. Without the package
nothing is written, and that is said.
Read back with TensorBoard's own reader in tests/training/test_tensorboard.py.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
from PIL import Image

from scratch.config import PRESETS, Config
from scratch.printable import printable

MOST_VALUES = 100_000  # of a tensor in a histogram: every n-th, where there are more

# A record's names → TensorBoard's "group/name". The curves of a group share a part of the page, and the groups stand in
# the order of their names: what is looked at first has a number.
_LAYER = re.compile(r"(?P<kind>(?:dn_|many_|cell_)?(?:loss_(?:ce|bbox|giou)|class_error|cardinality_error))"
                    r"(?:_(?P<layer>\d+))?$")
_NAMES = {"grad_norm": "3 step/gradient norm before clipping", "loss_scale": "3 step/loss scale",
          "images_per_second": "3 step/images per second", "data_wait_seconds": "3 step/seconds waiting for data",
          "step_seconds": "3 step/seconds", "memory_gib": "3 step/memory in GiB at most"}
_LOSSES = {"loss": "total", "loss_queries": "queries alone"}


def tag(name: str, split: str) -> Optional[str]:
    """The curve that a number of a record belongs to; None if it is no curve (the step itself, say).

    split   "train" for a step's record, and what was evaluated ("val") for an evaluation's
    """
    if name in _NAMES:
        return _NAMES[name]
    if name in _LOSSES:
        return f"2 loss/{split} {_LOSSES[name]}"
    if name.startswith("lr_"):
        return f"3 step/learning rate {name[3:]}"
    match = _LAYER.match(name)
    if match:
        layer = "last layer" if match["layer"] is None else f"layer {int(match['layer']) + 1}"
        return f"{match['kind']}/{split} {layer}"
    return f"1 precision/{name}" if name.startswith(("AP", "AR")) else None


def _is_text(path: Path) -> bool:
    """Can the path be written as UTF-8? Linux lets a file's name be any bytes."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _wait_for_a_second_of_its_own(directory: Path) -> None:
    """Return once no event file of this folder was begun in the present second.

    TensorBoard reads a run's files in the order of their names, and those begin with a whole second. Of two files of
    one second the later could be read first, and what it takes back would then come after it.
    """
    while any(directory.glob(f"events.out.tfevents.{int(time.time())}.*")):
        time.sleep(0.01)


class TensorBoard:
    """Writes a run's records where TensorBoard finds them; does nothing where it is off or not installed.

    step   that of the checkpoint a run goes on from: what was written after it is taken back
    """

    def __init__(self, directory: Path, step: int, on: bool) -> None:
        self.writer: Any = None
        self.hook: Any = None
        if on and not _is_text(directory):
            print(f"note: TensorBoard's file is not written: the name of {printable(directory)} is no UTF-8, and TensorBoard "
                  "cannot write there")
        elif on:
            try:
                from torch.utils.tensorboard import SummaryWriter  # here: it takes a second, and few commands write
            except ImportError:
                print("note: TensorBoard's file is not written, for the package is missing (pip install tensorboard)")
            else:
                _wait_for_a_second_of_its_own(directory)
                self.writer = _Named(directory, lambda: SummaryWriter(
                    str(directory), purge_step=step + 1 if step else None, flush_secs=20))

    def config(self, config: Config) -> None:
        if self.writer:
            parts = {part: getattr(config, part) for part in ("model", "loss", "data", "train")}
            rows = [f"| {part}.{field.name} | {_in_a_table(getattr(values, field.name))} |"
                    for part, values in parts.items() for field in fields(values)]
            self.writer.add_text("configuration", "\n".join(["| setting | value |", "| --- | --- |", *rows]), 0)

    def step(self, record: dict[str, Any]) -> None:
        self._scalars(record, "train", record["step"])

    def evaluation(self, record: dict[str, Any]) -> None:
        if not self.writer:
            return
        split = record["split"]
        self._scalars({name: value for name, value in record.items() if name != "images_per_second"}, split,
                      record["step"])
        self._scalars(record["losses"], split, record["step"])
        for name, figures in record["per_class"].items():
            if figures["AP"] is not None:
                self.writer.add_scalar(f"4 AP by class/{printable(name)}", figures["AP"], record["step"])
        for name, value in record["health"].items():
            values = dict(enumerate(value, 1)) if isinstance(value, list) else {"": value}
            for layer, number in values.items():
                if number is not None and name != "num_queries":
                    where = f"{name} layer {layer}" if layer else name
                    self.writer.add_scalar(f"5 health/{where}", number, record["step"])
        self.writer.flush()

    def picture(self, name: str, path: Path, step: int) -> None:
        """A picture file as an image of the page."""
        if self.writer:
            with Image.open(path) as image:
                self.writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def text(self, name: str, text: str, step: int) -> None:
        if self.writer:
            self.writer.add_text(printable(name), "\n".join(map(printable, text.split("\n"))), step)

    def result(self, config: Config, figures: dict[str, float], step: int) -> None:
        """Note what came of the run ({"best AP": …}) beside the settings that runs are compared by."""
        if not self.writer:
            return
        from torch.utils.tensorboard.summary import hparams

        metrics = {f"result/{name}": value for name, value in figures.items()}
        # Not `add_hparams`, which would begin another run of its own beside this one.
        for summary in hparams(compared(config), metrics):
            self.writer.add_summary(summary)
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def watch(self, run: Any, every: int) -> None:
        """From now on, write histograms of all weights and their (clipped) gradients in every `every`-th step."""
        def write(*_: Any) -> None:
            if (run.step + 1) % every == 0:
                for name, weight in run.unwrapped.named_parameters():
                    if weight.grad is not None:
                        for kind, values in (("weights", weight), ("gradients", weight.grad)):
                            values = values.detach().flatten()
                            values = values[::1 + len(values) // MOST_VALUES].float().cpu()
                            if values.isfinite().all():
                                self.writer.add_histogram(f"{kind}/{name}", values, run.step + 1)

        if self.writer and every:
            self.hook = run.optimizer.register_step_pre_hook(write)

    def close(self) -> None:
        if self.hook:
            self.hook.remove()
        if self.writer:
            with suppress(OSError):  # what is lost was said before, and what ended the run must not be hidden by it
                self.writer.close()

    def _scalars(self, record: dict[str, Any], split: str, step: int) -> None:
        if not self.writer:
            return
        for name, value in record.items():
            curve = tag(name, split)
            if curve and isinstance(value, (int, float)):
                self.writer.add_scalar(curve, value, step)


class _Named:
    """A SummaryWriter whose errors name its file. (A thread writes it: an error shows in the next call.)"""

    def __init__(self, directory: Path, open_writer: Callable[[], Any]) -> None:
        self._directory, self._hook = directory, threading.excepthook
        threading.excepthook = self._not_twice
        self._writer = self._call(open_writer)

    def _not_twice(self, failed: threading.ExceptHookArgs) -> None:
        """The thread hands its error on, and would print it with a whole traceback as well."""
        if not (isinstance(failed.exc_value, OSError) and hasattr(failed.thread, "exception")):
            self._hook(failed)

    def close(self) -> None:
        try:
            self._call(self._writer.close)
        finally:
            threading.excepthook = self._hook

    def _call(self, function: Callable, *arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except OSError as error:
            raise OSError(f"TensorBoard's file in {self._directory} could not be written: {error.strerror or error}; "
                          "free some space, or take --no-tensorboard") from error

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, getattr(self._writer.file_writer if name == "add_summary" else self._writer, name))


def _in_a_table(value: Any) -> str:
    """A setting as TensorBoard's Markdown shows it: a path may hold signs that end a cell, or half a character."""
    return "".join(f"\\{letter}" if letter in "\\`*[]<>|~" else letter for letter in printable(value))


def compared(config: Config) -> dict[str, Any]:
    """The settings that runs are compared by: preset, rates, sizes, and all that differs from the preset."""
    always = {"lr", "lr_backbone", "batch_size", "hidden_dim", "num_queries", "weight_decay"}
    preset = PRESETS.get(config.preset, config)
    chosen: dict[str, Any] = {"preset": config.preset}
    for part in ("model", "loss", "data", "train"):
        ours, theirs = getattr(config, part), getattr(preset, part)
        for field in fields(ours):
            value = getattr(ours, field.name)
            if field.name == "num_classes":  # the data's, no choice
                continue
            if field.name in always or value != getattr(theirs, field.name):
                chosen[field.name] = value if isinstance(value, (bool, int, float)) else printable(value)
    return chosen
