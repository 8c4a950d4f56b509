"""anchors, a branch: the DETR that learns in minutes.

Read: decoder → transformer → queries → denoising → proposals → fine_memory → detr.
"""
