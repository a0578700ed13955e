"""SavedModels for TF Serving, and files for other runtimes."""

from keras_vit.export.conformance import check
from keras_vit.export.description import read_description
from keras_vit.export.publish import publish_version, roll_back
from keras_vit.export.runtimes import BATCHES, RuntimeFile
from keras_vit.export.server_files import write_server_files
from keras_vit.export.serving import predict, saved_model
from keras_vit.export.to_litert import litert_model
from keras_vit.export.to_onnx import onnx_model
from keras_vit.export.to_openvino import openvino_model
from keras_vit.export.versions import next_version
from keras_vit.export.warmup import replay_warmup, write_warmup

__all__ = [
    "BATCHES",
    "RuntimeFile",
    "check",
    "litert_model",
    "next_version",
    "onnx_model",
    "openvino_model",
    "predict",
    "publish_version",
    "read_description",
    "replay_warmup",
    "roll_back",
    "saved_model",
    "write_server_files",
    "write_warmup",
]
