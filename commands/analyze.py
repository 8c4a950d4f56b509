"""analyze: where does a trained detector err, what does it cost, and how do runs compare?

    RUN/ best.pt                 the detector: size, configuration, classes
         log.jsonl               its curve, its best and its last evaluation
         best_detections.json    what it found then; if there is none that fits, it is run once
    the data's annotations       what is there
                                 ─▶ scratch/evaluation: figures ─▶ scratch/analysis/report: pages

Read: analyze → examine (one run) → found (its detections) → judged (its figures)
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Optional, Tuple

import torch
import tyro

from commands.opening import open_split, prepare_data, resolve_device
from commands.sheets import draw_sheet, read_images
from scratch.analysis.error_charts import CHARTS, save
from scratch.analysis.flops import parts_table
from scratch.analysis.learning_curve import read_run
from scratch.analysis.names import code, literal, numbered, spoken
from scratch.analysis.records import believed, read_record
from scratch.analysis.report import SHEET, picture_folders, write_report
from scratch.analysis.run_summary import changed_fields, summarise_log
from scratch.config import PRESETS, Config, DataConfig
from scratch.data.check import check_dataset
from scratch.data.classes import Classes
from scratch.data.coco import CocoDetection
from scratch.data.loader import make_loader
from scratch.data.transforms import Augmentation
from scratch.detector import load as load_detector, read_checkpoint
from scratch.evaluation.breakdown import CURVE_IOUS, by_class, by_number, by_size
from scratch.evaluation.calibration import calibration
from scratch.evaluation.coco_eval import CocoEvaluator
from scratch.evaluation.error_analysis import analyse_errors, find_errors
from scratch.evaluation.evaluate import evaluate
from scratch.evaluation.matching import Results, Truth, coco_evaluation, matches_of
from scratch.evaluation.operating_point import best_threshold, confusion_matrix, errors_by_class, errors_by_image
from scratch.model.build import build_detr
from scratch.only_one import only_one
from scratch.printable import printable
from scratch.ranges import BATCH, refuse_senseless
from scratch.ranges import DETECTIONS as DETECTIONS_COUNTED
from scratch.training.checkpoint import best_checkpoint
from scratch.training.distributed import Distributed
from scratch.training.precision import Precision

DETECTIONS = "best_detections.json"  # {"split", "step", "results": COCO's result entries}
MOST_IMAGES = 8  # on the sheet of the worst ones


@dataclass(frozen=True)
class AnalyzeArguments:
    """Say where trained detectors err and what it costs them, in one report: Markdown, HTML, charts and their data."""

    runs: tyro.conf.Positional[Tuple[Path, ...]]
    """runs' folders (their best.pt), or checkpoint files"""
    eval_split: Optional[Literal["val", "test", "train"]] = None
    """the split to judge; None: that of the run's own evaluations"""
    data: Optional[str] = None
    """another folder, of any layout that train's --data takes, than the one that the detector was trained with"""
    max_dets: Optional[int] = None
    """this number of detections of a class in an image count, the best ones; None: as in the run's own evaluations
    (COCO's 100)"""
    out: Optional[Path] = None
    """the folder to write; None: `analysis` in the first run's folder"""
    batch_size: int = 8
    """images of one forward pass, where the detector must be run"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; where the detector must be run"""

    def __post_init__(self) -> None:
        refuse_senseless(self, batch_size=BATCH, max_dets=DETECTIONS_COUNTED)


def analyze(arguments: AnalyzeArguments) -> None:
    """Write the report, and print its sentences."""
    if not arguments.runs:
        raise ValueError("got no run; wanted the folders of training runs, or checkpoint files")
    out = arguments.out or _folder(arguments.runs[0]) / "analysis"
    folders, names = _names(arguments.runs)
    with only_one(out):
        runs = [examine(path, name, arguments, out / folder)
                for path, name, folder in zip(arguments.runs, names, picture_folders(names))]
        logs = {_folder(path).resolve(): run["log"] for path, run in zip(arguments.runs, runs)}
        curves = [read_run(folder) | {"name": name} for folder, name in folders.items()
                  if logs[folder] and logs[folder]["steps"]]
        for left_out in dict.fromkeys(log["left_out"] for log in logs.values() if log and log["left_out"]):
            print(f"note: {printable(left_out)}")
        sentences = write_report({"runs": runs, "curves": curves}, out)
    print("".join(f"* {spoken(sentence)}\n" for sentence in sentences)
          + f"\n{printable(out / 'report.md')}\n{printable(out / 'report.html')}: the same in one file, to send")


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _names(paths: Tuple[Path, ...]) -> tuple[dict[Path, str], list[str]]:
    """What each folder is called, and what each path: as its folder, with its checkpoint's name where they share it."""
    of_path = [_folder(path).resolve() for path in paths]
    different = list(dict.fromkeys(of_path))
    folders = dict(zip(different, numbered([folder.name or "run" for folder in different])))
    return folders, numbered([
        folders[folder] + (f"-{_file(path).stem}" if of_path.count(folder) > 1 else "")
        for path, folder in zip(paths, of_path)])


