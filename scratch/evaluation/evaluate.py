"""evaluate: how is a model evaluated over a whole split, on one process or on several?

    batch ─▶ model ─▶ outputs ─┬─▶ criterion ─▶ losses
                               ├─▶ health (do the queries respond to the image?)
                               └─▶ postprocess ─▶ CocoEvaluator ─▶ AP         the ranks' results are joined first

Proven in tests/evaluation/test_coco_eval.py.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Callable, ContextManager, Iterable, Optional

import torch
from torch import Tensor, nn
from tqdm import tqdm

from scratch.evaluation.coco_eval import CocoEvaluator, postprocess
from scratch.evaluation.health import QueryHealth


def evaluate(
    model: nn.Module, loader: Iterable, criterion: Optional[Any], evaluator: CocoEvaluator, device: torch.device,
    autocast: Callable[[], ContextManager] = contextlib.nullcontext,
    gather: Callable[[list], list] = lambda items: items, progress: bool = True,
    health: Optional[QueryHealth] = None, shown: Callable[[Any], Any] = lambda batch: batch,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run `model` over the Batches of `loader`; return its figures and every detection as COCO results.

    The figures are `evaluator.summary()`, `images_per_second`, `losses`: each entry of the criterion and their weighted
    total as "loss", as means over the images ({} without a criterion), and `health`: the summary of `QueryHealth`.
    (One that holds the matching of the evaluation before compares it with this one's.) `gather` joins the lists of all
    processes, in the order of their ranks; an image that two processes evaluated counts once. The model returns to the
    mode (train or eval) that it had. `shown` changes the size of a batch (training/progressive). `progress` shows a
    progress bar, on a terminal only.
    """
    health = health or QueryHealth()
    was_training = model.training
    model.eval()
    sums: dict[str, Tensor] = {}
    images, start = 0, time.perf_counter()
    try:
        with torch.no_grad():
            for batch in tqdm(loader, desc="evaluate", unit="batch", leave=False, disable=None if progress else True):
                batch = shown(batch.to(device))
                with autocast():
                    outputs = model(batch.normalised(), batch.pad_mask)
                B = len(batch.targets)
                images += B
                matching = []
                if criterion is not None:
                    matching = criterion.matching(outputs, batch.targets)
                    losses = criterion(outputs, batch.targets, matching=matching)
                    for name, value in {"loss": criterion.total(losses), **losses}.items():
                        sums[name] = sums.get(name, 0) + B * value.float()
                health.update(batch.targets, outputs["pred_boxes"], matching)
                last_layer = {name: outputs[name].cpu() for name in ("pred_logits", "pred_boxes")}
                orig_sizes = torch.tensor([target["orig_size"] for target in batch.targets])       # (B,2)
                found = postprocess(last_layer, orig_sizes, model.config.classification, evaluator.max_dets)
                evaluator.update([target["image_id"] for target in batch.targets], found)
    finally:
        model.train(was_training)
    seconds = time.perf_counter() - start

    mean_parts = {name: float(value) for name, value in sums.items()}
    ranks = gather([(evaluator.results, mean_parts, images, seconds, health.seen)])
    evaluator.results, seen = [], set()
    for results, *_ in ranks:  # a padding sampler gives an image to two ranks: the results of the first one count
        evaluator.results += [r for r in results if r["image_id"] not in seen]
        seen |= {r["image_id"] for r in results}
    health.seen = [part for *_, parts in ranks for part in parts]
    images = sum(count for _, _, count, _, _ in ranks)
    names = dict.fromkeys(name for _, rank_sums, *_ in ranks for name in rank_sums)
    means = {name: sum(rank_sums.get(name, 0.0) for _, rank_sums, *_ in ranks) / images for name in names}
    return {**evaluator.summary(), "losses": means, "health": health.summary(),
            "images_per_second": images / max(seconds for _, _, _, seconds, _ in ranks)}, evaluator.results
