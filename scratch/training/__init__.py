"""training: how weights learn, and how a run survives.

Read: optimizer → schedule (notes) → precision → distributed → ema → checkpoint → log → run → loop.
"""
