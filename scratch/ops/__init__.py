"""Study notes, one idea a file. Read: init → linear → precision → activations → dropout → embedding
→ windows → conv2d → fast/columns → fast/shifted → fast/winograd → fast/rows → pooling →
layer_norm → batch_norm → group_norm → attention → fast/tiled_attention → sine_encoding → boxes →
cross_entropy → hungarian → focal_loss → quality_focal_loss → conditional_attention."""
