"""model: the network.

Read: backbone (pixels → features) → transformer (features → answers) → detr; branches: anchors/, beyond/
"""
