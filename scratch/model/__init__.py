"""model: the network.

Read: backbone (pixels → features) → transformer (features → answers) → detr; then what lets it learn in minutes:
anchor_decoder → queries → denoising → proposals → fine_memory.
"""
