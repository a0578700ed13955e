"""Layers of the Vision Transformer."""
