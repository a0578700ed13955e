"""Models by name: published ones, files, folders of runs and repositories."""

from keras_vit.zoo.create import backbone, create_model, describe_model, list_models, load_model

__all__ = ["backbone", "create_model", "describe_model", "list_models", "load_model"]
