"""objective: which prediction is trained on which object, and how wrong is it?

Read: matcher (bipartite matching) → criterion (the losses); branch: variant (focal, groups, noised boxes, cells).
"""
