"""Correct `fit`, `evaluate` and `predict` under `tf.distribute` strategies."""

from keras_vit.distribution.datasets import MultiWorkerStrategy, distribute_shards, with_sharding
from keras_vit.distribution.strategies import device_kind, strategy
from keras_vit.distribution.trainer import prepare

__all__ = ["MultiWorkerStrategy", "device_kind", "distribute_shards", "prepare", "strategy", "with_sharding"]
