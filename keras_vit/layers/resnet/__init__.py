"""Layers of the ResNet stems of hybrids."""
