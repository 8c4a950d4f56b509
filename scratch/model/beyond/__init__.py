"""beyond, a branch: two_philosophies (what DETR replaced) · compiled (kernels that PyTorch writes)."""