def examine(path: Path, name: str, arguments: AnalyzeArguments, pictures: Path) -> dict[str, Any]:
    """Everything that the report says about one run, as plain values; draws the sheet of its worst images."""
    state = read_checkpoint(path)
    config = Config.from_dict(state["config"])
    data = replace(config.data, eval_split=arguments.eval_split or config.data.eval_split,
                   max_dets=config.data.max_dets if arguments.max_dets is None else arguments.max_dets)
    if arguments.data:
        data = data.in_folder(arguments.data)
    results, source = found(path, state, data, arguments)
    dataset = _open(data, config, state)
    truth = dataset.ground_truth()
    figures = judged(truth, results, dataset, data.max_dets)
    file = _file(path)
    draw_worst(pictures / SHEET, dataset, figures, results)
    model = build_detr(config.model).eval()
    height, width = _middle_size(dataset)
    images, pad_mask = torch.zeros(1, 3, height, width), torch.zeros(1, height, width, dtype=torch.bool)
    return {
        "name": name, "split": data.eval_split, "data": data.data if not data.val_images else data.val_images,
        "source": source, "image_size": [height, width],
        "parts": parts_table(model, lambda: model(images, pad_mask)), "log": summarise_log(_folder(path)),
        "checkpoint": {
            "file": file.name, "bytes": file.stat().st_size, "preset": config.preset, "config": config.to_dict(),
            "changed": changed_fields(config.to_dict(), PRESETS[config.preset].to_dict())
            if config.preset in PRESETS else None,
            **{figure: state.get(figure) for figure in ("step", "epoch", "minutes")},  # convert leaves them out
            "classes": list(dataset.classes.names)},
        **figures}


def draw_worst(sheet: Path, dataset: CocoDetection, figures: dict[str, Any], results: Results) -> None:
    """The sheet of the worst images; none (the report says so) where one of them cannot be read."""
    sheet.unlink(missing_ok=True)
    if not figures["worst"]:
        return
    try:
        images = read_images(dataset, [of["image_id"] for of in figures["worst"]])
    except (OSError, ValueError):
        return
    draw_sheet(sheet, dataset, [of["image_id"] for of in figures["worst"]], results, figures["threshold"]["score"],
               images)


def _file(path: Path) -> Path:
    """The file that `read_checkpoint` reads."""
    return path if path.is_file() else best_checkpoint(path)


def _open(data: DataConfig, config: Config, state: dict[str, Any]) -> CocoDetection:
    return open_split(data, data.eval_split, Augmentation.for_evaluation(data), config.train.seed,
                      Classes.from_dict(state["classes"]))


