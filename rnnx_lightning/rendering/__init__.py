"""Tensors in, pictures out."""
