"""removal: what breaks if you remove it?

    python -m benchmarks.removal --out FOLDER --run RUN             a trained detector, without training again
    python -m benchmarks.removal --out FOLDER --steps 400           trainings, each without one part
    python -m benchmarks.removal --out FOLDER --redraw              table and chart again, from removal.json

    after training     the same weights are evaluated on val with a part taken out: what do they rely on?
    in training        one ordinary run each, with all but that part: what is it good for? Every --seeds

Trainings begin from one of two settings that learn within the steps: `tiny`, the demo; or, where `tiny` does not have the
part, `softmax`: learnt anchors, one softmax over classes and "no object", a clipped gradient. A stopped command goes on
where it was. What is found is written to removal.json, removal.md and removal.png after each run.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Sequence

import torch
from torch import nn

from benchmarks.trials import Trial, conclude, configuration, epochs_between, markdown, run_all, spread
from benchmarks.without import removed, zeros_like_its_result
from commands.children import DETECTOR
from commands.opening import make_criterion, open_split, resolve_device
from scratch.analysis.names import literal
from scratch.analysis.records import believed, read_record
from scratch.analysis.removal_chart import draw
from scratch.data.check import check_dataset
from scratch.data.coco import CocoDetection
from scratch.data.loader import make_loader
from scratch.data.transforms import Augmentation
from scratch.detector import Detector, first_layers, load
from scratch.evaluation.coco_eval import CocoEvaluator
from scratch.evaluation.evaluate import evaluate
from scratch.evaluation.summary import three_decimals
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_box_iou
from scratch.printable import command
from scratch.program import ends_in_a_line
from scratch.whole_file import write_json, write_text

MADE_BY = "python -m benchmarks.removal"

# Where `tiny` begins from the encoder's proposals and sigmoids, this one learns its anchors and has one softmax, whose
# "no object" has a weight; and the gradient is clipped as published.
SETTINGS = {"tiny": (), "softmax": (
    "--queries", "anchor", "--classification", "softmax", "--quality", "0", "--denoising", "3", "--groups", "3",
    "--one-to-many", "0",
    "--set-cost-class", "2", "--clip-max-norm", "0.1")}


class Removal(NamedTuple):
    """One row: what is taken out, from which setting, how (flags, or a part of `without`), and why it matters."""

    title: str
    why: str
    setting: str = "tiny"
    flags: tuple[str, ...] = ()
    part: Optional[str] = None


IN_TRAINING = {
    "auxiliary": Removal(
        "auxiliary losses", "Only the last decoder layer has a loss. The layers before it get their gradient through "
        "it alone, and the matching of the last layer has to settle before any layer learns what to predict.",
        flags=("--no-aux-loss",)),
    "greedy": Removal(
        "the Hungarian algorithm", "Each object in turn takes the cheapest query that is left. An object late in the "
        "list may get a query far away although another assignment has a smaller sum; which query is trained on which "
        "object then depends on the order of the file.", part="greedy"),
    "warm-up": Removal(
        "warm-up", "The first steps have the full learning rate, when the gradients are those of random weights.",
        flags=("--warmup-steps", "0")),
    "positions": Removal(
        "positional encodings", "Attention sees a set: it cannot tell where a cell is. What is left of place comes from "
        "the zero padding of the convolutions, and here from the proposals, each of which starts at its own cell.",
        part="positions"),
    "augmentation": Removal(
        "augmentation", "Every epoch shows the same pictures: no flips, no mosaic.",
        flags=("--augment", "none", "--mosaic", "0")),
    "no-object": Removal(
        'the small weight of "no object"', 'Most queries have no object. At a weight of 1 instead of 0.1 they are most '
        'of the class loss, and "no object" everywhere is a good answer for long.', "softmax", ("--eos-coef", "1")),
    "clipping": Removal(
        "gradient clipping", "A single batch with a large gradient may move AdamW's averages, and the weights, far. "
        "(Muon's steps have one length, whatever the gradient.)", "softmax", ("--clip-max-norm", "0")),
}

AFTER_TRAINING = {
    "nothing": ("nothing", ""),
    "positions": ("positional encodings", "Attention no longer knows where a cell is."),
    "self-attention": ("the decoder's self-attention",
                       "The queries no longer know of one another, so two may predict the same object: duplicates."),
    "scale": ("the division by √d", "The scores are √d times as large, so each row of weights is closer to one-hot than in training."),
    "half": ("half of the queries", "The objects that the other half found are missed."),
    "roi-features": ("RoI features", "The box head has learnt with them: it sees each query's vector alone."),
}


# -- after training ---------------------------------------------------------------------------------------------------


def without_self_attention(model: nn.Module) -> nn.Module:
    """The decoder's self-attention adds nothing: what is left of it is the skip connection."""
    for layer in model.transformer.decoder.layers:
        heads = layer.self_attn

        def nothing(query: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
            return torch.zeros_like(query), None

        heads.forward = nothing
    return model


def with_half_the_queries(model: nn.Module) -> nn.Module:
    """The first half of the learnt queries, or as many of the best proposals."""
    half = model.config.num_queries // 2
    model.config = replace(model.config, num_queries=half)
    if hasattr(model, "query_embed"):
        model.query_embed.weight = nn.Parameter(model.query_embed.weight[:half])
    return model


def without_roi_features(model: nn.Module) -> nn.Module:
    """The box heads see each query's vector alone, and not the features around its box."""
    model.roi_features.forward = zeros_like_its_result(model.roi_features.forward)
    return model


CHANGES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "self-attention": without_self_attention, "half": with_half_the_queries, "roi-features": without_roi_features}


