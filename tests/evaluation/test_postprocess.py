"""Logits and shares become scores, labels and pixels, as in the official PostProcess."""

from __future__ import annotations

import pytest
import torch

from scratch.evaluation.coco_eval import postprocess


def outputs(B: int = 2, Q: int = 7, K: int = 5, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {"pred_logits": 3 * torch.randn(B, Q, K + 1, dtype=dtype), "pred_boxes": torch.rand(B, Q, 4, dtype=dtype)}


SIZES = torch.tensor([[480, 640], [601, 401]])


def test_the_score_is_the_softmax_probability_of_the_best_real_class():
    out = outputs()
    scores, labels = torch.softmax(out["pred_logits"], -1)[..., :-1].max(-1)
    for b, detections in enumerate(postprocess(out, SIZES)):
        torch.testing.assert_close(detections["scores"], scores[b])
        torch.testing.assert_close(detections["labels"], labels[b])


def test_a_box_worked_by_hand():
    # 640 wide, 480 high: the centre is (320, 120), the size 160 × 48.
    out = {"pred_logits": torch.zeros(1, 1, 3), "pred_boxes": torch.tensor([[[0.5, 0.25, 0.25, 0.1]]])}
    [detections] = postprocess(out, torch.tensor([[480, 640]]))
    torch.testing.assert_close(detections["boxes"], torch.tensor([[240.0, 96.0, 400.0, 144.0]]))
    torch.testing.assert_close(detections["scores"], torch.tensor([1 / 3]))


def test_every_image_is_scaled_by_its_own_size():
    out = outputs()
    out["pred_boxes"][1] = out["pred_boxes"][0]
    first, second = postprocess(out, SIZES)
    torch.testing.assert_close(first["boxes"] / torch.tensor([640, 480, 640, 480]),
                               second["boxes"] / torch.tensor([401, 601, 401, 601]))


def test_no_object_never_becomes_a_label():
    out = outputs()
    out["pred_logits"][..., -1] = 50.0
    assert all(detections["labels"].max() < 5 for detections in postprocess(out, SIZES))


@pytest.mark.parametrize("margin", [200.0, -200.0])
def test_a_margin_that_overflows_gives_score_nought_and_its_opposite_the_softmax_of_the_rest(margin: float):
    out = outputs()
    out["pred_logits"][..., -1] = out["pred_logits"][..., :-1].amax(-1) + margin
    expected = torch.softmax(out["pred_logits"], -1)[..., :-1].amax(-1)
    scores = torch.stack([detections["scores"] for detections in postprocess(out, SIZES)])
    torch.testing.assert_close(scores, expected)
    assert scores.isfinite().all() and (scores == 0).all() == (margin > 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_scored_and_scaled_in_float32(dtype: torch.dtype):
    out = outputs(dtype=dtype)
    widened = postprocess({name: value.float() for name, value in out.items()}, SIZES)
    for ours, theirs in zip(postprocess(out, SIZES), widened):
        for name in ("scores", "labels", "boxes", "queries"):
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


def test_one_query_and_one_class_are_enough():
    [detections] = postprocess(outputs(B=1, Q=1, K=1), SIZES[:1])
    shapes = {name: tuple(value.shape) for name, value in detections.items()}
    assert shapes == {"scores": (1,), "labels": (1,), "boxes": (1, 4), "queries": (1,)}
    assert detections["labels"].dtype == torch.int64


def test_sizes_that_do_not_fit_the_batch_are_refused():
    with pytest.raises(ValueError, match=r"got orig_sizes of shape \(1, 2\), wanted \(2, 2\)"):
        postprocess(outputs(), SIZES[:1])


# -- focal classification ------------------------------------------------------------------------------------------


def focal_outputs(B: int, Q: int, K: int) -> dict[str, torch.Tensor]:
    return {"pred_logits": 3 * torch.randn(B, Q, K), "pred_boxes": torch.rand(B, Q, 4)}


def test_under_focal_classification_every_class_of_every_query_is_an_answer():
    out = focal_outputs(2, 7, 5)
    for b, found in enumerate(postprocess(out, SIZES, "focal")):
        answers = {(round(s, 5), k, tuple(box)) for s, k, box in zip(
            found["scores"].tolist(), found["labels"].tolist(), found["boxes"].tolist())}
        height, width = SIZES[b].tolist()
        expected = set()
        for q in range(7):
            cx, cy, w, h = out["pred_boxes"][b, q]
            box = torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)) * torch.tensor(
                [width, height, width, height])
            expected |= {(round(out["pred_logits"][b, q, k].sigmoid().item(), 5), k, tuple(box.tolist()))
                         for k in range(5)}
        assert len(expected) == 35 and {a[:2] for a in answers} == {e[:2] for e in expected}
        boxes = {a[:2]: a[2] for a in answers}
        assert all(boxes[e[:2]] == pytest.approx(e[2], abs=1e-3) for e in expected)


@pytest.mark.parametrize("Q, K, N", [(40, 5, 100), (7, 5, 35), (300, 2, 300)])
def test_the_best_hundred_are_kept_or_as_many_as_there_are_queries(Q, K, N):
    out = focal_outputs(2, Q, K)
    for logits, found in zip(out["pred_logits"], postprocess(out, SIZES, "focal")):
        best = logits.flatten().sigmoid().sort(descending=True).values[:N]
        torch.testing.assert_close(found["scores"], best)
        assert [len(found[name]) for name in ("scores", "labels", "boxes", "queries")] == [N, N, N, N]


def test_every_detection_tells_whose_answer_it_is():
    out = focal_outputs(2, 7, 5)
    for b, found in enumerate(postprocess(out, SIZES, "focal")):
        logits = out["pred_logits"][b, found["queries"], found["labels"]]
        torch.testing.assert_close(found["scores"], logits.sigmoid())
    assert [found["queries"].tolist() for found in postprocess(outputs(), SIZES)] == [list(range(7))] * 2


def test_more_answers_than_coco_counts_are_given_where_more_are_wanted():
    out = {"pred_logits": torch.randn(1, 60, 5), "pred_boxes": torch.rand(1, 60, 4)}
    lengths = [len(postprocess(out, SIZES[:1], "focal", most)[0]["scores"]) for most in (10, 100, 250, 999)]
    assert lengths == [60, 100, 250, 300]  # never fewer than the queries, nor more than queries × classes
