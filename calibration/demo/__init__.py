"""The shipped demo model, from nothing: rendered data, training, 2:4 pruning, FP16 and INT8 files, the bundle."""
