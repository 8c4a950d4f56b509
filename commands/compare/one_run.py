"""one_run: how do three detectors learn by one and the same training loop?

    approach      model                           criterion              optimizer
    ours          Detr, from nothing              SetCriterion           AdamW (this project's)
    torch_nn      ReferenceDetr, from the very    ReferenceCriterion,    torch.optim.AdamW, fused
                  weights that `ours` begins at   SciPy's assignment
    fine_tuned    Detr, from trained weights      SetCriterion           AdamW

Everything else is shared: the order of the images and each one's augmentation (they follow from
seed, epoch and index alone), the schedule, clipping, `train_step`, `fit`, the checkpoints and the
evaluation, which has our criterion for all three. A state dict of `torch_nn` is one of ours, so that
its best.pt can be evaluated, analysed and predicted with like any other.
Read: TorchNN, TorchNNCriterion, TorchNNRun (what fits the reference to the loop) → begin → train
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, Optional

import torch
from torch import Tensor

from commands.opening import make_criterion, open_split, parameter_count, prepare_data, resolve_device
from commands.sheets import draw_sheet, shown_from
from reference import ReferenceCriterion, ReferenceDetr
from scratch.analysis.learning_curve import read_run
from scratch.analysis.run_log import read_log
from scratch.whole_file import write_json
from scratch.config import Config
from scratch.data.check import check_dataset
from scratch.data.classes import Classes
from scratch.data.coco import CocoDetection
from scratch.data.loader import make_loader
from scratch.data.transforms import Augmentation
from scratch.evaluation.coco_eval import CocoEvaluator
from scratch.evaluation.evaluate import evaluate
from scratch.evaluation.health import QueryHealth
from scratch.evaluation.summary import three_decimals
from scratch.model.build import build_detr
from scratch.model.detr import freeze_backbone
from scratch.training.checkpoint import latest_checkpoint
from scratch.training.distributed import Distributed
from scratch.training.log import RunLog
from scratch.training.loop import fit
from scratch.training.optimizer import parameter_groups
from scratch.training.peak_memory import peak_memory_gib, resident_peak_gib
from scratch.training.run import Run
from scratch.training.schedule import Schedule
from scratch.weights.reading import adapt, find_weights, read_weights

Approach = Literal["ours", "torch_nn", "fine_tuned"]
RESULT = "result.json"


# -- what fits the reference to the training loop ------------------------------------------------------------------


class TorchNN(ReferenceDetr):
    """The reference as the loop calls it: with the targets, which its learnt queries have no use for."""

    def forward(self, images: Tensor, pad_mask: Tensor, targets: Optional[list[dict[str, Any]]] = None) -> dict:
        return super().forward(images, pad_mask)


class TorchNNCriterion(ReferenceCriterion):
    """The reference's losses, divided by what `normalisers` says; it divides by what its own batch holds.

    For a batch that is a step of its own the two are one number, and the factors exactly 1.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config.model.num_classes, config.loss)
        self.normalisers = make_criterion(config).normalisers
        # In float32, 0.1 is off by 1.5e-9: more than the two may differ by in float64. Cast to the logits' dtype later.
        self.class_weight = torch.tensor([1.0] * config.model.num_classes + [config.loss.eos_coef], dtype=torch.float64)

    def forward(self, outputs: dict[str, Any], targets: list[dict[str, Any]], normalisers: Any = None) -> dict:
        losses = super().forward(outputs, targets)
        if normalisers is None:
            return losses
        own = self.normalisers([targets], outputs["pred_logits"].shape[1], across_ranks=False)
        of_boxes, of_classes = own.num_boxes / normalisers.num_boxes, own.class_weight / normalisers.class_weight
        factors = {"loss_bbox": of_boxes, "loss_giou": of_boxes, "loss_ce": of_classes}
        return {name: value * next((by for loss, by in factors.items() if name.startswith(loss)), 1.0)
                for name, value in losses.items()}

    def total(self, losses: dict[str, Tensor], of: tuple[str, ...] = ("",)) -> Tensor:
        return super().total(losses)  # the reference has no noised boxes and no cells: its queries are all


class TorchNNRun(Run):
    """A run whose weights torch.optim.AdamW steps."""

    def __init__(self, model: TorchNN, criterion: TorchNNCriterion, *rest: Any) -> None:
        super().__init__(model, criterion, *rest)
        self.optimizer = torch.optim.AdamW(parameter_groups(model, self.config.train), fused=True)
        self.schedule = Schedule(self.optimizer, self.config.train)


# -- one approach --------------------------------------------------------------------------------------------------


def begin(approach: Approach, config: Config, classes: Classes, directory: Path, distributed: Distributed,
          weights: Optional[str] = None, dtype: torch.dtype = torch.float32) -> Run:
    """A run at its first step. With one `config`, "ours" and "torch_nn" begin at the same weights, bit for bit.

    Raises ValueError for weights that do not fit, and FileNotFoundError for weights that are not there.
    """
    torch.manual_seed(config.train.seed)
    model = build_detr(config.model)
    if approach == "torch_nn":
        drawn, model = model.state_dict(), TorchNN(config.model)
        model.load_state_dict(drawn)
        model = model.to(memory_format=torch.channels_last)
    freeze_backbone(model, config.train.train_backbone)
    if weights is not None:
        print(adapt(model, read_weights(find_weights(weights)), classes.names).text(), flush=True)
    model = model.to(distributed.device, dtype)
    if approach == "torch_nn":
        criterion = TorchNNCriterion(config).to(distributed.device)
        run = TorchNNRun(model, criterion, config, classes.to_dict(), directory, distributed)
    else:
        run = Run(model, make_criterion(config), config, classes.to_dict(), directory, distributed)
    torch.manual_seed(config.train.seed)  # for dropout, independent of the draws above
    return run


