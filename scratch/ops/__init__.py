"""Study notes, one idea a file: the operations of the published DETR.

Read: linear → activations → init → dropout → attention → layer_norm → sine_encoding → windows → conv2d → batch_norm →
boxes → hungarian → cross_entropy. Branches: fast (the same at speed), beyond (what the published DETR does without).
"""
