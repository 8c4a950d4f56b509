"""compare: from scratch, with torch.nn, from trained weights: what does each way cost, and which AP does it reach?

    python detr_scratch.py compare --data DIR --out FOLDER                     ten minutes each
    python detr_scratch.py compare --data DIR --out FOLDER --weights detr_r50  and from weights
    python detr_scratch.py compare --out FOLDER --max-steps 400                equal steps

    FOLDER/ours, torch_nn, fine_tuned ─▶ comparison.json ─▶ comparison.md, comparison.png
    50 steps of the first two side by side, in float64 and float32 ──┘

The network is DETR as published (others are refused), small on a CPU, detr_141m on a GPU,
that of the weights if they are named; from nothing, its backbone is trained whole and with a batch
norm that learns. Each way is an ordinary run in a process of its own, so that its peak memory is
its own, and a crash takes no other along. Stopped or killed, the same command goes on; with
--weights given later, only what is missing is trained, if the network is the same (--preset
detr_r50 from the start).
Read: CompareArguments → compare → one_run (one way) → agreement (step by step)
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterator, Literal, Optional, Sequence

import tyro

from commands.children import Children, Terminated, as_flags, error_in, stops_on_termination
from commands.compare.agreement import agreement
from commands.compare.one_run import RESULT, Approach, train
from commands.finetune import config_for, frozen_norm, recipe
from commands.flags import flags_given, parse, preset_config
from commands.opening import resolve_device
from scratch.analysis.comparison import LABELS, agreement_in_words, table, write
from scratch.analysis.records import believed, read_record
from scratch.analysis.run_summary import changed_fields
from scratch.config import PRESETS, Config
from scratch.model.build import build_detr
from scratch.only_one import only_one
from scratch.printable import counted, printable
from scratch.ranges import Range, refuse_senseless
from scratch.training.checkpoint import LAST, PREVIOUS
from scratch.weights.reading import adapt, find_weights, read_weights
from scratch.whole_file import write_json

MINUTES = 10.0  # for each way, unless --max-steps or another --max-minutes is given
AGREEMENT = "agreement.json"
POLL = 0.5  # seconds between two looks at what a run has printed


@dataclass(frozen=True)
class CompareArguments:
    """Train one network in three ways on the same data, for the same time or the same steps, and compare them."""

    config: Config
    out: Path
    """folder for the runs and for what came of them; the same command goes on there"""
    weights: Optional[str] = None
    """what the third way starts from: a name (detr_r50, resnet50 …) or a file; None: it is left out"""
    finetune_lr: float = 1e-4
    """the third way's learning rate of transformer and heads"""
    finetune_lr_backbone: float = 1e-5
    """the third way's learning rate of the backbone, where it learns at all"""
    finetune_backbone: Literal["all", "stages_2_to_4", "none"] = "none"
    """which of the backbone's weights the third way trains; its norms are frozen"""
    agreement_steps: int = 50
    """steps that ours and torch.nn take side by side, to see how far they are apart; 0: none"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    approach: Optional[Approach] = None
    """train this way alone, in this process, and compare nothing"""

    def __post_init__(self) -> None:
        rate = Range(0, 1000)
        refuse_senseless(self, finetune_lr=rate, finetune_lr_backbone=rate, agreement_steps=Range(0, 10**6))


def parse_compare(argv: Sequence[str]) -> CompareArguments:
    """The preset's configuration as it is compared, changed by the flags."""
    given = flags_given(argv, "preset", "device", "weights", "max-steps")
    default = default_config(given.preset, resolve_device(given.device or "auto", float64=True), given.weights)
    if given.max_steps not in (None, "None"):
        default = replace(default, train=replace(default.train, max_minutes=None))
    return parse(CompareArguments, CompareArguments(default, tyro.MISSING), "compare", argv)


def default_config(preset: Optional[str], device: str, weights: Optional[str]) -> Config:
    """A published preset, or the network of the weights, for `MINUTES`; its backbone can learn from nothing."""
    vanilla = "detr_141m" if device.startswith("cuda") else "tiny_vanilla"
    config = preset_config(preset or vanilla)
    if weights and not preset and (asked := config_for(weights)):
        # Their network, trained as its preset is, but by the batches that weights are fine-tuned with.
        batch = recipe(asked).train
        train = replace(PRESETS[asked.preset].train, batch_size=batch.batch_size, accumulate=batch.accumulate)
        config = replace(asked, train=train)
    train = replace(config.train, max_minutes=MINUTES)
    if config.model.norm == "frozen_batch":
        train = replace(train, train_backbone="all", lr_backbone=config.train.lr)
        config = replace(config, model=replace(config.model, norm="batch"))
    return replace(config, train=train)


