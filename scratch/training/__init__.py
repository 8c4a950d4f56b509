"""training: how weights learn, and how a run survives.

Read: optimizer → schedule → loop (the spine); then muon → fast_adamw → precision → distributed → ema → checkpoint →
run → memory → watch → guards → log → interrupt.
"""
