"""Compiles and fits a model: callbacks, checkpoints, preemption, several workers."""
