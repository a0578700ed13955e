"""Optimizers, learning-rate schedules and layer-wise decay."""
