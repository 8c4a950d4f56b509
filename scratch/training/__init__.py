"""training: how weights learn, and how a run survives: optimizer · schedule (notes) → precision · distributed · checkpoint · ema → loop."""
