"""reference: the same detector, written with torch.nn: what `scratch/` is measured against.

`build_reference(config)` has the parameter names of `scratch.model.detr.Detr`, so that the state dict of either loads
strictly into the other; `ReferenceCriterion` has the losses of `SetCriterion`, `ReferenceMuon` the steps of `Muon`.
Written for speed, as somebody who knows torch.nn would: fused attention, channels-last convolutions, SciPy's
assignment. The comments are in `scratch/`.
"""

from __future__ import annotations

import torch

from reference.anchors import ReferenceAnchorDetr
from reference.model import ReferenceDetr
from reference.muon import ReferenceMuon
from reference.objective import ReferenceCriterion
from scratch.config import ModelConfig

__all__ = ["ReferenceAnchorDetr", "ReferenceCriterion", "ReferenceDetr", "ReferenceMuon", "build_reference"]


def build_reference(config: ModelConfig) -> ReferenceDetr | ReferenceAnchorDetr:
    """The detector of `config` with random weights, its convolutions' weights stored channels-last."""
    kind = ReferenceDetr if config.queries == "learned" else ReferenceAnchorDetr
    return kind(config).to(memory_format=torch.channels_last)
