"""objective: which answer is meant for which object, and how wrong is it? matcher (pair) → criterion (blame)."""
