"""Attention maps and attention rollout."""

from keras_vit.interpret.attention import attention_maps, attention_model
from keras_vit.interpret.rollout import rollout, rollout_model

__all__ = ["attention_maps", "attention_model", "rollout", "rollout_model"]
