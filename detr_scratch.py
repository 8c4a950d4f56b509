"""detr_scratch: the whole detector on one page.

    preset ─▶ model ─▶ data ─▶ fit ─▶ AP

    python detr_scratch.py                           train on generated shapes: detr_141m_fast with CUDA, or tiny
    python detr_scratch.py train --data DIR          train on a folder of any layout: COCO, YOLO, VOC …
    python detr_scratch.py finetune --data DIR       the same, from the published weights (or --weights FILE)
    python detr_scratch.py download coco-subset|coco COCO 2017, or a small part of it: ten classes (or bccd: cells)
    python detr_scratch.py compare --data D --out O  ours, torch.nn, fine-tuned: same budget, one table and chart
    python detr_scratch.py export RUN                ONNX, for where there is no PyTorch
    python detr_scratch.py convert RUN --out FILE    weights for the official code, for transformers, as safetensors
    python detr_scratch.py eval RUN [--data DIR]     COCO AP of a trained detector (RUN: its folder or a checkpoint)
    python detr_scratch.py eval detr_r50 --data DIR  COCO AP of the published one
    python detr_scratch.py analyze RUN [RUN …]       where detectors err and what it costs: report.md, report.html
    python detr_scratch.py charts --out DIR          what happens in every layer over some batches, as charts
    python detr_scratch.py sweep --space … --out DIR good settings, searched by Optuna; resumable, several at a time
    python detr_scratch.py lr-range --out DIR        how high a learning rate may be
    python detr_scratch.py predict SOURCE            boxes drawn on pictures or a video, and as COCO JSON
    python detr_scratch.py explain IMAGE             what it looks at: attention, boxes layer by layer
    python detr_scratch.py info [--preset NAME]      parameters by part, and the primitives that one step is made of
    python detr_scratch.py check-data DIR            every problem of a data set, before it costs a night
    python detr_scratch.py split DIR                 a set without a split: write down which pictures judge
    python detr_scratch.py convert-data DIR --out D  the set in COCO's form

Every command has --help; --plain runs it on the notes of the spine alone, train --ops FOLDER on the operations that you
wrote (python -m exercises). On several GPUs: torchrun --nproc-per-node 8 detr_scratch.py train …
Read: train (the story) → judge; the flags, and the other commands, are in commands/
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Optional, Sequence

import torch

from commands.analyze import draw_mistakes
from commands.command_line import OTHER_COMMANDS, run_command
from commands.finetune import begin_with
from commands.opening import (
    make_criterion, make_model, open_split, parameter_count, prepare_data, record_division, resolve_device)
from commands.sheets import draw_samples, draw_sheet, shown_from
from commands.train_arguments import TrainArguments, claimed, parse_finetune, parse_train
from scratch.analysis.run_summary import summarise_log
from scratch.config import TrainConfig
from scratch.data.check import check_dataset
from scratch.data.coco import CocoDetection
from scratch.data.loader import make_loader
from scratch.data.transforms import Augmentation
from scratch.evaluation.coco_eval import CocoEvaluator
from scratch.evaluation.evaluate import evaluate
from scratch.evaluation.health import QueryHealth, diagnose, follows_pictures
from scratch.evaluation.hints import Trained, why_nothing_is_found
from scratch.evaluation.matching import Results, Truth
from scratch.evaluation.summary import format_summary, three_decimals
from scratch.model.beyond.compiled import compile_model, compiler_missing
from scratch.printable import command, counted, printable
from scratch.training.checkpoint import latest_checkpoint
from scratch.training.cuda_graph import GraphedModel, no_graph
from scratch.training.distributed import Distributed
from scratch.training.heap import keep_freed_memory
from scratch.training.log import RunLog
from scratch.training.loop import fit
from scratch.training.precision import Precision
from scratch.training.progressive import side_at
from scratch.training.run import Run
from scratch.training.step_memory import say_what_fits
from scratch.whole_file import write_json


def train(arguments: TrainArguments) -> None:
    """From a configuration to a trained, evaluated detector, in a folder of its own."""
    distributed = Distributed.from_environment(resolve_device(arguments.device))
    with claimed(arguments, distributed) as run_dir:
        train_in(run_dir, arguments, distributed)


def train_in(run_dir: Path, arguments: TrainArguments, distributed: Distributed) -> None:
    config, say = arguments.config, partial(print, flush=True) if distributed.is_main else lambda *_: None

    if arguments.cuda_graph and (reason := no_graph(config.model, distributed.device, distributed.world_size)):
        raise ValueError(f"got --cuda-graph, which cannot be used here ({reason}): leave it out")

    # What is there, what is wrong with it, and what it is called.
    data = config.data
    layout = prepare_data(data, distributed, config.model)
    splits = ("train", data.eval_split)
    look = partial(check_dataset, data, config.most_found, decode=False, only=splits, need=splits, layout=layout)
    report = distributed.gather([look()] if distributed.is_main else [])[0]  # one rank looks for all
    if report.problems:
        say(report.table())
    report.refuse()
    train_set = open_split(data, "train", Augmentation.for_training(data), config.train.seed, None, report.left_out,
                           layout)
    classes = train_set.classes
    eval_set = open_split(data, data.eval_split, Augmentation.for_evaluation(data), config.train.seed, classes,
                          report.left_out, layout)
    if distributed.is_main:
        record_division(run_dir, layout, {"train": train_set, data.eval_split: eval_set})
    share = dict(workers=data.workers, seed=config.train.seed, device_type=distributed.device.type,
                 rank=distributed.rank, world_size=distributed.world_size)
    loader, sampler = make_loader(train_set, config.train.batch_size, train=True, **share)
    eval_loader, _ = make_loader(eval_set, config.train.batch_size, train=False, **share)

    # The network, the objective, and all that changes while it learns.
    torch.manual_seed(config.train.seed)  # every rank draws the same weights
    config = replace(config, model=replace(config.model, num_classes=len(classes.ids)))
    model = make_model(config).to(distributed.device)
    if arguments.compiled:
        if reason := compiler_missing(distributed.device):
            raise ValueError(f"got --compile{'-whole' * arguments.compile_whole}, which cannot be used here ({reason}): "
                             "leave it out")
        compile_model(model, arguments.compiled)
    if arguments.weights:
        say(begin_with(model, arguments.weights, distributed, classes))
    if distributed.is_main and not arguments.resume:
        say(draw_samples(run_dir / "pictures" / "augmented.png", train_set, sampler))
    if distributed.device.type == "cuda" and distributed.is_main and not arguments.compiled:  # before the clock runs
        precision = Precision(config.train.precision, distributed.device).name
        say_what_fits(partial(make_model, config), config, precision, distributed.device, say)
    run = Run(model, make_criterion(config), config, classes.to_dict(), run_dir, distributed)
    if arguments.cuda_graph:
        run.model = GraphedModel(run.model, say)
    torch.manual_seed(config.train.seed + distributed.rank)  # but drops out its own activations
    own = ("--ops", arguments.ops) if arguments.ops else ()
    to_go_on = command("python", "detr_scratch.py", "train", "--resume", "--run-dir", run_dir, *own)
    run.goes_on_by = f"to go on: {to_go_on}"
    if arguments.resume:
        run.resume(latest_checkpoint(run_dir))
    there = printable(run_dir)
    beginning = f"resuming {there} at step {run.step}" if arguments.resume else f"writing to {there}"
    say(f"{config.preset}: {parameter_count(model)} on {distributed.device} in {run.precision.name}; "
        f"{len(train_set):,} training and {counted(len(eval_set), f'{data.eval_split} image')}, "
        f"{counted(len(classes.ids), 'class', 'classes')}\n"
        f"{beginning}, for {budget(config.train)}")
    begun = arguments.resume or arguments.weights
    if not begun and (config.model.norm == "frozen_batch" or config.train.train_backbone != "all"):
        say(f"note: {config.preset} is meant to start from trained weights; frozen at random ones, a backbone sees "
            "little. From nothing: --norm batch --train-backbone all --lr-backbone 1e-4")

    # Fit, and say what came of it.
    log = RunLog(run_dir, run.step, run.evaluation_due, distributed.is_main, arguments.tensorboard)
    log.board.config(config)
    log.board.watch(run, arguments.histograms_every)
    try:
        finished = fit(run, loader, sampler, log, partial(judge, eval_set=eval_set, loader=eval_loader, log=log,
                                                        train_set=train_set), arguments.profile)
        if finished and (summary := summarise_log(run_dir)):
            best = summary["best"]  # one evaluation, that of best.pt; None where there was nothing to find
            names = {"best AP": "AP", "AP50 at best AP": "AP50", "AP75 at best AP": "AP75"}
            log.board.result(config, {name: best[figure] for name, figure in names.items()
                                      if best[figure] is not None}, run.step)
    finally:
        log.close()
        run.model = run.unwrapped
        distributed.close()
    if not finished:
        say(f"stopped at step {run.step} with everything saved; to go on: {to_go_on}")
        return
    if arguments.resume and run.step == log.first_step:
        longer = "--patience (0: none)" if run.ended_early() else "--epochs, --max-steps or --max-minutes"
        say(f"this run was already at its end; a larger {longer} takes it further")
    say(f"\n{ending_of(run)}{counted(run.step, 'step')} in {run.minutes:.1f} minutes, {data.eval_split} split:\n"
        f"{format_summary(run.last_metrics)}\n"
        f"({best_of(run)})\n\nLook next at\n"
        f"  {there}{os.sep}pictures: predictions beside the truth, a sheet for each evaluation; what mistakes cost\n"
        f"  {there}{os.sep}log.jsonl: losses, rates and speed of each step (tensorboard --logdir runs shows them)\n"
        f"  python detr_scratch.py predict IMAGE|DIR {command('--checkpoint', run_dir, '--out', 'predictions')}\n"
        f"  {command('python', 'detr_scratch.py', 'analyze', run_dir)}")


def best_of(run: Run) -> str:
    """Which evaluation best.pt is of, in words."""
    if run.last_metrics["AP"] is None:
        return f"the {run.config.data.eval_split} split has no box to find, so no evaluation is better than another"
    return f"the best evaluation had AP {run.best_ap:.3f}, and its weights are in best.pt"


def ending_of(run: Run) -> str:
    """Why the run ended before its budget was spent, in a line; "" if it did not."""
    if not run.ended_early():
        return ""
    best = run.course.best()
    return (f"ended by --patience {run.config.train.patience}: as many evaluations in a row had no better AP than "
            f"{best.ap:.3f}, that of step {best.step:,} (best.pt)\n")


def budget(train: TrainConfig) -> str:
    """What ends the run, in words."""
    bounds = [counted(train.epochs, "epoch")]
    bounds += [counted(train.max_steps, "step")] if train.max_steps is not None else []
    bounds += [f"{train.max_minutes:g} minutes"] if train.max_minutes is not None else []
    bounds += [f"{train.patience:,} evaluations without a better AP"] if train.patience else []
    return " or ".join(bounds) + (", whichever comes first" if len(bounds) > 1 else "")


def judge(run: Run, eval_set: CocoDetection, loader: Any, log: RunLog, train_set: CocoDetection) -> dict[str, Any]:
    """Evaluate the run's weights (or their running average); draw predictions beside the truth; print warnings."""
    health, truth = QueryHealth(run.last_matching), eval_set.ground_truth()
    evaluator = CocoEvaluator(truth, eval_set.classes.ids, eval_set.classes.names, run.config.data.max_dets)
    with run.judged_weights():
        run.distributed.share_buffers(run.unwrapped)
        metrics, results = evaluate(run.unwrapped, loader, run.criterion, evaluator, run.device, run.precision.autocast,
                                    gather=run.distributed.gather, progress=run.distributed.is_main, health=health,
                                    shown=run.as_shown)
    run.last_matching = health.matching()
    metrics |= {"warnings": diagnose(metrics["health"], metrics["AP50"], run.progress())
                            + advice(run, metrics, truth, results, train_set),
                "split": run.config.data.eval_split, "clip_max_norm": run.config.train.clip_max_norm,
                "threshold": shown_from(truth, results, evaluator.max_dets)}
    if run.distributed.is_main:
        sheet = run.directory / "pictures" / f"step_{run.step:06d}.png"
        draw_sheet(sheet, eval_set, [image["id"] for image in truth["images"][:8]], results, metrics["threshold"])
        log.board.picture("predictions", sheet, run.step)
        if (metrics["AP"] or 0.0) > run.best_ap:  # beside the weights that will be best.pt
            detections = {"split": metrics["split"], "step": run.step, "results": results}
            write_json(run.directory / "best_detections.json", detections)
        if run.ends_with(metrics["AP"]):
            drawn = draw_mistakes(eval_set, results, sheet.parent, evaluator.max_dets)
            for name, picture in drawn.items():
                log.board.picture(f"mistakes/{name}", picture, run.step)
        side = side_at(run.config.data.short_side, run.share)
        size = f"at {side} of {run.config.data.short_side} pixels  " if run.share < 1 else ""
        log.say(f"step {run.step}, epoch {run.epoch}, {run.minutes:.1f} min:  AP {three_decimals(metrics['AP'])}  "
                f"AP50 {three_decimals(metrics['AP50'])}  AP75 {three_decimals(metrics['AP75'])}  "
                f"loss {metrics['losses']['loss']:.2f}  {size}{sheet}")
        for warning in metrics["warnings"]:
            log.say(f"warning: {warning}")
    return metrics


def advice(run: Run, metrics: dict[str, Any], truth: Truth, results: Results, train_set: CocoDetection) -> list[str]:
    """That the run overfits, or why nothing is found: each once in a run, and the latter again at its end."""
    labels = Counter(train_set.annotations.labels[~train_set.annotations.crowd].tolist())
    course = run.course.judged(run.step, metrics["AP"])
    hint = why_nothing_is_found(truth, results, metrics["AP50"], Trained.of(run, labels, metrics["losses"].get("loss")),
                                follows_pictures(metrics["health"]))
    texts = {"overfitting": course.overfitting(), **({hint.name: hint.text} if hint else {})}
    again = hint.name if hint and run.ends_with(metrics["AP"]) else None
    new = [name for name, text in texts.items() if text and (name not in course.said or name == again)]
    run.course = run.course.noted(*new)
    return [texts[name] for name in new]


COMMANDS = {"train": (parse_train, train), "finetune": (parse_finetune, train), **OTHER_COMMANDS}


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the command that is named on the command line, or else in `argv`; without a name it is `train`."""
    run_command(COMMANDS, sys.argv[1:] if argv is None else argv, __doc__)


if __name__ == "__main__":
    keep_freed_memory()  # a matter of the whole process, and so of the program alone
    main()
