"""2:4 sparsity: patterns, pruning, fine-tuning."""