def config_of(approach: Approach, arguments: CompareArguments) -> Config:
    """What one way is trained with; the third one's norms and rates suit weights that are good already."""
    config = arguments.config
    if approach != "fine_tuned":
        return config
    return replace(frozen_norm(config),
                   train=replace(config.train, lr=arguments.finetune_lr, lr_backbone=arguments.finetune_lr_backbone,
                                 train_backbone=arguments.finetune_backbone))


def compare(arguments: CompareArguments) -> None:
    """Train what is missing, compare step by step, and write the table and the chart after each."""
    refuse(arguments)
    if arguments.approach:
        with only_one(arguments.out / arguments.approach):
            directory = prepared(arguments.approach, arguments)
            weights = arguments.weights if arguments.approach == "fine_tuned" else None
            train(arguments.approach, config_of(arguments.approach, arguments), weights, directory, arguments.device)
        return
    with only_one(arguments.out):
        compare_all(arguments)


def compare_all(arguments: CompareArguments) -> None:
    """Each way in a process of its own, one after the other, and the comparison after each."""
    wanted = [name for name in LABELS if name != "fine_tuned" or arguments.weights]
    if not arguments.weights:
        print("the fine-tuned detector is left out: there are no --weights (a name, as detr_r50, or a file) to start "
              "it from")
    if arguments.weights:  # what does not fit must not be found out after the first two
        adapt(build_detr(config_of("fine_tuned", arguments).model), read_weights(find_weights(arguments.weights)))
    for approach in wanted:
        prepared(approach, arguments)
    for approach in wanted:
        if not (arguments.out / approach / RESULT).exists():
            print(f"\n{LABELS[approach]}, {budget(arguments.config)}:", flush=True)
            run_child(approach, arguments)
            written(arguments)
    compare_steps(arguments)
    results = written(arguments)
    print("", *table(results["approaches"]), "", *agreement_in_words(results["agreement"]),
          printable(arguments.out / "comparison.md"), sep="\n")


def refuse(arguments: CompareArguments) -> None:
    """Raise ValueError for what cannot be compared."""
    model, train = arguments.config.model, arguments.config.train
    if (model.queries, model.classification, model.groups, train.optimizer) != ("learned", "softmax", 1, "adamw"):
        published = ", ".join(name for name, config in PRESETS.items() if config.model.queries == "learned")
        raise ValueError(f"got preset {arguments.config.preset} with queries={model.queries}, "
                         f"classification={model.classification}, groups={model.groups}, optimizer={train.optimizer}; "
                         "torch.nn's side is DETR as published, with learned queries, softmax, one group and adamw: "
                         f"take --preset {published}")
    if arguments.approach == "fine_tuned" and not arguments.weights:
        raise ValueError("got --approach fine_tuned without --weights; wanted a name (detr_r50) or a file")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("got several processes; compare trains on one device: start it without torchrun")


def prepared(approach: Approach, arguments: CompareArguments) -> Path:
    """The folder of one way, with its plan. ValueError if it holds what was begun by another one."""
    directory, config = arguments.out / approach, config_of(approach, arguments).to_dict()
    plan = {"config": config, "weights": arguments.weights if approach == "fine_tuned" else None}
    path = directory / "plan.json"
    if path.exists() and any((directory / name).exists() for name in (RESULT, LAST, PREVIOUS)):
        begun = read_json(path)
        with believed(path, "detr_scratch.py compare"):
            changed = [f"{name} = {before}, not {now}" for name, before, now in changed_fields(config, begun["config"])]
            if begun["weights"] != plan["weights"]:
                changed.append(f"weights = {begun['weights']}, not {plan['weights']}")
        if changed:
            raise ValueError(f"{directory} was begun with {'; '.join(changed)}: give the flags that it was begun with, "
                             "or name another --out")
    else:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)
    return directory


