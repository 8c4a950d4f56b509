"""model: the network.

Read: backbone (image → feature map) → transformer (feature map → predictions of the queries) → detr (the whole);
branches: anchors/ (learning in minutes), beyond/.
"""
