"""SavedModels for TF Serving."""

from keras_vit.export.description import read_description
from keras_vit.export.serving import predict, saved_model
from keras_vit.export.versions import next_version

__all__ = ["next_version", "predict", "read_description", "saved_model"]
