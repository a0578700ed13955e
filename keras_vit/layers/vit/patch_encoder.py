"""Embedding of patches: projection, extra tokens, positions."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_vit.backend.keras_private import own_variables
from keras_vit.layers.core.composite import MAX_CONSTANT_BYTES, CompositeLayer
from keras_vit.layers.core.dense import make_dense
from keras_vit.layers.core.dropout import make_dropout
from keras_vit.layers.core.resample import METHODS, position_matrices, resize_positions
from keras_vit.layers.vit.positions import POSITION_EMBEDDINGS, sincos2d, sincos_axes
from keras_vit.validation import as_pair, check_choice, check_positive


@keras.saving.register_keras_serializable(package="keras_vit")
class PatchEncoder(CompositeLayer):
    """Projects patches linearly, prepends the extra tokens and adds positions.

    The order is class token, distillation token, registers, patches. Registers never have a position.
    Weights saved at another grid are resized when they are loaded, with a warning.

    Args:
        hidden_dim: int. Width of a token.
        grid_size: int or `(h, w)`. Patches of an image.
        class_token: bool. Default True.
        distillation_token: bool. Default False.
        num_registers: int. Default 0.
        position_embedding: `learned`, or fixed and without a weight: `sincos2d` with the frequencies of
            big_vision, `sincos2d_moco` with those of MoCo-v3 and MAE. Default `learned`.
        position_on_prefix: bool. Whether class and distillation token have an entry in the table; in the
            fixed table that entry is zero. Default True.
        position_resize: one of `keras_vit.layers.core.resample.METHODS`. Default `bicubic_antialias`.
        patch_bias: bool. Whether the projection has a bias. Default True.
        dropout_rate: float in [0, 1). Default 0.
        dynamic_grid_size: bool. Whether the patches come on their grid, which may have any size; the positions, a table
            of `grid_size`, are resized to it in each call by `position_resize`, fixed ones computed. Default False.

    Call arguments:
        patches: tensor `(batch, h * w, patch_dim)`, with `dynamic_grid_size` `(batch, h, w, patch_dim)`.
        training: bool.

    Returns:
        Tensor `(batch, prefix + h * w, hidden_dim)`.

    Raises:
        ValueError: if the number of patches is not that of the grid.

    Source: Dosovitskiy et al., arXiv:2010.11929, equation 1; distillation token: Touvron et al.,
    arXiv:2012.12877; registers: Darcet et al., arXiv:2309.16588.
    """

    def __init__(
        self,
        hidden_dim,
        grid_size,
        class_token=True,
        distillation_token=False,
        num_registers=0,
        position_embedding="learned",
        position_on_prefix=True,
        position_resize="bicubic_antialias",
        patch_bias=True,
        dropout_rate=0.0,
        dynamic_grid_size=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_dim = check_positive(hidden_dim, "hidden_dim")
        self.grid_size = as_pair(grid_size, "grid_size")
        self.class_token = class_token
        self.distillation_token = distillation_token
        self.num_registers = num_registers
        self.position_embedding = check_choice(position_embedding, POSITION_EMBEDDINGS, "position_embedding")
        self.position_on_prefix = position_on_prefix
        self.position_resize = check_choice(position_resize, METHODS, "position_resize")
        self.patch_bias = patch_bias
        self.dropout_rate = dropout_rate
        self.dynamic_grid_size = dynamic_grid_size
        if num_registers < 0:
            raise ValueError(f"num_registers must not be negative. Received: num_registers={num_registers}")
        if position_embedding != "learned" and hidden_dim % 4:
            raise ValueError(
                f"{position_embedding} needs a hidden_dim that is a multiple of 4. Received: hidden_dim={hidden_dim}"
            )
        self.dropout = make_dropout(self, "dropout", dropout_rate)

    @property
    def num_positioned_prefix(self):
        """int. Entries of the position table before those of the patches."""
        return (int(self.class_token) + int(self.distillation_token)) * int(self.position_on_prefix)

    def build(self, input_shape):
        self._check_shape(input_shape)
        self.projection = make_dense(self, "projection", self.hidden_dim, "lecun_normal", use_bias=self.patch_bias)
        self.projection.build(input_shape)
        self._prefix = []
        counts = {
            "class_token": int(self.class_token),
            "distillation_token": int(self.distillation_token),
            "register_tokens": self.num_registers,
        }
        for name, count in counts.items():
            if count:
                initializer = keras.initializers.RandomNormal(stddev=0.02)
                token = self.add_weight(name=name, shape=(1, count, self.hidden_dim), initializer=initializer)
                self._prefix.append(token)
        entries = self.num_positioned_prefix + self.grid_size[0] * self.grid_size[1]
        if self.position_embedding == "learned":
            initializer = keras.initializers.RandomNormal(stddev=0.02)
            self._positions = self.add_weight(
                name="position_embedding",
                shape=(1, entries, self.hidden_dim),
                initializer=initializer,
                # Resized as it is stored, and rounded to half precision afterwards.
                autocast=not self.dynamic_grid_size,
            )
        else:
            zeros = np.zeros((1, self.num_positioned_prefix, self.hidden_dim), "float32")
            table = sincos2d(self.grid_size, self.hidden_dim, endpoint=self._endpoint)
            self._positions = np.concatenate([zeros, table], axis=1)

    def _check_shape(self, input_shape):
        if self.dynamic_grid_size:
            if len(input_shape) != 4:
                raise ValueError(
                    "patches must have the shape (batch, h, w, patch_dim) for dynamic_grid_size=True. "
                    f"Received: shape={tuple(input_shape)}"
                )
            return
        patches = self.grid_size[0] * self.grid_size[1]
        if len(input_shape) != 3 or input_shape[1] not in (None, patches):
            raise ValueError(
                f"patches must have the shape (batch, {patches}, patch_dim) for grid_size={self.grid_size}. "
                f"Received: shape={tuple(input_shape)}"
            )

    @property
    def positions(self):
        """The position table `(1, entries, hidden_dim)`: a variable, or an array if it is fixed."""
        return self._positions

    @property
    def _endpoint(self):
        return self.position_embedding == "sincos2d"

    def _table(self):
        """The position table as a tensor; one that would be a large constant is assembled from its axes."""
        if self.position_embedding == "learned" or self._positions.nbytes <= MAX_CONSTANT_BYTES:
            return ops.cast(self._positions, self.compute_dtype)
        shape = (*self.grid_size, self.hidden_dim // 2)
        axes = sincos_axes(self.grid_size, self.hidden_dim, endpoint=self._endpoint)
        table = ops.concatenate([ops.broadcast_to(axis, shape) for axis in axes], axis=-1)
        zeros = ops.zeros((1, self.num_positioned_prefix, self.hidden_dim), "float32")
        table = ops.concatenate([zeros, ops.reshape(table, (1, -1, self.hidden_dim))], axis=1)
        return ops.cast(table, self.compute_dtype)

    def _table_for(self, grid_size):
        """The position table of a grid, whose sides may be tensors in a graph."""
        known = all(isinstance(side, int) for side in grid_size)
        if known and grid_size == self.grid_size:
            return self._table()
        xp, width, prefix = np if known else ops, self.hidden_dim, self.num_positioned_prefix
        if self.position_embedding == "learned":
            table = ops.cast(self._positions, "float32")
            grid = ops.reshape(table[0, prefix:], (*self.grid_size, width))
            rows, columns = (
                ops.cast(matrix, "float32")
                for matrix in position_matrices(self.grid_size, grid_size, self.position_resize, xp)
            )
            resized = ops.einsum("ah,bw,hwd->abd", rows, columns, grid)
            front = table[:, :prefix]
        else:
            axes = sincos_axes(grid_size, width, endpoint=self._endpoint, xp=xp)
            resized = ops.concatenate([ops.broadcast_to(axis, (*grid_size, width // 2)) for axis in axes], axis=-1)
            front = ops.zeros((1, prefix, width), "float32")
        table = ops.concatenate([front, ops.reshape(resized, (1, -1, width))], axis=1)
        return ops.cast(table, self.compute_dtype)

    def call(self, patches, training=False):
        self._check_shape(patches.shape)
        if self.dynamic_grid_size:
            batch, *grid_size, patch_dim = ops.shape(patches)
            patches = ops.reshape(patches, (batch, grid_size[0] * grid_size[1], patch_dim))
            positions = self._table_for(tuple(grid_size))
        else:
            positions = self._table()
        tokens = self.projection(patches)
        num_positioned = self.num_positioned_prefix
        tokens = tokens + positions[:, num_positioned:]
        if self._prefix:
            prefix = ops.concatenate([ops.cast(token, self.compute_dtype) for token in self._prefix], axis=1)
            if num_positioned:
                positioned = prefix[:, :num_positioned] + positions[:, :num_positioned]
                prefix = ops.concatenate([positioned, prefix[:, num_positioned:]], axis=1)
            # Positions are added before the tokens are repeated: one row instead of a batch of them.
            prefix = ops.repeat(prefix, ops.shape(tokens)[0], axis=0)
            tokens = ops.concatenate([prefix, tokens], axis=1)
        return self.dropout(tokens, training=training)

    def compute_output_shape(self, input_shape):
        self._check_shape(input_shape)
        prefix = int(self.class_token) + int(self.distillation_token) + self.num_registers
        grid_size = input_shape[1:3] if self.dynamic_grid_size else self.grid_size
        tokens = None if None in grid_size else prefix + grid_size[0] * grid_size[1]
        return (input_shape[0], tokens, self.hidden_dim)

    def save_own_variables(self, store):
        for variable in own_variables(self):
            store[variable.name] = ops.convert_to_numpy(variable)
        store["grid_size"] = np.array(self.grid_size)

    def load_own_variables(self, store):
        variables = {variable.name: variable for variable in own_variables(self)}
        stored = set(store.keys()) - {"grid_size"}
        if stored != set(variables):
            raise ValueError(
                f"the weights of layer {self.name!r} must be {sorted(variables)}. Received: {sorted(stored)}"
            )
        for name, variable in variables.items():
            value = np.asarray(store[name])
            if name == "position_embedding":
                value = self._resized(value, tuple(int(side) for side in np.asarray(store["grid_size"])))
            variable.assign(value)

    def _resized(self, table, grid_size):
        if grid_size != self.grid_size:
            warnings.warn(
                f"positions of the grid {grid_size} are resized to {self.grid_size} ({self.position_resize}).",
                stacklevel=2,
            )
        return resize_positions(table, grid_size, self.grid_size, self.num_positioned_prefix, self.position_resize)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "grid_size": list(self.grid_size),
            "class_token": self.class_token,
            "distillation_token": self.distillation_token,
            "num_registers": self.num_registers,
            "position_embedding": self.position_embedding,
            "position_on_prefix": self.position_on_prefix,
            "position_resize": self.position_resize,
            "patch_bias": self.patch_bias,
            "dropout_rate": self.dropout_rate,
            "dynamic_grid_size": self.dynamic_grid_size,
        }
