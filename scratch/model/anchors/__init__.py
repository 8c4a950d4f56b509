"""anchors, a branch: the DETR that learns in minutes.

Read: decoder → queries → denoising → proposals → fine_memory → transformer → detr.
"""
