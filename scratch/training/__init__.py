"""training: how weights learn, and how a run survives.

Read: optimizer · schedule (notes) → precision · distributed · checkpoint · ema → loop.
"""