def train(approach: Approach, config: Config, weights: Optional[str], directory: Path, device: str) -> bool:
    """Train one approach in `directory`, from where it was; False if a person stopped it. At its end: result.json."""
    # A convolution of torch.nn's would else round its inputs to 10 bits in "float32", where ours does not.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    distributed, data = Distributed.from_environment(resolve_device(device, float64=True)), config.data
    prepare_data(data, distributed, config.model)
    splits = ("train", data.eval_split)
    report = check_dataset(data, config.most_found, decode=False, only=splits, need=splits)
    report.refuse()
    train_set = open_split(data, "train", Augmentation.for_training(data), config.train.seed, left_out=report.left_out)
    eval_set = open_split(data, data.eval_split, Augmentation.for_evaluation(data), config.train.seed,
                          train_set.classes, report.left_out)
    share = dict(workers=data.workers, seed=config.train.seed, device_type=distributed.device.type)
    loader, sampler = make_loader(train_set, config.train.batch_size, train=True, **share)
    eval_loader, _ = make_loader(eval_set, config.train.batch_size, train=False, **share)
    config = replace(config, model=replace(config.model, num_classes=len(train_set.classes)))

    on_gpu, last = distributed.device.type == "cuda", latest_checkpoint(directory)
    before = 0.0 if on_gpu else resident_peak_gib(forget=True)
    # A resumed run has its weights in its checkpoint.
    run = begin(approach, config, train_set.classes, directory, distributed, None if last else weights)
    if last:
        run.resume(last)
    print(f"{approach}: {parameter_count(run.unwrapped)}, on {distributed.device} in {run.precision.name}, from step "
          f"{run.step}", flush=True)
    log = RunLog(directory, run.step, run.evaluation_due)
    peak = partial(peak_memory_gib, distributed.device) if on_gpu else lambda: resident_peak_gib() - before
    try:
        finished = fit(run, loader, sampler, log, partial(judge, eval_set=eval_set, loader=eval_loader, log=log,
                                                          criterion=make_criterion(config), peak=peak))
    finally:
        log.close()
    if finished:
        result = {"approach": approach, "weights": Path(weights).name if weights else None, **as_result(run),
                  "machine": f"{machine(distributed.device)}, {run.precision.name}"}
        write_json(directory / RESULT, result)
    return finished


def judge(run: Run, eval_set: CocoDetection, loader: Any, log: RunLog, criterion: Any, peak: Any) -> dict[str, Any]:
    """Evaluate the run, of any approach, with our criterion; a sheet of predictions beside the truth at its end."""
    health, truth = QueryHealth(run.last_matching), eval_set.ground_truth()
    evaluator = CocoEvaluator(truth, eval_set.classes.ids, eval_set.classes.names, run.config.data.max_dets)
    with run.judged_weights():
        metrics, results = evaluate(run.unwrapped, loader, criterion, evaluator, run.device, run.precision.autocast,
                                    health=health, shown=run.as_shown)
    run.last_matching = health.matching()
    metrics |= {"split": run.config.data.eval_split, "clip_max_norm": run.config.train.clip_max_norm,
                "threshold": shown_from(truth, results, evaluator.max_dets), "peak_memory_gib": peak()}
    if run.ends_with(metrics["AP"]):
        draw_sheet(run.directory / "predictions.png", eval_set, [image["id"] for image in truth["images"][:8]], results,
                   metrics["threshold"])
    log.say(f"step {run.step}, epoch {run.epoch}, {run.minutes:.1f} min:  AP {three_decimals(metrics['AP'])}  "
            f"AP50 {three_decimals(metrics['AP50'])}  loss {metrics['losses']['loss']:.2f}")
    return metrics


def as_result(run: Run) -> dict[str, Any]:
    """What is kept of a finished run; all of it from its log, so that what came before a resume counts, too."""
    curves, (records, _) = read_run(run.directory), read_log(run.directory)
    seconds = [r["step_seconds"] - r["data_wait_seconds"] for r in records if r["kind"] == "step"
               and None not in (r.get("step_seconds"), r.get("data_wait_seconds"))]
    memory = [r["peak_memory_gib"] for r in records if r.get("peak_memory_gib") is not None]
    judged = {name: curves["evaluation"][name] for name in ("step", "minutes", "loss", "AP", "AP50", "AP75")}
    weights = list(run.unwrapped.parameters())
    return {"steps": run.step, "minutes": curves["train"]["minutes"][-1],
            **{name: judged[name][-1] for name in ("loss", "AP", "AP50", "AP75")},
            "seconds_per_step": median(seconds) if seconds else None,
            "peak_memory_gib": max(memory, default=None),
            "parameters": sum(p.numel() for p in weights), "trained": sum(p.numel() for p in run.parameters),
            "train": {name: curves["train"][name] for name in ("step", "minutes", "loss")}, "evaluation": judged}


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
