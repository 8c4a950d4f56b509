"""Study notes, one idea a file. Read: init → linear → precision → activations → dropout → embedding
→ windows → conv2d → conv2d_columns → conv2d_fast → conv2d_winograd → conv2d_rows → pooling →
layer_norm → batch_norm → group_norm → attention → attention_tiled → sine_encoding → boxes →
cross_entropy → hungarian → focal_loss → quality_focal_loss → conditional_attention."""
