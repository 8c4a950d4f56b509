"""fast, a branch: the same arithmetic as the notes of ops/, at speed. The proofs of those notes hold these, too.

Read: switch (the doors, and plain mode) → precision → activations · layer_norm → batch_norm · overlap → max_pool ·
columns → shifted → rows → winograd (convolution) · dropout → tiled_attention.
"""
