"""SavedModels for TF Serving."""

from keras_vit.export.serving import next_version, predict, saved_model

__all__ = ["next_version", "predict", "saved_model"]
