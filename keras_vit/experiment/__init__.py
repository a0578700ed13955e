"""Runs a recipe, from its data to a SavedModel, and fine-tunes models on images of one's own."""

from keras_vit.experiment.fine_tuning import fine_tune
from keras_vit.experiment.runner import run

__all__ = ["fine_tune", "run"]
