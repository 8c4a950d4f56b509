"""attention: which numbers of one forward pass tell what a detector looked at?

    a batch ─▶ model(…, need_weights=True) ─▶ all layers' answers and attention ─▶ Explanation

The model's own interface gives all but one thing: where a query began, before the first layer
answered. Padding is cut off, and what is kept is what a person will look at: the queries that found
something; the last encoder layer, seen from some places, and more coarsely from everywhere.
Proven in tests/test_explain.py. Read: explained → found_by_query → starting_boxes
"""

from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scratch.analysis.attention_record import Explanation, as_bytes, cell_of, coarsened, jpeg
from scratch.data.batch import Batch
from scratch.evaluation.postprocess import postprocess
from scratch.model.detr import Detr, shrink_mask
from scratch.ops.activations import sigmoid
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_box_iou
from scratch.ops.sine_encoding import cell_centres, sine_of


@torch.no_grad()
def explained(model: Detr, batch: Batch, image: Image.Image, names: Sequence[str], about: dict[str, Any],
              points: Sequence[tuple[float, float]], most: int) -> Explanation:
    """The record of the first picture of a batch: `image`, as the model is shown it. `names` are the classes'.

    about    "name", "detector", "threshold" and "encoder_heads" of `Explanation`
    points   (x, y) in shares of the picture; the centres of the detections are added
    most     at most so many detections, the surest
    """
    images, pad_mask, config = batch.normalised(), batch.pad_mask[0], model.config
    outputs = model(images, batch.pad_mask, need_weights=True)
    attention = outputs["attention"]
    found = found_by_query(outputs, config.classification, names, about["threshold"])
    queries = torch.tensor(list(found)[:most], device=images.device)                # (D)

    # All boxes of a query: those with which the layers answered, after that at which it began.
    answers = [*outputs.get("aux_outputs", ()), outputs]
    steps = {config.dec_layers + 1 - len(answers) + k: answer["pred_boxes"][0] for k, answer in enumerate(answers)}
    start = starting_boxes(model, images, batch.pad_mask)
    if start is not None:
        steps = {0: start, **steps}
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

    about = {**about, "size": image.size, "start": config.queries if start is not None else None,
             "layers": list(steps), "found": sum(labels[0][1] >= about["threshold"] for labels in found.values()),
             "detections": [{"query": query, "labels": found[query]} for query in queries.tolist()]}
    return Explanation(
        about, jpeg(image), boxes.cpu().numpy(), paired_box_iou(boxes, boxes[:, -1:]).cpu().numpy(),
        cross.cpu().numpy().astype(np.float16), np.array(points if len(places) else [], np.float32).reshape(-1, 2),
        places.cpu().numpy().astype(np.float16), cells, peaks)


def found_by_query(outputs: dict[str, Any], classification: str, names: Sequence[str],
                   threshold: float) -> dict[int, list[tuple[str, float]]]:
    """Query → its labels, pairs of a class's name and a score; the surest query and the surest label first.

    They are the detections of `predict`. If none reaches the threshold, the surest is there all the same.
    """
    # `postprocess` sorts, and one query may say two things. A box that is its query's number tells whose each one is.
    numbers = torch.arange(outputs["pred_logits"].shape[1], device=outputs["pred_logits"].device)
    tagged = {"pred_logits": outputs["pred_logits"][:1], "pred_boxes": numbers[None, :, None].repeat(1, 1, 4)}
    [detections] = postprocess(tagged, torch.ones(1, 2, device=numbers.device), classification)
    centres = (detections["boxes"][:, 0] + detections["boxes"][:, 2]) / 2
    found: dict[int, list[tuple[str, float]]] = {}
    for k in detections["scores"].argsort(descending=True, stable=True).tolist():
        score = float(detections["scores"][k])
        if found and score < threshold:
            break
        found.setdefault(round(float(centres[k])), []).append((names[int(detections["labels"][k])], score))
    return found


def starting_boxes(model: Detr, images: Tensor, pad_mask: Tensor) -> Optional[Tensor]:
    """The boxes (Q,4) cxcywh at which the queries of the first picture begin; None for learnt vectors, which have none.

    A proposal is the encoder's, and is not among the outputs: the way to it is gone once more.
    """
    config = model.config
    if config.queries == "learned":
        return None
    if config.queries == "anchor":
        return sigmoid(model.refpoint_embed.weight[:config.num_queries])            # (Q,4)
    src = model.input_proj(model.backbone.stages(images)[-1])                       # (B,D,h,w)
    cell_mask = shrink_mask(pad_mask, *src.shape[2:])                               # (B,h,w)
    centres = cell_centres(cell_mask, src.dtype)                                    # (B,S,2)
    memory, _ = model.transformer.encode(src, cell_mask, sine_of(centres, config.hidden_dim // 2))
    anchors, _ = model.proposal_head(memory, centres, cell_mask.flatten(1)).best(config.num_queries)
    return anchors[0]                                                               # (Q,4)


def extent(pad_mask: Tensor, grid: tuple[int, int]) -> tuple[int, int]:
    """How many rows and columns of a grid of cells hold image, for its pad_mask (H,W); what follows is padding."""
    cells = ~shrink_mask(pad_mask[None], *grid)[0]                                  # (h,w)
    return int(cells.any(dim=1).sum()), int(cells.any(dim=0).sum())
