"""answers: how does a graph turn logits and boxes into detections in pixels, the best first?

    pred_logits (B,Q,K+1)        softmax    per query its best class, "no object" left out
    pred_logits (B,Q,K)          focal      the N best (query, class) pairs
    pred_boxes (B,Q,4), H, W     ─▶ boxes (B,N,4) x₀ y₀ x₁ y₁ in pixels, scores (B,N), labels (B,N)

It is `postprocess` (evaluation/coco_eval), whose definition holds for every line here, written as
nodes; and sorted, as `Detector.predict` sorts. Proven in tests/exporting/test_answers.py.
"""

from __future__ import annotations

import numpy as np
import onnx

from commands.exporting.nodes import Graph, Value
from scratch.evaluation.coco_eval import DETECTIONS


def answers_graph(classification: str, num_queries: int, num_classes: int, ir_version: int) -> onnx.ModelProto:
    """logits, boxes in [0,1] and the sides (H,W) of the pictures → boxes, scores, labels."""
    g = Graph("answers")
    Q, K = num_queries, num_classes
    logits = g.input("logits", np.float32, ["batch", Q, K + (classification == "softmax")])
    boxes_cxcywh = g.input("boxes_shown", np.float32, ["batch", Q, 4])
    sides = g.input("sides_given", np.int64, [2])
    if classification == "focal":
        N = min(Q * K, max(Q, DETECTIONS))
        best, place = best_of(g("Flatten", logits), N)                              # (B,N), (B,N)
        scores, labels, queries = g("Sigmoid", best), g("Mod", place, K), place / K
    else:
        N = Q
        classes = g("Slice", logits, np.array([0]), np.array([K]), np.array([2]))   # (B,Q,K)
        best = g("ReduceMax", classes, axes=[2], keepdims=1)                        # (B,Q,1)
        of_queries = g("Reciprocal", g("ReduceSum", g("Exp", logits - best), np.array([2]), keepdims=0))
        scores, queries = best_of(of_queries, N)
        labels = g("GatherElements", g("ArgMax", classes, axis=2, keepdims=0, dtype=np.int64), queries, axis=1)
    found = g("GatherND", boxes_cxcywh, queries.with_axes(2), batch_dims=1)         # (B,N,4)
    centre, extent = (g("Slice", found, np.array([a]), np.array([a + 2]), np.array([2])) for a in (0, 2))
    corners = g("Concat", centre - extent * 0.5, centre + extent * 0.5, axis=2)     # (B,N,4)
    scale = sides.at([1, 0, 1, 0]).cast(np.float32)                                 # W H W H
    g.output("boxes", corners * scale, ["batch", N, 4])
    g.output("scores", scores, ["batch", N])
    g.output("labels", labels, ["batch", N])
    return g.model(ir_version)


def best_of(scores: Value, N: int) -> tuple[Value, Value]:
    """(B,·) → the N greatest of each row, the greatest first, and their places int64; of equals, the first is first."""
    best, places = scores.graph.several("TopK", scores, np.array([N]), dtypes=[np.float32, np.int64], axis=1)
    return best, places
