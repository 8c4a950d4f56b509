"""Our COCO figures are pycocotools' own, through every odd split and every way of gathering."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from scratch.evaluation.coco_eval import METRICS, CocoEvaluator, coco_results
from scratch.evaluation.evaluate import evaluate
from scratch.evaluation.summary import format_summary, three_decimals
from scratch.evaluation.health import QueryHealth

CATEGORY_IDS, NAMES = (3, 7, 90), ("ant", "bee", "cat")


def truth_of(images: int = 11, boxes: int = 5, seed: int = 1) -> dict[str, Any]:
    """A made-up split: boxes of 5 to 205 pixels in images of 640 × 480, every ninth a crowd."""
    generator = torch.Generator().manual_seed(seed)
    annotations = []
    for image in range(1, images + 1):
        for _ in range(boxes):
            x, y, w, h = (torch.rand(4, generator=generator) * torch.tensor([400, 250, 200, 200]) + 5).tolist()
            annotations.append({"id": len(annotations) + 1, "image_id": image, "bbox": [x, y, w, h], "area": w * h,
                                "category_id": CATEGORY_IDS[len(annotations) % 3],
                                "iscrowd": int(len(annotations) % 9 == 0)})
    return {"images": [{"id": i, "width": 640, "height": 480, "file_name": f"{i}.png"} for i in range(1, images + 1)],
            "categories": [{"id": i, "name": name} for i, name in zip(CATEGORY_IDS, NAMES)], "annotations": annotations}


def predictions_for(truth: dict[str, Any], jitter: float = 0.0, extra: int = 0,
                    crowds: bool = False) -> dict[int, dict]:
    """For each image its own boxes, moved by `jitter` of their size, then `extra` meaningless boxes; random scores."""
    ids = sorted(category["id"] for category in truth["categories"])
    predictions = {}
    for image in truth["images"]:
        mine = [a for a in truth["annotations"] if a["image_id"] == image["id"] and (crowds or not a.get("iscrowd"))]
        boxes = torch.tensor([a["bbox"] for a in mine], dtype=torch.float32).reshape(-1, 4)
        boxes = boxes + jitter * boxes[:, 2:].repeat(1, 2) * torch.randn(boxes.shape)
        boxes = torch.cat((boxes, 5 + 200 * torch.rand(extra, 4)))
        boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:].clamp(min=1)
        labels = torch.tensor([ids.index(a["category_id"]) for a in mine], dtype=torch.int64)
        labels = torch.cat((labels, torch.randint(len(ids), (extra,))))
        predictions[image["id"]] = {"boxes": boxes, "labels": labels, "scores": torch.rand(len(labels))}
    return predictions


def judged(truth: dict[str, Any], predictions: dict[int, dict]) -> CocoEvaluator:
    categories = sorted(truth["categories"], key=lambda category: category["id"])
    evaluator = CocoEvaluator(truth, tuple(c["id"] for c in categories), tuple(c["name"] for c in categories))
    evaluator.update(list(predictions), list(predictions.values()))
    return evaluator


def pycocotools_on_files(truth: dict[str, Any], results: list[dict], folder: Path) -> list[float]:
    """The twelve figures by the way that pycocotools documents."""
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    annotations = COCO(str(folder / "truth.json"))
    evaluation = COCOeval(annotations, annotations.loadRes(str(folder / "results.json")), "bbox")
    evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    return evaluation.stats.tolist()


# -- the twelve figures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jitter, extra", [(0.02, 3), (0.1, 0), (0.3, 40)])
def test_the_twelve_figures_equal_pycocotools_on_files(jitter: float, extra: int, tmp_path: Path):
    truth = truth_of()
    evaluator = judged(truth, predictions_for(truth, jitter, extra))
    theirs = pycocotools_on_files(truth, evaluator.results, tmp_path)
    summary = evaluator.summary()
    assert [-1.0 if summary[name] is None else summary[name] for name in METRICS] == theirs
    assert len(set(theirs)) > 8  # the figures differ from each other, so a swapped pair would show


def test_the_figures_equal_pycocotools_with_eighty_classes(coco_dir: Path, tmp_path: Path):
    truth = json.loads((coco_dir / "annotations/instances_val2017.json").read_text())
    evaluator = judged(truth, predictions_for(truth, jitter=0.1, extra=5))
    theirs = pycocotools_on_files(truth, evaluator.results, tmp_path)
    summary = evaluator.summary()
    assert [summary[name] for name in METRICS] == theirs


def test_the_figures_have_the_order_of_pycocotools_and_the_names_of_the_papers():
    assert METRICS == ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
                       "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")


def test_the_mean_over_the_classes_is_the_whole():
    truth = truth_of()
    summary = judged(truth, predictions_for(truth, 0.1, 3)).summary()
    for figure in ("AP", "AP50"):
        assert sum(ap[figure] for ap in summary["per_class"].values()) / 3 == pytest.approx(summary[figure], abs=1e-12)


def test_perfect_predictions_of_real_data_are_perfect(bccd_dir: Path):
    truth = json.loads((bccd_dir / "annotations/instances_val.json").read_text())
    truth["annotations"] = [a for a in truth["annotations"] if min(a["bbox"][2:]) > 0]
    summary = judged(truth, predictions_for(truth)).summary()
    assert summary["AP"] == pytest.approx(1.0, abs=1e-12)
    assert {name: ap["AP"] for name, ap in summary["per_class"].items()} == pytest.approx(
        {"Platelets": 1.0, "RBC": 1.0, "WBC": 1.0}, abs=1e-12)


def test_a_figure_worked_by_hand():
    # Two ants; found: one, with IoU 0.8, and before it a miss of higher score. At t ≤ 0.8 the precision is 1/2 up to
    # recall 1/2, which 51 of the 101 recalls reach; t = 0.5 … 0.8 are 7 of the 10 thresholds.
    truth = {**truth_of(images=1, boxes=0), "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 100, 100]},
        {"id": 2, "image_id": 1, "category_id": 3, "bbox": [300, 300, 100, 100]}]}
    found = {"boxes": torch.tensor([[500.0, 0, 600, 100], [0, 0, 100, 80.01]]),
             "labels": torch.zeros(2, dtype=torch.int64), "scores": torch.tensor([0.9, 0.8])}
    summary = judged(truth, {1: found}).summary()
    assert summary["AP50"] == pytest.approx(0.5 * 51 / 101, abs=1e-12)
    assert summary["AP"] == pytest.approx(0.7 * 0.5 * 51 / 101, abs=1e-12)
    assert summary["AR_1"] == 0.0 and summary["AR_10"] == pytest.approx(0.5 * 0.7)


# -- crowds, gaps and nothing at all -----------------------------------------------------------------------------------


def test_a_crowd_is_neither_wanted_nor_punished(coco_dir: Path):
    truth = json.loads((coco_dir / "annotations/instances_val2017.json").read_text())
    assert sum(a["iscrowd"] for a in truth["annotations"]) == 6
    without, within = predictions_for(truth), predictions_for(truth, crowds=True)
    for prediction in (*without.values(), *within.values()):  # the crowds' boxes are scored like any other
        prediction["scores"] = torch.ones(len(prediction["labels"]))
    assert judged(truth, without).summary()["AP"] == pytest.approx(1.0, abs=1e-12)
    assert judged(truth, within).summary()["AP"] == pytest.approx(1.0, abs=1e-12)
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = 0
    assert judged(truth, without).summary()["AP"] < 1.0


def test_an_annotation_with_the_id_nought_can_be_found():
    truth = truth_of()
    truth["annotations"] = [{**a, "id": a["id"] - 1} for a in truth["annotations"]]
    assert truth["annotations"][0]["id"] == 0
    truth["annotations"][0]["iscrowd"] = 0
    assert judged(truth, predictions_for(truth)).summary()["AR_100"] == 1.0


def test_area_and_iscrowd_may_be_missing_from_the_ground_truth():
    truth = truth_of()
    truth["annotations"] = [{**a, "iscrowd": 0} for a in truth["annotations"]]
    predictions = predictions_for(truth, 0.1)
    bare = {**truth, "annotations": [
        {k: v for k, v in a.items() if k not in ("area", "iscrowd")} for a in truth["annotations"]]}
    assert judged(bare, predictions).summary() == judged(truth, predictions).summary()


def test_nothing_predicted_scores_nought():
    summary = judged(truth_of(), {}).summary()
    assert [summary[name] for name in METRICS] == [0.0] * 12
    assert {name: (of["AP"], of["AP50"]) for name, of in summary["per_class"].items()} == {
        name: (0.0, 0.0) for name in NAMES}


def test_nothing_to_find_scores_none():
    truth = {**truth_of(), "annotations": []}
    summary = judged(truth, predictions_for(truth, extra=3)).summary()
    assert [summary[name] for name in METRICS] == [None] * 12
    assert summary["per_class"]["bee"] == {"AP": None, "AP50": None, "objects": 0}


def test_a_class_without_ground_truth_is_none_and_leaves_the_mean_alone():
    truth = truth_of()
    truth["annotations"] = [a for a in truth["annotations"] if a["category_id"] != 7]
    summary = judged(truth, predictions_for(truth, extra=5)).summary()
    assert summary["per_class"]["bee"] == {"AP": None, "AP50": None, "objects": 0}
    assert summary["AP"] == pytest.approx((summary["per_class"]["ant"]["AP"] + summary["per_class"]["cat"]["AP"]) / 2)


def test_labels_follow_the_category_ids_in_any_order():
    truth = truth_of()
    predictions = predictions_for(truth, 0.1)
    reverse = {i: {**p, "labels": 2 - p["labels"]} for i, p in predictions.items()}
    evaluator = CocoEvaluator(truth, CATEGORY_IDS[::-1], NAMES[::-1])
    evaluator.update(list(reverse), list(reverse.values()))
    assert evaluator.summary() == judged(truth, predictions).summary()


def test_measuring_prints_nothing_and_changes_neither_truth_nor_results(capsys: pytest.CaptureFixture):
    truth = truth_of()
    evaluator = judged(truth, predictions_for(truth, 0.1))
    before = copy.deepcopy((truth, evaluator.results))
    assert evaluator.summary() == evaluator.summary()
    assert (truth, evaluator.results) == before
    assert capsys.readouterr().out == ""


# -- results -----------------------------------------------------------------------------------------------------------


def test_results_are_coco_entries_with_the_datas_own_ids_and_unrounded_floats():
    prediction = {"boxes": torch.tensor([[10.0, 20, 40, 60], [0.1, 0, 1, 1]]), "labels": torch.tensor([2, 0]),
                  "scores": torch.tensor([0.75, 0.1])}
    first, second = coco_results(5, prediction, CATEGORY_IDS)
    assert first == {"image_id": 5, "category_id": 90, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.75}
    assert second["score"] == prediction["scores"][1].item()
    assert json.loads(json.dumps(second)) == second


def test_an_image_taken_in_twice_counts_once():
    truth = truth_of()
    predictions = predictions_for(truth, 0.1)
    evaluator = judged(truth, predictions)
    count = len(evaluator.results)
    evaluator.update([1, 2], [predictions[1], predictions[2]])
    assert len(evaluator.results) == count


def test_an_unknown_image_is_refused():
    evaluator = CocoEvaluator(truth_of(images=2), CATEGORY_IDS, NAMES)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    with pytest.raises(ValueError, match="image id 99, which is not among the 2 images"):
        evaluator.update([99], [nothing])


def test_names_and_ids_must_pair():
    with pytest.raises(ValueError, match="got 3 category ids and 2 names"):
        CocoEvaluator(truth_of(), CATEGORY_IDS, NAMES[:2])


# -- evaluate ----------------------------------------------------------------------------------------------------------


class FakeBatch:
    """The parts of a Batch that `evaluate` uses; its images are the ids of the images."""

    def __init__(self, image_ids: list[int]) -> None:
        self.images, self.pad_mask = torch.tensor(image_ids), None
        self.targets = [{"image_id": i, "orig_size": (480, 640), "labels": torch.zeros(2)} for i in image_ids]

    def to(self, device: torch.device) -> "FakeBatch":
        return self

    def normalised(self) -> torch.Tensor:
        return self.images


class Oracle(nn.Module):
    """Answers each image with the 5 boxes that it is given."""

    config = SimpleNamespace(classification="softmax")

    def __init__(self, predictions: dict[int, dict]) -> None:
        super().__init__()
        self.predictions, self.modes = predictions, []

    def forward(self, images: torch.Tensor, pad_mask: None) -> dict[str, torch.Tensor]:
        self.modes.append((self.training, torch.is_grad_enabled()))
        logits, boxes = [], []
        for i in images.tolist():
            corners = self.predictions[i]["boxes"] / torch.tensor([640.0, 480, 640, 480])
            boxes.append(torch.cat(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), dim=1))
            logits.append(10 * torch.eye(4)[self.predictions[i]["labels"]] * self.predictions[i]["scores"][:, None])
        return {"pred_logits": torch.stack(logits), "pred_boxes": torch.stack(boxes)}


class MeanOfIds(nn.Module):
    """A criterion whose only loss is the mean image id of the batch; the total counts it twice.

    In both of its two layers the objects of image i are matched to the queries i mod 5 and i + 1 mod 5.
    """

    def matching(self, outputs: dict, targets: list[dict]) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
        return 2 * [[((t["image_id"] + torch.arange(2)) % 5, torch.arange(2)) for t in targets]]

    def forward(self, outputs: dict, targets: list[dict], matching: list) -> dict[str, torch.Tensor]:
        assert len(matching) == 2 and all(len(layer) == len(targets) for layer in matching)
        return {"loss_id": torch.tensor([float(t["image_id"]) for t in targets]).mean()}

    def total(self, losses: dict[str, torch.Tensor]) -> torch.Tensor:
        return 2 * losses["loss_id"]


@pytest.fixture
def setting() -> SimpleNamespace:
    truth = truth_of(images=5)
    truth["annotations"] = [{**a, "iscrowd": 0} for a in truth["annotations"]]
    predictions = predictions_for(truth, 0.1)
    return SimpleNamespace(truth=truth, predictions=predictions, model=Oracle(predictions), device=torch.device("cpu"),
                           evaluator=CocoEvaluator(truth, CATEGORY_IDS, NAMES))


def test_evaluate_equals_measuring_the_predictions_by_hand(setting: SimpleNamespace):
    metrics, results = evaluate(setting.model, [FakeBatch([1, 2]), FakeBatch([3, 4]), FakeBatch([5])], None,
                                setting.evaluator, setting.device)
    by_hand = judged(setting.truth, setting.predictions).summary()
    assert [metrics[name] for name in METRICS] == pytest.approx([by_hand[name] for name in METRICS], abs=1e-9)
    assert metrics["losses"] == {} and metrics["images_per_second"] > 0
    assert len(results) == 25 and results is setting.evaluator.results


def test_losses_are_means_over_images_whatever_the_batches(setting: SimpleNamespace):
    metrics, _ = evaluate(setting.model, [FakeBatch([1, 2, 3]), FakeBatch([4, 5])], MeanOfIds(), setting.evaluator,
                          setting.device)
    assert metrics["losses"] == pytest.approx({"loss": 6.0, "loss_id": 3.0})


@pytest.mark.parametrize("training", [True, False])
def test_the_model_runs_in_eval_without_gradients_and_returns_to_its_mode(training: bool, setting: SimpleNamespace):
    setting.model.train(training)
    evaluate(setting.model, [FakeBatch([1])], None, setting.evaluator, setting.device)
    assert setting.model.modes == [(False, False)]
    assert setting.model.training == training


def test_a_model_that_fails_returns_to_its_mode_too(setting: SimpleNamespace):
    setting.model.train()
    with pytest.raises(KeyError):
        evaluate(setting.model, [FakeBatch([404])], None, setting.evaluator, setting.device)
    assert setting.model.training


def test_two_processes_that_share_a_padded_split_measure_what_one_does(setting: SimpleNamespace):
    alone, _ = evaluate(setting.model, [FakeBatch([1, 2, 3, 4, 5])], None,
                        CocoEvaluator(setting.truth, CATEGORY_IDS, NAMES), setting.device)
    second: list = []  # what the other process hands over: image 1 again, because 5 does not divide by 2
    evaluate(setting.model, [FakeBatch([2, 4, 1])], MeanOfIds(), CocoEvaluator(setting.truth, CATEGORY_IDS, NAMES),
             setting.device, gather=lambda items: second.extend(items) or items)
    both, results = evaluate(setting.model, [FakeBatch([1, 3, 5])], MeanOfIds(), setting.evaluator, setting.device,
                             gather=lambda items: items + second)
    assert [both[name] for name in METRICS] == [alone[name] for name in METRICS]
    assert sorted({r["image_id"] for r in results}) == [1, 2, 3, 4, 5] and len(results) == 25
    assert both["losses"]["loss_id"] == pytest.approx((1 + 3 + 5 + 2 + 4 + 1) / 6)


def test_the_health_of_two_processes_that_share_a_padded_split_is_that_of_one(setting: SimpleNamespace):
    def run(batches: list[FakeBatch], **options: Any) -> dict[str, Any]:
        return evaluate(setting.model, batches, MeanOfIds(), CocoEvaluator(setting.truth, CATEGORY_IDS, NAMES),
                        setting.device, **options)[0]["health"]

    alone, second = run([FakeBatch([1, 2, 3, 4, 5])]), []
    run([FakeBatch([2, 4, 1])], gather=lambda items: second.extend(items) or items)
    both = run([FakeBatch([1, 3]), FakeBatch([5])], gather=lambda items: items + second)
    assert both.pop("box_spread") == pytest.approx(alone.pop("box_spread"), abs=1e-6)  # in float32, batch by batch
    assert both == alone and alone["matched_queries"] == [1.0, 1.0]


def test_an_evaluation_is_compared_with_the_matching_of_the_one_before(setting: SimpleNamespace):
    class Shifted(MeanOfIds):
        def matching(self, outputs: dict, targets: list[dict]) -> list:
            return [[((q + (t["image_id"] == 3)) % 5, o) for t, (q, o) in zip(targets, layer)]
                    for layer in super().matching(outputs, targets)]

    before = QueryHealth()
    first, _ = evaluate(setting.model, [FakeBatch([1, 2, 3, 4, 5])], MeanOfIds(), setting.evaluator, setting.device,
                        health=before)
    second, _ = evaluate(setting.model, [FakeBatch([1, 2, 3, 4, 5])], Shifted(), setting.evaluator, setting.device,
                         health=QueryHealth(before.matching()))
    assert first["health"]["matching_instability"] is None
    assert second["health"]["matching_instability"] == 1 / 5  # the two objects of image 3, of ten


def test_without_a_criterion_the_boxes_tell_of_health_and_the_matching_does_not(setting: SimpleNamespace):
    metrics, _ = evaluate(setting.model, [FakeBatch([1, 2])], None, setting.evaluator, setting.device)
    assert metrics["health"]["box_spread"] > 0.5 and metrics["health"]["box_response"] > 0.01
    assert metrics["health"]["matched_queries"] is None


def test_each_batch_is_matched_once(setting: SimpleNamespace):
    class Counting(MeanOfIds):
        calls = 0

        def matching(self, outputs: dict, targets: list[dict]) -> list:
            self.calls += 1
            return super().matching(outputs, targets)

    criterion = Counting()
    evaluate(setting.model, [FakeBatch([1, 2]), FakeBatch([3])], criterion, setting.evaluator, setting.device)
    assert criterion.calls == 2


def test_the_forward_pass_runs_under_autocast_and_the_criterion_outside(setting: SimpleNamespace):
    seen = []

    class Watching(MeanOfIds):
        def forward(self, outputs: dict, targets: list[dict], matching: list) -> dict[str, torch.Tensor]:
            seen.append(("criterion", torch.is_autocast_enabled("cpu")))
            return super().forward(outputs, targets, matching)

    setting.model.register_forward_pre_hook(lambda *_: seen.append(("model", torch.is_autocast_enabled("cpu"))))
    evaluate(setting.model, [FakeBatch([1])], Watching(), setting.evaluator, setting.device,
             autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    assert seen == [("model", True), ("criterion", False)]


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_names_every_figure_and_sorts_the_classes():
    summary = {name: i / 100 for i, name in enumerate(METRICS)} | {"per_class": {
        "ant": {"AP": 0.1, "AP50": 0.2, "objects": 1234}, "bee": {"AP": 0.5, "AP50": 0.625, "objects": 7},
        "cat": {"AP": None, "AP50": None, "objects": 0}}}
    assert format_summary(summary) == """\
           all   IoU.5  IoU.75   small  medium   large