def measure_trained(run: Path, device: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """AP and AP50 on val of the detector in `run`: whole, and without each part; and what `matched` finds."""
    config = load(run, device).model.config
    if not config.aux_loss:
        raise ValueError(f"{run} was trained without auxiliary losses, so that its first layers predict nothing; wanted "
                         "a run with them")
    rows = [(name, *words) for name, words in AFTER_TRAINING.items() if name != "roi-features" or config.roi_features]
    rows += [(f"layers-{count}", f"the decoder layers after layer {count}", "Every layer has been trained to predict.")
             for count in range(1, config.dec_layers)]
    found = []
    for name, title, why in rows:
        metrics = evaluated(load(run, device), name, device)
        found.append({"name": name, "title": title, "why": why, "AP": metrics["AP"], "AP50": metrics["AP50"]})
        print(f"without {title}: AP {three_decimals(metrics['AP'])}, AP50 {three_decimals(metrics['AP50'])}", flush=True)
    return found, matched(load(run, device), device)


def evaluated(detector: Detector, name: str, device: str) -> dict[str, Any]:
    """COCO's figures of a detector on its own val split, without the part `name`."""
    if name.startswith("layers-"):
        detector = first_layers(detector, int(name.partition("-")[2]))
    classes, model = detector.classes, CHANGES.get(name, lambda same: same)(detector.model)
    dataset, loader = val_of(detector, device)
    evaluator = CocoEvaluator(dataset.ground_truth(), classes.ids, classes.names, detector.config.data.max_dets)
    with ExitStack() as stack:
        if name in ("positions", "scale"):
            stack.enter_context(removed(name))
        return evaluate(model, loader, None, evaluator, torch.device(device))[0]


def val_of(detector: Detector, device: str) -> tuple[CocoDetection, Any]:
    """The val split that a detector was trained with, and batches of it."""
    config = detector.config
    report = check_dataset(config.data, config.most_found, decode=False, only=("val",), classes=detector.classes,
                           need=("val",))
    dataset = open_split(config.data, "val", Augmentation.for_evaluation(config.data), config.train.seed,
                         detector.classes, report.left_out)
    loader, _ = make_loader(dataset, config.train.batch_size, train=False, workers=config.data.workers,
                            seed=config.train.seed, device_type=torch.device(device).type)
    return dataset, loader


@torch.no_grad()
def matched(detector: Detector, device: str) -> dict[str, Any]:
    """Of the objects of val: how many there are ("number"); how many get the same query by greedy assignment as by the
    Hungarian ("same"); and by the latter, the mean IoU of an object with the boxes of its query, from the box that the
    query starts from to the last layer's ("iou").
    """
    matcher, found, sums = make_criterion(detector.config).matcher, {"number": 0, "same": 0}, {}
    for batch in val_of(detector, device)[1]:
        batch = batch.to(torch.device(device))
        outputs = detector.model(batch.normalised(), batch.pad_mask, need_weights=True)
        layers = [*outputs.get("aux_outputs", ()), outputs]
        boxes = {f"layer {k}": layer["pred_boxes"] for k, layer in enumerate(layers, 1)}
        if "anchors" in outputs["attention"]:
            boxes = {"start": outputs["attention"]["anchors"], **boxes}
        last = {name: outputs[name] for name in ("pred_logits", "pred_boxes")}
        best = matcher(last, batch.targets)
        with removed("greedy"):
            greedy = matcher(last, batch.targets)
        for one, other, truths, *stages in zip(best, greedy, batch.targets, *boxes.values()):
            truth = box_cxcywh_to_xyxy(truths["boxes"][one[1]])
            for name, stage in zip(boxes, stages):
                iou = paired_box_iou(box_cxcywh_to_xyxy(stage[one[0]]), truth)
                sums[name] = sums.get(name, 0.0) + iou.sum().item()
            query_of = [dict(zip(targets.tolist(), queries.tolist())) for queries, targets in (one, other)]
            found["number"] += len(query_of[0])
            found["same"] += sum(query_of[1].get(target) == query for target, query in query_of[0].items())
    return {**found, "iou": {name: value / found["number"] for name, value in sums.items()} if found["number"] else {}}


# -- in training ------------------------------------------------------------------------------------------------------


def plan_trials(arguments: argparse.Namespace) -> list[Trial]:
    """All trainings that the command asks for: each setting whole, and without each of its parts; seeds outermost."""
    data = ["--data", arguments.data]
    shared = [*data, "--eval-every", str(epochs_between(configuration(data), arguments.steps)), "--epochs", "1000000",
              "--max-minutes", "None", "--max-steps", str(arguments.steps), *arguments.flags.split()]
    whole = {setting: Removal("", "", setting) for setting in dict.fromkeys(
        IN_TRAINING[name].setting for name in arguments.parts)}
    trials = []
    for seed in arguments.seeds:
        for name, removal in {**whole, **{name: IN_TRAINING[name] for name in arguments.parts}}.items():
            flags = [*shared, *SETTINGS[removal.setting], *removal.flags, "--seed", str(seed)]
            program = ("-m", "benchmarks.without", removal.part) if removal.part else DETECTOR
            trials.append(Trial(name, "steps", seed, tuple(flags), configuration(flags),
                                arguments.out / "runs" / f"steps-{arguments.steps}" / f"{name}-seed{seed}", program))
    return trials


# -- results ----------------------------------------------------------------------------------------------------------


def summary(arguments: argparse.Namespace, trained: list[dict[str, Any]], objects: Optional[dict[str, Any]],
            runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of removal.json."""
    return {"data": Path(arguments.data).name, "steps": arguments.steps, "seeds": arguments.seeds, "trained": trained,
            "objects": objects, "flags": arguments.flags, "runs": runs, "parts": {
                name: {"title": IN_TRAINING[name].title, "why": IN_TRAINING[name].why,
                       "setting": IN_TRAINING[name].setting} for name in arguments.parts},
            "settings": {name: command(*flags) for name, flags in SETTINGS.items()}}


def write(results: dict[str, Any], folder: Path) -> None:
    """removal.json, and what is made of it."""
    write_json(folder / "removal.json", results)
    write_text(folder / "removal.md", report(results))
    draw(results, folder / "removal.png")


def report(results: dict[str, Any]) -> str:
    """The Markdown of removal.md."""
    seeds = len(results["seeds"])
    lines = ["# What breaks if you remove it?", "", f"Data: {literal(results['data'])}, val split.", ""]
    if results["trained"]:
        lines += ["## After training", "", "The same weights, not trained again.", ""]
        lines += markdown(["without", "AP", "AP50", "why"], [
            [row["title"], three_decimals(row["AP"]), three_decimals(row["AP50"]), row["why"]]
            for row in results["trained"]]) + [""]
    if objects := results.get("objects"):
        iou = ", ".join(f"{name} {value:.3f}" for name, value in objects["iou"].items())
        lines += [f"Matched greedily, {objects['same']} of {objects['number']} objects get the same query as by the "
                  "Hungarian algorithm. Mean IoU of an object with the boxes of the query that the latter gives it: "
                  f"{iou or 'not measured'}.", ""]
    if results["runs"]:
        flags = f" (`{results['flags']}`)" if results["flags"] else ""
        lines += ["## In training", "", f"{results['steps']:,} steps each{flags}, seeds "
                  f"{', '.join(map(str, results['seeds']))}: the mean over the seeds ± half their range, at the last evaluation.", ""]
        rows = []
        for setting, flags in results["settings"].items():
            names = [name for name, part in results["parts"].items() if part["setting"] == setting]
            if not names:
                continue
            for name in (setting, *names):
                runs = [run for run in results["runs"] if run["variant"] == name]
                rows.append([f"**{setting}**, whole" if name == setting else results["parts"][name]["title"],
                             *(spread([run[figure] for run in runs], seeds) for figure in ("AP", "AP50"))])
        lines += markdown(["without", "AP", "AP50"], rows) + [""]
        lines += ["What each part is for (whether it pays in so few steps, the table says):", ""]
        lines += [f"* **{part['title']}.** {part['why']}" for part in results["parts"].values()]
        lines += ["", "`softmax` is `tiny` with `" + results["settings"]["softmax"] + "`.", ""]
    return "\n".join([*lines, "![what breaks if you remove it](removal.png)", ""])


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shapes", help='"shapes" or a COCO-format folder, for the trainings')
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and for what came of them")
    parser.add_argument("--run", type=Path, help="a trained run: its folder or a checkpoint")
    parser.add_argument("--steps", type=int, help="of each training; left out: no training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--parts", nargs="+", choices=list(IN_TRAINING), default=list(IN_TRAINING), metavar="PART",
                        help=", ".join(IN_TRAINING))
    parser.add_argument("--flags", default="", help="of detr_scratch.py train, for every training")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at the same time, one thread each if several")
    parser.add_argument("--redraw", action="store_true", help="only make table and chart again from removal.json")
    arguments = parser.parse_args(argv)
    if not (arguments.redraw or arguments.run or arguments.steps):
        parser.error("got neither --run nor --steps; wanted at least one: a trained run, or how long to train")
    arguments.seeds = list(dict.fromkeys(arguments.seeds))
    return arguments


def measure(arguments: argparse.Namespace) -> list[str]:
    """Measure, or redraw, what the command asks for; returns what failed."""
    data = arguments.out / "removal.json"
    before = read_record(data, MADE_BY) if data.exists() or arguments.redraw else {"trained": [], "runs": []}
    with believed(data, MADE_BY):
        trained, objects = before["trained"], before.get("objects")
        if arguments.redraw:
            write(before, arguments.out)
            return []
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.run:
        trained, objects = measure_trained(arguments.run, resolve_device(arguments.device))
    if arguments.steps:
        return run_all(plan_trials(arguments), arguments.device, arguments.jobs,
                       lambda runs: write(summary(arguments, trained, objects, runs), arguments.out))
    write({**summary(arguments, trained, objects, []), **before, "trained": trained, "objects": objects}, arguments.out)
    return []


def main(argv: Optional[Sequence[str]] = None) -> None:
    arguments = parse(argv)
    conclude(lambda: measure(arguments), arguments.out / "removal.md")


if __name__ == "__main__":
    with ends_in_a_line():
        main()
