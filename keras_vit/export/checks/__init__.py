"""Checks of an exported SavedModel."""
