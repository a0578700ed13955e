"""Layers of the Swin Transformer."""
