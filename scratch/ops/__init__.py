"""ops: study notes, one idea a file, from a linear layer to the Hungarian algorithm.

They are the spine's; docs/reading_order.md has their order. Branches: fast/ (the same arithmetic at speed), beyond/
(operations that the published DETR does without).
"""
