"""profile: where does the time of a step go, what fills the memory, and what is the bottleneck?

    │ data wait │ backbone │ encoder │ decoder │ heads │ matcher │ losses │ backward │ optimizer │ rest │
    └───────────┴────────────────────────────── one step ─────────────────────────────────────────────┘

After some steps to warm up, names are put around the parts from outside (wrappers around methods)
for three rounds of steps, and then taken away again:

    timed     a mark at every border, the host's clock or an event in the GPU's queue: nothing waits, nothing is slower
    weighed   one step that counts what each part keeps for the backward pass (autograd's saved tensors, each once)
    traced    torch.profiler records every operation of every thread. Slow, and only for the eye

Into the run's folder go profile/*.pt.trace.json (open it in ui.perfetto.dev or chrome://tracing, or
with TensorBoard's profiler plugin) and profile/profile.json (the printed tables as numbers).
Backward is one part, for autograd's thread does not know whose gradient it computes; the trace
shows its operations. A part within a part (the matcher in the losses) counts for itself alone, so
that all parts add up to the step. Proven in tests/training/test_profile.py.
Read: Marks → Profile → table → diagnose
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Callable, Iterator, Optional

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile, record_function

from scratch.training.guards import STARVED
from scratch.training.run import Run
from scratch.whole_file import whole_file, write_json

WARM_UP = 5  # steps before the first round: the very first ones allocate, and start the loader's workers
TIMED = 5    # steps of the first round
TRACED = 2   # of the last one; each is some megabytes of trace
STEPS = WARM_UP + TIMED + 1 + TRACED
# The forward pass by the methods that do it; what a model does not have is left out.
FORWARD = {"backbone": ("backbone.stages",), "encoder": ("input_proj.forward", "transformer.encoder.forward"),
           "proposals": ("proposal_head.forward",), "fine memory": ("fine_memory.forward",),
           "RoI features": ("roi_features.feature_map", "roi_features.forward"),
           "decoder": ("transformer.decoder.forward",), "heads": ("class_embed.forward", "bbox_embed.forward")}
PARTS = ("data wait", *FORWARD, "matcher", "losses", "backward", "optimizer", "rest")


class Marks:
    """Who had the device, and for how long: a part's time is that between its marks, less that of the parts in it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.open = ["rest"]
        self.marks: list[tuple[str, Any]] = []  # from here on, this part

    def _mark(self) -> None:
        if self.device.type == "mps":  # a Mac's GPU has no events that the profile could use: wait for it
            torch.mps.synchronize()
        now = torch.cuda.Event(enable_timing=True) if self.device.type == "cuda" else time.perf_counter()
        if self.device.type == "cuda":
            now.record()
        self.marks.append((self.open[-1], now))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.open.append(name)
        self._mark()
        try:
            yield
        finally:
            self.open.pop()
            self._mark()

    def seconds(self) -> dict[str, float]:
        """The time of each part since the last call, in seconds; waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        times: dict[str, float] = defaultdict(float)
        for (name, start), (_, end) in zip(self.marks, self.marks[1:]):
            times[name] += start.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - start
        self.marks = []
        return dict(times)


class Profile:
    """Watches TIMED steps of a run, one weighed and TRACED traced ones; switched off, it does nothing."""

    def __init__(self, run: Run, on: bool = False) -> None:
        self.run, self.on = run, on
        self.steps = 0
        self.marks = Marks(run.device)
        self.timed: list[dict[str, float]] = []
        self.kept: dict[str, int] = defaultdict(int)
        self.weighed = {weight.data_ptr() for weight in run.unwrapped.parameters()}  # there anyway: not counted
        self.tracer: Optional[profile] = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around one step of training."""
        at = self.steps - WARM_UP
        self.steps += 1
        if not self.on or not 0 <= at <= TIMED + TRACED:
            yield
        elif at < TIMED:
            with named_parts(self.run, self.marks.part), self.marks.part("rest"):
                yield
        elif at == TIMED:
            with named_parts(self.run, self._weigh):
                yield
        else:
            if self.tracer is None:
                self.tracer = start_tracer(self.run)
            with named_parts(self.run, record_function):
                yield

    def _weigh(self, name: str) -> saved_tensors_hooks:
        """Counts the bytes that autograd saves within a part and no part before it."""
        def pack(saved: Tensor) -> Tensor:
            storage = saved.untyped_storage()
            if storage.data_ptr() not in self.weighed:
                self.weighed.add(storage.data_ptr())
                self.kept[name] += storage.nbytes()
            return saved

        return saved_tensors_hooks(pack, lambda saved: saved)

    def note(self, record: dict[str, Any]) -> str:
        """Take in a step's log record; after the last step of all, return what to print, otherwise ""."""
        if self.marks.marks:
            self.timed.append(self.marks.seconds() | {"data wait": record["data_wait_seconds"]})
        if not self.on or self.steps < STEPS:
            return ""
        self.close()
        times = {part: median(step.get(part, 0.0) for step in self.timed) for part in PARTS}
        result = {"device": str(self.run.device), "precision": self.run.precision.name, "steps": TIMED,
                  "seconds": {part: t for part, t in times.items() if t or part == "data wait"},
                  "kept_for_backward": dict(self.kept), "memory": memory_of(self.run), "peak_gib": record["memory_gib"]}
        folder = self.run.directory / "profile"
        write_json(folder / "profile.json", result)
        return (f"{table(result)}\n{diagnose(result['seconds'], self.run.config.data.workers)}\n"
                f"every operation: {folder}/*.pt.trace.json, for ui.perfetto.dev")

    def close(self) -> str:
        """Write the trace of the steps that there were, watch no more; returns what to print if a table is missing."""
        missing, self.on = self.on, False
        if self.tracer is not None:
            self.tracer.stop()
            self.tracer = None
        return f"no table from --profile: that takes {STEPS} steps, and {self.steps} were done" if missing else ""


