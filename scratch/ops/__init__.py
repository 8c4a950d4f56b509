"""Study notes, one idea a file. Read: init → linear → activations → dropout → embedding → conv2d → conv2d_fast →
pooling → layer_norm → batch_norm → group_norm → attention → sine_encoding → boxes → cross_entropy → hungarian."""
