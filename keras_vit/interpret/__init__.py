"""What the model attends to."""

from keras_vit.interpret.attention import attention_maps, attention_model

__all__ = ["attention_maps", "attention_model"]
