"""anchors, a branch: the DETR that learns in minutes.

Read: queries → decoder → transformer → denoising → proposals → fine_memory → roi_features → detr.
"""
