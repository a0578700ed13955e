"""Properties of the active backend, on TensorFlow."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vit.backend.runtime import (
    has_flash_attention,
    is_foreign_tensor,
    prefers_separate_bias,
    replica_id,
    to_numpy,
)

pytestmark = pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="TensorFlow's answers")


def test_properties_of_tensorflow():
    assert not has_flash_attention()
    assert prefers_separate_bias("bfloat16")
    assert not prefers_separate_bias("float32")


def test_replicas_are_numbered():
    assert replica_id() == 0
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    assert int(strategy.run(replica_id)) == 0


def test_tensors_of_other_libraries_are_foreign():
    for library in ("torch", "jaxlib.xla_extension"):
        assert is_foreign_tensor(type("Tensor", (), {"__module__": library})())
    assert not is_foreign_tensor(tf.ones(2))
    assert not is_foreign_tensor([1.0])


def test_bfloat16_becomes_float32():
    for value in (tf.constant([1.5], "bfloat16"), [1.5]):
        np.testing.assert_array_equal(to_numpy(value), [1.5])
    assert to_numpy(tf.constant([1.5], "bfloat16")).dtype == "float32"
