"""Evaluation of trained models: metrics, calibration, embeddings and probes, reports with figures."""

import importlib

# Names by the module that has them, imported on first use. A module is called otherwise than its function, which it
# would hide.
_MODULES = {
    "Classifier": "classifier",
    "Embeddings": "embeddings",
    "LinearProbe": "probes",
    "MultiLabelReport": "reports",
    "Segmenter": "segmentation",
    "SingleLabelReport": "reports",
    "calibrate": "temperature_scaling",
    "embed": "extract",
    "embed_to_file": "extract",
    "evaluate": "classification",
    "evaluate_segmentation": "segmentation",
    "expected_calibration_error": "metrics",
    "few_shot": "probes",
    "knn": "neighbors",
    "linear_probe": "probes",
    "load_embeddings": "embeddings",
    "mask_figure": "segmentation",
    "nearest": "neighbors",
    "segment": "segmentation",
}

__all__ = [*_MODULES]  # noqa: PLE0604


def __getattr__(name):
    """Imports the module of a name on first use."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
