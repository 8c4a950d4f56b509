"""reference: the same detector, written with torch.nn: what `scratch/` is measured against.

`build_reference(config)` has the parameter names of `scratch.model.detr.Detr`, so that the state dict of either loads
strictly into the other; `ReferenceCriterion` has the losses of `SetCriterion`. Written for speed, as somebody who knows
torch.nn would: fused attention, channels-last convolutions, SciPy's assignment. The comments are in `scratch/`.
"""

from reference.model import ReferenceDetr, build_reference
from reference.objective import ReferenceCriterion

__all__ = ["ReferenceCriterion", "ReferenceDetr", "build_reference"]