AP       0.000   0.010   0.020   0.030   0.040   0.050
         top 1  top 10 top 100   small  medium   large
AR       0.060   0.070   0.080   0.090   0.100   0.110
class       AP    AP50 objects
bee      0.500   0.625       7
ant      0.100   0.200   1,234
1 of 3 classes have no box to find here"""


def test_the_table_of_many_classes_shows_the_best_and_the_worst_and_what_could_not_be_measured():
    per_class = {f"class {k:02}": {"AP": k / 100, "AP50": k / 50} for k in range(50)}
    summary = dict.fromkeys(METRICS) | {"per_class": per_class}
    lines = format_summary(summary, most_classes=7).splitlines()[5:]
    assert lines[4] == "… 43 classes between, then the worst 3"
    assert [int(line.split()[1]) for line in lines[:4] + lines[5:]] == [49, 48, 47, 46, 2, 1, 0]
    assert all(line.endswith("–") for line in lines[:4])  # a file from before tells no number of objects


def test_the_table_of_a_few_classes_has_each_once():
    per_class = {f"class {k:02}": {"AP": k / 100, "AP50": k / 50, "objects": k} for k in range(7)}
    table = format_summary(dict.fromkeys(METRICS) | {"per_class": per_class}, most_classes=7)
    assert len(table.splitlines()) == 12 and "…" not in table


def test_a_class_counts_its_objects_and_no_crowds():
    truth = truth_of()
    truth["annotations"].append({**truth["annotations"][1], "id": 99, "iscrowd": 1})
    before, after = (judged(of, {}).summary()["per_class"] for of in (truth_of(), truth))
    assert {name: of["objects"] for name, of in before.items()} == {name: of["objects"] for name, of in after.items()}
    assert sum(of["objects"] for of in before.values()) == sum(not a["iscrowd"] for a in truth_of()["annotations"])


def test_two_categories_of_one_name_have_figures_of_their_own() -> None:
    summary = CocoEvaluator(truth_of(), CATEGORY_IDS, ("ant", "bee", "ant")).summary()
    assert list(summary["per_class"]) == ["ant (3)", "bee", "ant (90)"]


# -- how many detections count -------------------------------------------------------------------------------------


def crowded(n: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One image with n objects of a class, and a perfect detection of each."""
    entries = [{"image_id": 1, "category_id": 3, "bbox": [20 * (k % 20), 20 * (k // 20), 12, 12]} for k in range(n)]
    return {"images": [{"id": 1}], "annotations": entries}, [{**entry, "score": 0.9} for entry in entries]


@pytest.mark.parametrize("max_dets, ap, recall", [(100, 34 / 101, 1 / 3), (200, 67 / 101, 2 / 3), (300, 1, 1),
                                                  (7, 3 / 101, 7 / 300)])
def test_as_many_detections_of_a_class_in_an_image_count_as_are_wanted(max_dets, ap, recall):
    truth, results = crowded(300)
    evaluator = CocoEvaluator(truth, (3,), ("cell",), max_dets)
    evaluator.results = results
    summary = evaluator.summary()
    assert (summary["AP"], summary["AP50"], summary["AR_100"]) == pytest.approx((ap, ap, recall))
    assert summary["per_class"]["cell"]["AP"] == pytest.approx(ap) and summary["max_dets"] == max_dets


def test_no_detection_cannot_be_all_that_counts():
    with pytest.raises(ValueError, match="got max_dets = 0, wanted 1 or more"):
        CocoEvaluator({"images": [], "annotations": []}, (3,), ("cell",), 0)


def test_the_table_says_how_many_detections_count_where_they_are_not_cocos():
    truth, results = crowded(3)
    for max_dets, said in ((300, True), (100, False)):
        evaluator = CocoEvaluator(truth, (3,), ("cell",), max_dets)
        evaluator.results = results
        table = format_summary(evaluator.summary())
        assert f"top {max_dets}" in table
        assert ("the best 300 detections of a class in an image count; COCO's figures are of 100" in table) is said


def test_where_nothing_is_to_be_found_a_dash_is_shown_and_no_number():
    assert [three_decimals(None), three_decimals(0.0), three_decimals(0.1234)] == ["–", "0.000", "0.123"]
    evaluator = CocoEvaluator({"images": [{"id": 1}], "annotations": []}, (3,), ("cell",))
    assert "0.000" not in format_summary(evaluator.summary())


def test_a_class_name_cannot_act_on_the_terminal_that_shows_the_table():
    truth, results = crowded(3)
    evaluator = CocoEvaluator(truth, (3,), ("\x1b[2J" + "a" * 500 + "\n",))
    evaluator.results = results
    table = format_summary(evaluator.summary())
    assert all(letter == "\n" or letter.isprintable() for letter in table) and max(map(len, table.splitlines())) < 100
