"""fast, a branch: the same arithmetic as the notes of ops/, at speed. The proofs of those notes hold these, too.

Each note of the spine enters by one door, a function that returns None in plain mode (switch). In which order to read:
docs/reading_order.md; for the convolution, convolution → columns → shifted → rows → winograd.
"""
