"""drawings: pictures that code draws, shown on the page of a note after its opening.

Every number in them is computed by scratch/ when the picture is drawn. Proven in tests/site/test_drawings.py.
"""

from __future__ import annotations

from docs.site.drawings import (attending, boxes, denoising, loss, matching, network, norms, schedule, scores,
                                windows)
from docs.site.drawings.drawing import Drawing

# note, as in the reading order ("ops/attention") → its pictures, in the order of the page
DRAWINGS: dict[str, list[Drawing]] = {
    "ops/activations": [scores.SOFTMAX],
    "ops/init": [schedule.INIT],
    "ops/attention": [attending.ATTENTION, attending.HEADS_OF_ATTENTION],
    "ops/layer_norm": [norms.LAYER_NORM],
    "ops/sine_encoding": [attending.ENCODING],
    "ops/windows": [windows.RECEPTIVE_FIELD],
    "ops/conv2d": [windows.IM2COL],
    "ops/batch_norm": [norms.BATCH_NORM],
    "model/backbone": [network.BACKBONE],
    "model/transformer": [network.TRANSFORMER],
    "model/detr": [network.DETR],
    "ops/boxes": [boxes.BOXES],
    "ops/hungarian": [matching.HUNGARIAN],
    "objective/matcher": [matching.MATCHER],
    "ops/cross_entropy": [scores.CROSS_ENTROPY],
    "objective/criterion": [loss.LOSS],
    "training/schedule": [schedule.SCHEDULE],
    "ops/beyond/focal_loss": [scores.FOCAL_LOSS],
    "model/anchors/denoising": [denoising.MASK, denoising.NOISE],
}
