"""fast, a branch: the same arithmetic as the notes of ops/, at speed. The proofs of those notes hold these, too.

Read: columns → shifted → rows → winograd (convolution), tiled_attention.
"""
