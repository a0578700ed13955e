"""Cuts images into patches."""

import keras
from keras import ops

from keras_vit.validation import as_pair, check_divides


@keras.saving.register_keras_serializable(package="keras_vit")
class Patches(keras.layers.Layer):
    """Cuts images into non-overlapping patches, without weights.

    The order is that of einops' `b (h p1) (w p2) c -> b (h w) (p1 p2 c)`: rows of the grid first, and
    within a patch row, column, channel. So a dense layer after it equals a strided convolution whose
    kernel `(ph, pw, c, hidden_dim)` is reshaped to `(ph * pw * c, hidden_dim)`.

    Args:
        patch_size: int or `(h, w)`, pixels.
        drop_remainder: bool. Whether to ignore pixels right of and below the last whole patch, as a strided
            convolution does. Default False.
        keep_grid: bool. Whether the patches stay on their grid. Default False: a sequence.

    Call arguments:
        images: tensor `(batch, height, width, channels)`; height and width are multiples of the
            patch's unless `drop_remainder`.

    Returns:
        Tensor `(batch, height // ph * width // pw, ph * pw * channels)`, or with `keep_grid`
        `(batch, height // ph, width // pw, ph * pw * channels)`.

    Raises:
        ValueError: if the rank is not 4, or the image is no multiple of the patch.

    Source: Dosovitskiy et al., arXiv:2010.11929, section 3.1.
    """

    def __init__(self, patch_size, drop_remainder=False, keep_grid=False, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = as_pair(patch_size, "patch_size")
        self.drop_remainder = drop_remainder
        self.keep_grid = keep_grid

    def build(self, input_shape):
        self._check(input_shape)
        self.built = True

    def _check(self, input_shape):
        if len(input_shape) != 4:
            raise ValueError(
                f"images must have the shape (batch, height, width, channels). Received: shape={tuple(input_shape)}"
            )
        if None not in input_shape[1:3] and not self.drop_remainder:
            check_divides(input_shape[1:3], self.patch_size)

    def call(self, images):
        self._check(images.shape)
        batch, height, width, channels = ops.shape(images)
        # Where the sides are known only when the graph runs, a wrong one must not pass as another batch.
        batch = batch if None in images.shape[1:3] else -1
        ph, pw = self.patch_size
        rows, columns = height // ph, width // pw
        if self.drop_remainder:
            images = images[:, : rows * ph, : columns * pw]
        x = ops.reshape(images, (batch, rows, ph, columns, pw, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (batch, rows, columns, ph, pw, channels)
        grid = (rows, columns) if self.keep_grid else (rows * columns,)
        return ops.reshape(x, (batch, *grid, ph * pw * channels))

    def compute_output_shape(self, input_shape):
        self._check(input_shape)
        batch, height, width, channels = input_shape
        ph, pw = self.patch_size
        rows, columns = (None if side is None else side // p for side, p in ((height, ph), (width, pw)))
        tokens = None if None in (rows, columns) else rows * columns
        grid = (rows, columns) if self.keep_grid else (tokens,)
        return (batch, *grid, None if channels is None else ph * pw * channels)

    def get_config(self):
        return {
            **super().get_config(),
            "patch_size": list(self.patch_size),
            "drop_remainder": self.drop_remainder,
            "keep_grid": self.keep_grid,
        }
