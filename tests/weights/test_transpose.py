import keras
import numpy as np
import pytest
from tiny import CONFIG, tiny_vit

from keras_vit.weights import from_checkpoint, save_weights
from keras_vit.weights.files.checkpoint import open_checkpoint
from keras_vit.weights.layouts.detect import detect_layout
from keras_vit.weights.transpose import transpose_in_background

pytestmark = pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="TensorFlow alone turns ahead")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("transpose_in_background") / "model.safetensors"
    save_weights(tiny_vit(), path, layout="timm")
    return open_checkpoint(path)


def turned(checkpoint, config=CONFIG, dtype=None):
    layout = detect_layout(checkpoint, "auto")
    with transpose_in_background(checkpoint, layout, config, dtype) as futures:
        pass
    return {key: future.result() for key, future in futures.items()}


def test_every_matrix_of_the_blocks_is_turned_and_no_head(checkpoint):
    tensors = turned(checkpoint)
    assert len(tensors) == 4 * CONFIG.num_layers
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(tensor), checkpoint[key].T)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_half_precision_are_left_to_fill(checkpoint, dtype):
    assert turned(checkpoint, dtype=dtype) == {}
    assert turned(checkpoint, dtype=f"mixed_{dtype}")


def test_an_error_while_building_waits_for_nothing(checkpoint):
    layout = detect_layout(checkpoint, "auto")
    futures = {}

    def build():
        with transpose_in_background(checkpoint, layout, CONFIG) as started:
            futures.update(started)
            raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        build()
    assert all(future.done() for future in futures.values())


def test_arrays_that_are_no_float32_are_left_to_fill(checkpoint, tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, **{key: checkpoint[key].astype("float64") for key in checkpoint})
    assert set(turned(open_checkpoint(path)).values()) == {None}
    loaded = from_checkpoint(path, num_heads=CONFIG.num_heads, image_size=CONFIG.image_size)
    for ours, expected in zip(loaded.weights, tiny_vit().weights, strict=True):
        np.testing.assert_array_equal(ours, expected)
