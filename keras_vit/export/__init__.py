"""SavedModels for TF Serving."""

from keras_vit.export.saved_model import next_version, predict, saved_model

__all__ = ["next_version", "predict", "saved_model"]
