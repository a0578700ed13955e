"""Layers and functions that all families share."""
