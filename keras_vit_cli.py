"""The console entry point, beside the package so that `keras_vit --help` answers without importing Keras."""

__version__ = "0.1.0"
