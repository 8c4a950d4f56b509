"""training: how weights learn, and how a run survives.

Read: optimizer → muon → schedule (notes) → precision → distributed → ema → checkpoint → log → run → loop.
"""
