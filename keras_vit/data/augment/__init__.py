"""Augmentation as graph operations."""