def start_tracer(run: Run) -> profile:
    folder = run.directory / "profile"
    folder.mkdir(exist_ok=True)

    def write(tracer: profile) -> None:
        name = f"{socket.gethostname()}_{os.getpid()}.{time.time_ns()}.pt.trace.json"  # as TensorBoard wants it
        with whole_file(folder / name) as partial:
            tracer.export_chrome_trace(str(partial))
            if not _is_whole(partial):  # the profiler's own writer says nothing of a full disk
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if run.device.type == "cuda" else [])]
    tracer = profile(activities=activities, on_trace_ready=write)
    tracer.start()
    return tracer


def _is_whole(trace: Path) -> bool:
    """Does the file end as a JSON object does?"""
    with open(trace, "rb") as file:
        file.seek(max(0, os.path.getsize(trace) - 64))
        return file.read().rstrip().endswith(b"}")


@contextmanager
def named_parts(run: Run, part: Callable[[str], Any]) -> Iterator[None]:
    """While it lasts, each part of a step runs within `part(name)`."""
    criterion, precision = run.criterion, run.precision
    methods = [(run.unwrapped, path, name) for name, paths in FORWARD.items() for path in paths]
    methods += [(criterion, "matching", "matcher"), (precision, "backward", "backward"),
                (precision, "step", "optimizer")]
    with ExitStack() as undo:
        for owner, path, name in methods:
            *inner, method = path.split(".")
            for attribute in inner:
                owner = getattr(owner, attribute, None)
            if owner is not None:
                setattr(owner, method, within(part, name, getattr(owner, method)))  # hides the class's method
                undo.callback(vars(owner).pop, method)
        run.criterion = _Criterion(criterion, within(part, "losses", criterion))
        undo.callback(setattr, run, "criterion", criterion)
        yield


class _Criterion:
    """A criterion whose call is another one; all the rest is its own."""

    def __init__(self, criterion: Any, call: Callable) -> None:
        self._criterion, self._call = criterion, call

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._call(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._criterion, name)


def within(part: Callable[[str], Any], name: str, function: Callable) -> Callable:
    def named(*arguments: Any, **options: Any) -> Any:
        with part(name):
            return function(*arguments, **options)
    return named


def memory_of(run: Run) -> dict[str, int]:
    """Bytes of what stays from step to step, and of the gradients, one number for each trained weight."""
    moments = [value for state in run.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    kinds = {"weights": run.unwrapped.parameters(), "gradients": run.parameters, "moments": moments,
             "running average": run.ema.shadow.values() if run.ema else ()}
    return {kind: sum(tensor.nbytes for tensor in tensors) for kind, tensors in kinds.items()}


def table(result: dict[str, Any]) -> str:
    """The measured step as text: a line for each part, and then the memory."""
    seconds, kept = result["seconds"], result["kept_for_backward"]
    in_all = sum(seconds.values())
    lines = [f"one step on {result['device']} in {result['precision']}: {1000 * in_all:.1f} ms (medians of "
             f"{result['steps']})", f"  {'part':12}{'ms':>10}{'share':>8}{'kept for backward':>20}"]
    for part in PARTS:
        if part in seconds:
            lines.append(f"  {part:12}{1000 * seconds[part]:>10.1f}{seconds[part] / in_all:>8.1%}"
                         + (f"{kept[part] / 2**20:>16.1f} MiB" if kept.get(part) else ""))
    stays = [f"{name} {size / 2**20:.1f} MiB" for name, size in result["memory"].items() if size]
    lines.append("memory: " + ", ".join(stays) + f"; the most used so far: {result['peak_gib']:.2f} GiB")
    return "\n".join(lines)


def diagnose(seconds: dict[str, float], workers: int) -> str:
    """What to do about the largest part, in a sentence."""
    in_all = sum(seconds.values())
    share = {part: t / in_all for part, t in seconds.items()}
    largest = max((part for part in share if part not in ("backward", "rest")), key=share.__getitem__)
    if share["data wait"] > STARVED:
        return (f"the loader is the bottleneck: {share['data wait']:.0%} of a step goes by waiting for images; raise "
                f"--workers (now {workers}), or store the images at about the size that they are trained in")
    if share.get("rest", 0) > 0.25:
        return (f"the host is the bottleneck: for {share['rest']:.0%} of a step no part runs; a larger --batch-size "
                "gives the device more to do at a time")
    if share.get("matcher", 0) + share.get("losses", 0) > 0.2:
        return (f"matching and losses take {share.get('matcher', 0) + share.get('losses', 0):.0%} of a step: fewer "
                "--num-queries, or --no-aux-loss, would pay")
    if share.get("optimizer", 0) > 0.2:
        return (f"the optimizer takes {share['optimizer']:.0%} of a step, the same for every batch size: a larger "
                "--batch-size or --accumulate spreads it over more images")
    advice = {"backbone": "a smaller --short-side or --backbone", "encoder": "a smaller --short-side, or fewer "
              "--enc-layers", "decoder": "fewer --dec-layers or --num-queries"}.get(largest, "a smaller model")
    return (f"nothing stands in the way: the device computes. Of the forward pass the {largest} takes most "
            f"({share[largest]:.0%} of the step, and a like share of the backward pass); {advice} would save it")