def budget(config: Config) -> str:
    train = config.train
    ends = [counted(train.max_minutes, "minute")] if train.max_minutes is not None else []
    ends += [counted(train.max_steps, "step")] if train.max_steps is not None else []
    return " or ".join(ends or [counted(train.epochs, "epoch")])


def words_of(approach: Approach, arguments: CompareArguments) -> list[str]:
    """The command line's words that train one way alone, with this configuration."""
    config = arguments.config
    default = default_config(config.preset, "cpu", None)
    changed = {name: now for name, _, now in changed_fields(config.to_dict(), default.to_dict())}
    if changed.get("max_steps") is not None:  # it takes the minutes' default away
        changed["max_minutes"] = config.train.max_minutes
    own = {name: getattr(arguments, name) for name in ("out", "device", "finetune_lr", "finetune_lr_backbone",
                                                       "finetune_backbone")}
    own |= {"weights": arguments.weights} if arguments.weights else {}
    return ["compare", "--preset", config.preset, *as_flags({**changed, **own, "approach": approach})]


def run_child(approach: Approach, arguments: CompareArguments) -> None:
    """Train one way in a process of its own, and show what it prints. ValueError if it failed."""
    directory, children = arguments.out / approach, Children(None)
    output = directory / "output.txt"
    output.touch()
    with ThreadPoolExecutor(1) as pool, _stopping(children), open(output, encoding="utf-8", errors="replace") as shown:
        begins = shown.seek(0, os.SEEK_END)
        child = pool.submit(children.run, words_of(approach, arguments), output)
        while not child.done():
            time.sleep(POLL)
            sys.stdout.write(shown.read())
            sys.stdout.flush()
        try:
            went_well = child.result()
        except RuntimeError as error:  # an earlier command was killed, but not its run
            raise ValueError(str(error)) from error
        sys.stdout.write(shown.read())
    if not went_well:
        raise ValueError(f"{LABELS[approach]} failed: {error_in(output, begins)}\n(all of it is in {output})")
    if not (directory / RESULT).exists():
        raise KeyboardInterrupt  # a person stopped the run itself


@contextmanager
def _stopping(children: Children) -> Iterator[None]:
    """Ctrl-C reaches a child by itself, SIGTERM does not; either lets it save before this process ends."""
    try:
        with stops_on_termination():
            yield
    except KeyboardInterrupt as error:
        children.stop(isinstance(error, Terminated))
        raise


def compare_steps(arguments: CompareArguments) -> None:
    """Ours and torch.nn side by side, once; kept in agreement.json with what was asked for."""
    path = arguments.out / AGREEMENT
    asked = {"steps": arguments.agreement_steps, "config": arguments.config.to_dict()}
    kept = read_json(path) or {}
    if not arguments.agreement_steps or {name: kept.get(name) for name in asked} == asked:
        return
    print(f"\nours and torch.nn side by side, {arguments.agreement_steps} steps:", flush=True)
    found = agreement(arguments.config, arguments.agreement_steps, arguments.device)
    write_json(path, {**asked, "found": found})


def written(arguments: CompareArguments) -> dict[str, Any]:
    """Write what is finished; returns it. Raises ValueError for a result that no way wrote."""
    results = summary(arguments)
    with believed(arguments.out / f"({' or '.join(LABELS)})" / RESULT, "detr_scratch.py compare"):
        write(results, arguments.out)
    return results


def summary(arguments: CompareArguments) -> dict[str, Any]:
    """The content of comparison.json: the question, and what is finished."""
    config = arguments.config
    finished = {name: read_json(arguments.out / name / RESULT) for name in LABELS}
    kept = read_json(arguments.out / AGREEMENT) or {}
    missing = [] if finished["fine_tuned"] or arguments.weights else [
        "No fine-tuned detector: there were no `--weights` to start it from."]
    return {"preset": config.preset, "data": Path(config.data.train_images or config.data.data).name,
            "split": config.data.eval_split, "budget": budget(config), "seed": config.train.seed,
            "on_gpu": resolve_device(arguments.device, float64=True).startswith("cuda"), "missing": missing,
            "approaches": [result for result in finished.values() if result],
            "agreement": kept.get("found", {}) if kept.get("config") == config.to_dict() else {}}


def read_json(path: Path) -> Any:
    """What the file holds; None if there is none."""
    return read_record(path, "detr_scratch.py compare") if path.exists() else None
