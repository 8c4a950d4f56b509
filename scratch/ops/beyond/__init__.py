"""beyond, a branch: operations that the published DETR does without.

Read: average_pooling · gelu · group_norm (a backbone in small batches) · focal_loss → quality_focal_loss →
conditional_attention (learning in minutes: model/anchors) · nms → roi_align (what DETR replaced:
model/beyond/two_philosophies; roi_align also refines boxes in model/anchors).
"""
