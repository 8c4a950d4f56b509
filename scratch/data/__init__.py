"""data: from files on a disk to batches on a device.

Read: layouts (what a folder holds) → coco (which images, which boxes) → images (any file becomes RGB) → transforms
(what the network is shown) → batch (images of many sizes in one tensor) → loader (in which order, by which worker);
shapes makes a set to learn from, check tells what is wrong with one.
"""
