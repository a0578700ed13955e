"""The version of the library; setup.cfg and `keras_vit --version` read it here without importing Keras."""

__version__ = "0.1.0"
