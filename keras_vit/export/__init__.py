"""SavedModels for TF Serving, and files for other runtimes."""

from keras_vit.export.runtimes import BATCHES, RuntimeFile
from keras_vit.export.serving import next_version, predict, saved_model
from keras_vit.export.to_litert import litert_model
from keras_vit.export.to_onnx import onnx_model
from keras_vit.export.to_openvino import openvino_model

__all__ = [
    "BATCHES",
    "RuntimeFile",
    "litert_model",
    "next_version",
    "onnx_model",
    "openvino_model",
    "predict",
    "saved_model",
]
