"""Logits and boxes become the detections that `postprocess` makes of them, the best first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scratch.evaluation.coco_eval import postprocess
from tests.exporting.conftest import WANTED

onnx = pytest.importorskip("onnx", reason=WANTED)
onnxruntime = pytest.importorskip("onnxruntime", reason=WANTED)

from commands.exporting.answers import answers_graph  # noqa: E402


@pytest.mark.parametrize("classification, Q, K", [("softmax", 7, 5), ("softmax", 3, 1), ("focal", 7, 5),
                                                  ("focal", 41, 3), ("focal", 3, 2), ("focal", 103, 2)])
def test_they_are_those_of_postprocess_in_the_order_of_their_scores(classification: str, Q: int, K: int):
    model = answers_graph(classification, Q, K, 8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits, boxes = 3 * torch.randn(2, Q, K + (classification == "softmax")), torch.rand(2, Q, 4)
    expected = postprocess({"pred_logits": logits, "pred_boxes": boxes}, torch.tensor([[11, 13]] * 2), classification)
    found = session.run(None, {"logits": logits.numpy(), "boxes_shown": boxes.numpy(),
                               "sides_given": np.array([11, 13])})
    for image, *here in zip(expected, *found, strict=True):
        order = image["scores"].argsort(descending=True, stable=True)
        for name, value in zip(("boxes", "scores", "labels"), here):
            torch.testing.assert_close(torch.from_numpy(value), image[name][order], rtol=1e-6, atol=1e-6)
        assert (np.diff(here[1]) <= 0).all()


def test_no_object_is_never_a_label_however_sure_it_is():
    session = onnxruntime.InferenceSession(answers_graph("softmax", 1, 2, 8).SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    boxes, scores, labels = session.run(None, {"logits": np.array([[[1.0, 2.0, 200.0]]], np.float32), "boxes_shown":
                                               np.array([[[0.5, 0.5, 1.0, 0.5]]], np.float32),
                                               "sides_given": np.array([40, 60])})
    assert labels.tolist() == [[1]] and scores[0, 0] == 0 and boxes.tolist() == [[[0.0, 10.0, 60.0, 30.0]]]
