"""Shards the weights of a model over devices, on the JAX backend with `keras.distribution`.

On TensorFlow `keras_vit.distribution` gives every device a whole copy. Here XLA cuts one program for all devices: the
batch along one axis of a mesh of devices, and, where a model is too large for one of them, its widest kernels along
the other:

    os.environ["KERAS_BACKEND"] = "jax"
    config = keras_vit.models.vit_config("giant", patch_size=14)
    keras.distribution.set_distribution(keras_vit.sharding.model_parallel(config, shards=4))
    model = keras_vit.models.build_vit(config)          # built behind it, so that no device ever holds all weights
    model.fit(...)

Nothing else changes: gradients are reduced by XLA before the optimizer sees them, so that clipping is that of the
whole batch.
"""

import keras

BATCH_AXIS, MODEL_AXIS = "batch", "model"

# Regular expressions for the paths of variables, and the axis that each of their dimensions is cut along. A pair of
# products with nothing but element-wise work between them is cut by columns, then by rows: one exchange a pair.
_COLUMNS, _ROWS = (None, MODEL_AXIS), (MODEL_AXIS, None)
LAYOUTS = {
    r".*/(qkv|query|key_value|dense_1)/kernel": _COLUMNS,
    r".*/(qkv|query|key_value|dense_1)/bias": (MODEL_AXIS,),
    r".*(attention|representation)/projection/kernel": _ROWS,
    r".*/dense_2/kernel": _ROWS,
    r".*patch_merging_\d+/reduction/kernel": _COLUMNS,
}


def data_parallel(devices=None):
    """A whole copy of the model on every device, and a part of every batch.

    Args:
        devices: list of names, as `keras.distribution.list_devices()` gives them; all by default.

    Returns:
        A `keras.distribution.DataParallel` for `keras.distribution.set_distribution`.

    Raises:
        ValueError: on another backend than JAX.
    """
    return keras.distribution.DataParallel(devices=_devices(devices), auto_shard_dataset=False)


def model_parallel(config, shards, devices=None):
    """Every kernel of attention and MLP in `shards` pieces, each batch in `devices / shards` parts.

    Biases behind whole sums, norms, positions, tokens and heads are on every device: they are small. Moments and
    averages of the optimizer live where their weights do.

    Args:
        config: the model's `ViTConfig` or `SwinConfig`, whose widths the shards must divide.
        shards: int. Devices that one copy of the model is spread over.
        devices: as for `data_parallel`. The devices of one copy stand side by side: name neighbors in this order.

    Returns:
        A `keras.distribution.ModelParallel` for `keras.distribution.set_distribution`, before the model is built.

    Raises:
        ValueError: on another backend than JAX; if the shards do not divide the devices or a width of the model.

    Source: Shoeybi et al., "Megatron-LM" (arXiv:1909.08053), section 3, for columns and rows.
    """
    devices = _devices(devices)
    if shards < 1 or len(devices) % shards:
        raise ValueError(f"shards must divide the devices. Received: shards={shards}, {len(devices)} devices")
    mesh = keras.distribution.DeviceMesh((len(devices) // shards, shards), (BATCH_AXIS, MODEL_AXIS), devices)
    return keras.distribution.ModelParallel(
        layout_map=layout_map(config, mesh), batch_dim_name=BATCH_AXIS, auto_shard_dataset=False
    )


def layout_map(config, device_mesh):
    """The layouts of `model_parallel` on a mesh of one's own, to be changed or added to.

    Args:
        config: as for `model_parallel`.
        device_mesh: `keras.distribution.DeviceMesh` with an axis `model`.

    Returns:
        A `keras.distribution.LayoutMap`.

    Raises:
        ValueError: if the mesh has no such axis, or it does not divide a width of the model.
    """
    if MODEL_AXIS not in device_mesh.axis_names:
        raise ValueError(f"a mesh must have an axis {MODEL_AXIS!r}. Received: axis_names={device_mesh.axis_names}")
    shards = device_mesh.shape[device_mesh.axis_names.index(MODEL_AXIS)]
    if uneven := {name: width for name, width in config.sharded_widths().items() if width % shards}:
        raise ValueError(f"the shards must divide the widths of the model. Received: {shards} shards for {uneven}")
    layouts = keras.distribution.LayoutMap(device_mesh)
    for path, axes in LAYOUTS.items():
        layouts[path] = axes
    return layouts


def _devices(devices):
    if keras.backend.backend() != "jax":
        raise ValueError(
            "keras.distribution cuts models on the JAX backend alone: set KERAS_BACKEND=jax before Keras is imported. "
            "On TensorFlow keras_vit.distribution has the strategies. "
            f"Received: backend={keras.backend.backend()!r}"
        )
    return list(devices) if devices else keras.distribution.list_devices()