def _middle_size(dataset: CocoDetection) -> tuple[int, int]:
    """The (height, width) in the middle of those that the split's images have at evaluation."""
    sizes = [dataset.transform.evaluation_size(int(h), int(w)) for w, h in dataset.annotations.sizes]
    return sorted(sizes, key=lambda size: size[0] * size[1])[len(sizes) // 2]


# -- the detections ------------------------------------------------------------------------------------------------


def found(path: Path, state: dict[str, Any], data: DataConfig, arguments: AnalyzeArguments) -> tuple[Results, str]:
    """The detections to judge, and where they come from, in words; the detector is run where none are kept for this."""
    kept = _folder(path) / DETECTIONS
    why = f"there is no {DETECTIONS}"
    if arguments.data:
        why = "other data was named"
    elif kept.exists():
        advice = "remove it to run the detector again"
        content = read_record(kept, "a run", advice=advice)
        with believed(kept, "a run", advice):
            split, step, results = content["split"], content["step"], checked_results(content["results"])
        if split != data.eval_split:
            why = f"{DETECTIONS} is of the {literal(split)} split"
        elif "step" not in state:
            why = "the checkpoint does not say after which step it was made"
        elif step != state["step"]:
            why = f"{DETECTIONS} is of step {step}, the checkpoint of step {state['step']}"
        else:
            return results, f"{code(DETECTIONS)}, which the run wrote at step {step:,}"
    print(f"{printable(path)}: {spoken(why)}, so the detector is run over the {data.eval_split} split")
    return detect(path, data, arguments), f"the detector was run for this report: {why}"


def checked_results(results: Any) -> Results:
    """COCO's result entries, each with what is read of it. Raises ValueError, KeyError or TypeError for another."""
    for result in results:
        values = [result["image_id"], result["category_id"], result["score"], *result["bbox"]]
        if len(values) != 7 or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
            raise ValueError(f"got the detection {str(result)[:100]}, wanted numbers: image_id, category_id, score and "
                             "a bbox of four")
    return results


def detect(path: Path, data: DataConfig, arguments: AnalyzeArguments) -> Results:
    """Run the detector over the split, as `detr_scratch.py eval` does."""
    distributed = Distributed.from_environment(resolve_device(arguments.device))
    detector = load_detector(path, distributed.device)
    model, config, classes = detector.model, detector.config, detector.classes
    prepare_data(data, distributed)
    report = check_dataset(data, config.most_found, decode=False, only=(data.eval_split,), classes=classes,
                           need=(data.eval_split,))
    report.refuse()
    dataset = open_split(data, data.eval_split, Augmentation.for_evaluation(data), config.train.seed, classes,
                         report.left_out)
    loader, _ = make_loader(dataset, arguments.batch_size, train=False, workers=data.workers, seed=config.train.seed,
                            device_type=distributed.device.type)
    evaluator = CocoEvaluator(dataset.ground_truth(), classes.ids, classes.names, data.max_dets)
    precision = Precision(config.train.precision, distributed.device)
    return evaluate(model, loader, None, evaluator, distributed.device, precision.autocast)[1]


# -- the figures ---------------------------------------------------------------------------------------------------


def judged(truth: Truth, results: Results, dataset: CocoDetection, max_dets: int = 100) -> dict[str, Any]:
    """Every figure of a split, the classes with the most mistakes first: see the notes of scratch/evaluation/.

    `max_dets` is how many detections of a class in an image count.
    """
    evaluator = CocoEvaluator(truth, dataset.classes.ids, dataset.classes.names, max_dets)
    unknown = {result["image_id"] for result in results} - {image["id"] for image in truth["images"]}
    if unknown:
        raise ValueError(f"got detections for image id {min(unknown)}, which is none of the {len(truth['images'])} "
                         f"images: the data has changed since; remove {DETECTIONS} to run the detector again")
    other = {result["category_id"] for result in results} - set(dataset.classes.ids)
    if other:
        raise ValueError(f"got detections of the class id {min(other)}, which is none of the "
                         f"{len(dataset.classes.ids)} classes: the data has changed since; remove {DETECTIONS} to "
                         "run the detector again")
    evaluator.results = results
    names = dict(zip(evaluator.category_ids, evaluator.names))
    figures = evaluator.summary()
    evaluation = coco_evaluation(truth, results, CURVE_IOUS, most=max_dets)
    matches = matches_of(evaluation)
    threshold = best_threshold(matches)
    shown = matches.shown(threshold["score"])
    errors = analyse_errors(truth, results, evaluation)
    per_class = errors.pop("per_class")
    errors["shown"] = find_errors(truth, results, shown).counts()
    counted = matches.right | matches.false
    curves, table = by_class(evaluation), errors_by_class(truth, results, shown)
    classes = [{"id": i, "name": names[i], **table[i], "AP50": None, "AP75": None, "curves": None,
                **curves.get(i, {}), "AP": figures["per_class"][names[i]]["AP"], "cost": per_class.get(i, {})}
               for i in names]
    classes = sorted(classes, key=lambda c: (-c["missed"] - c["false"], -c["objects"], c["name"]))
    worst = errors_by_image(truth, results, shown)
    objects = Counter(a["image_id"] for a in truth["annotations"] if not a["iscrowd"])
    return {
        "images": len(truth["images"]), "objects": sum(objects.values()),
        "most_objects": max(objects.values(), default=0),
        "crowds": len(truth["annotations"]) - sum(objects.values()), "figures": figures, "errors": errors,
        "threshold": threshold, "classes": classes,
        "confusion": {"names": [*(c["name"] for c in classes), "nothing"],
                      "matrix": confusion_matrix(truth, results, shown, [c["id"] for c in classes]).tolist()},
        "calibration": calibration(matches.scores[counted], matches.right[counted], threshold["score"]),
        "sizes": by_size(truth, figures), "numbers": by_number(truth, results, max_dets),
        "empty": {"images": sum(not of["objects"] for of in worst),
                  "false": sum(of["false"] for of in worst if not of["objects"])},
        "worst": [of for of in worst if of["missed"] or of["false"]][:MOST_IMAGES]}


def draw_mistakes(dataset: CocoDetection, results: Results, folder: Path, max_dets: int = 100) -> dict[str, Path]:
    """Three of the report's charts, for a run that has just ended: what mistakes cost, precision-recall, confusion."""
    figures = judged(dataset.ground_truth(), results, dataset, max_dets)
    drawn = {name: save(CHARTS[name](figures), folder / f"{name}.png")
             for name in ("errors", "precision_recall", "confusion")}
    return {name: path for name, path in drawn.items() if path}
