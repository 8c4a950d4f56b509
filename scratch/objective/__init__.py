"""objective: which answer is meant for which object, and how wrong is it?

Read: matcher (pair) → criterion (blame).
"""
