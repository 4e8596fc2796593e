"""Tensors in, objects out."""
