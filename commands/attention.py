"""attention: which numbers of one forward pass show to what a detector attended?

    a batch ─▶ model(…, need_weights=True) ─▶ all layers' answers and attention ─▶ Explanation

The model's own interface gives all of it. Padding is cut off, and what is kept is what a person
will look at: the queries that found something; the last encoder layer, seen from some places, and
more coarsely from everywhere. Proven in tests/test_explain.py. Read: explained → found_by_query
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scratch.analysis.attention_record import Explanation, as_bytes, cell_of, coarsened, jpeg
from scratch.data.batch import Batch
from scratch.evaluation.coco_eval import postprocess
from scratch.model.detr import Detr, shrink_mask
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_box_iou


@torch.no_grad()
def explained(model: Detr, batch: Batch, image: Image.Image, names: Sequence[str], about: dict[str, Any],
              points: Sequence[tuple[float, float]], most: int) -> Explanation:
    """The record of the first picture of a batch: `image`, as the model is shown it. `names` are the classes'.

    about    "name", "detector", "threshold" and "encoder_heads" of `Explanation`
    points   (x, y) in shares of the picture; the centres of the detections are added
    most     at most this number of detections, those with the highest scores
    """
    pad_mask, config = batch.pad_mask[0], model.config
    outputs = model(batch.normalised(), batch.pad_mask, need_weights=True)
    attention = outputs["attention"]
    found = found_by_query(outputs, config.classification, names, about["threshold"])
    queries = torch.tensor(list(found)[:most], device=pad_mask.device)              # (D)

    # All boxes of a query: those with which the layers answered, after that at which it began.
    answers = [*outputs.get("aux_outputs", ()), outputs]
    steps = {config.dec_layers + 1 - len(answers) + k: answer["pred_boxes"][0] for k, answer in enumerate(answers)}
    if "anchors" in attention:  # learnt vectors begin nowhere
        steps = {0: attention["anchors"][0], **steps}
    boxes = box_cxcywh_to_xyxy(torch.stack([step[queries] for step in steps.values()], dim=1))  # (D,l,4)

    to_memory = attention["decoder_cross"][:, 0][:, :, queries].permute(2, 0, 1, 3)  # (D,L,N,S')
    rows, columns = extent(pad_mask, attention["cross_size"])
    cross = to_memory.unflatten(-1, attention["cross_size"])[..., :rows, :columns]  # (D,L,N,h',w')
    places = torch.zeros(0, config.nheads, 1, 1)
    cells, peaks = np.zeros((0, 0, 1, 1), np.uint8), np.zeros((0, 0), np.float32)
    if attention["encoder"]:
        centres = ((boxes[:, -1, :2] + boxes[:, -1, 2:]) / 2).clamp(0, 1)           # (D,2)
        points = [*points, *centres.tolist()]
        rows, columns = extent(pad_mask, attention["size"])
        among = attention["encoder"][-1][0].unflatten(2, attention["size"]).unflatten(1, attention["size"])
        among = among[:, :rows, :columns, :rows, :columns]                          # (N,h,w,h,w), from and to
        i, j = zip(*(cell_of(x, y, (rows, columns)) for x, y in points))
        places = among[:, list(i), list(j)].transpose(0, 1)                         # (P,N,h,w)
        average = among.mean(dim=0, keepdim=True)
        kept = coarsened((torch.cat((average, among)) if about["encoder_heads"] else average).cpu().numpy())
        cells, peaks = as_bytes(kept.reshape(len(kept), -1, *kept.shape[3:]))       # (E,S,h,w), (E,S)

    about = {**about, "size": image.size, "start": config.queries if 0 in steps else None,
             "layers": list(steps), "found": sum(labels[0][1] >= about["threshold"] for labels in found.values()),
             "detections": [{"query": query, "labels": found[query]} for query in queries.tolist()]}
    return Explanation(
        about, jpeg(image), boxes.cpu().numpy(), paired_box_iou(boxes, boxes[:, -1:]).cpu().numpy(),
        cross.cpu().numpy().astype(np.float16), np.array(points if len(places) else [], np.float32).reshape(-1, 2),
        places.cpu().numpy().astype(np.float16), cells, peaks)


def found_by_query(outputs: dict[str, Any], classification: str, names: Sequence[str],
                   threshold: float) -> dict[int, list[tuple[str, float]]]:
    """Query → its labels, pairs of a class name and a score; queries and labels by falling score.

    They are the detections of `predict`. If none reaches the threshold, the one with the highest score is kept.
    """
    first = {name: outputs[name][:1] for name in ("pred_logits", "pred_boxes")}
    [detections] = postprocess(first, torch.ones(1, 2), classification)
    found: dict[int, list[tuple[str, float]]] = {}
    for k in detections["scores"].argsort(descending=True, stable=True).tolist():
        score = float(detections["scores"][k])
        if found and score < threshold:
            break
        # One query may say two things.
        found.setdefault(int(detections["queries"][k]), []).append((names[int(detections["labels"][k])], score))
    return found


def extent(pad_mask: Tensor, grid: tuple[int, int]) -> tuple[int, int]:
    """How many rows and columns of a grid of cells hold image, for its pad_mask (H,W); what follows is padding."""
    cells = ~shrink_mask(pad_mask[None], *grid)[0]                                  # (h,w)
    return int(cells.any(dim=1).sum()), int(cells.any(dim=0).sum())
