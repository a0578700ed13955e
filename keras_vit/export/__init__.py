"""SavedModels for TF Serving."""

from keras_vit.export.publish import publish_version, roll_back
from keras_vit.export.server_files import write_server_files
from keras_vit.export.serving import next_version, predict, saved_model
from keras_vit.export.warmup import replay_warmup, write_warmup

__all__ = [
    "next_version",
    "predict",
    "publish_version",
    "replay_warmup",
    "roll_back",
    "saved_model",
    "write_server_files",
    "write_warmup",
]
