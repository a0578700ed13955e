"""SavedModels for TF Serving, and files for other runtimes."""

from keras_vit.export.checks.run import check
from keras_vit.export.publish import publish_version, roll_back
from keras_vit.export.runtimes.base import BATCHES, RuntimeFile
from keras_vit.export.runtimes.litert import litert_model
from keras_vit.export.runtimes.onnx import onnx_model
from keras_vit.export.runtimes.openvino import openvino_model
from keras_vit.export.saved_models import predict, saved_model
from keras_vit.export.segmentation import segment_files, segmentation_model
from keras_vit.export.servable.description import read_description
from keras_vit.export.servable.options import ExportOptions
from keras_vit.export.server.files import write_server_files
from keras_vit.export.server.warmup import replay_warmup, write_warmup
from keras_vit.export.versions import next_version

__all__ = [
    "BATCHES",
    "ExportOptions",
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
    "segment_files",
    "segmentation_model",
    "write_server_files",
    "write_warmup",
]
