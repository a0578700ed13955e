"""Opens data sets of TensorFlow Datasets as encoded images."""

import functools

import tensorflow as tf

from keras_vit.data.sources.encoded import EncodedDataset, EncodedShards
from keras_vit.validation import nearest

# The labels of ImageNet ReaL, which TFDS calls imagenet2012_real.
_SETS = "real_label"


def open_tfds(config):
    """Opens an image data set of TensorFlow Datasets with the features `image` and `label`, or ImageNet ReaL.

    Args:
        config: `DataConfig` with `name`.

    Returns:
        An `EncodedDataset`; of ReaL, whose images have any number of labels, with rows of 0 and 1.

    Raises:
        ValueError: if TFDS is not installed, the data set is unknown or has other features.
    """
    builder, skip = _builder(config)
    features = builder.info.features
    label = _SETS if _SETS in features else "label"
    classes = dict(features.items()).get(label)
    classes = getattr(classes, "feature", classes)  # of the elements of a sequence
    if "image" not in features or not hasattr(classes, "names"):
        raise ValueError(
            f"a data set must have 'image' and 'label', a class. Received: {config.name!r} with {sorted(features)}"
        )

    encoded = functools.partial(_split, builder, config, {"image": skip}, label)
    channels = features["image"].shape[-1] or 3
    return EncodedDataset(config.name, tuple(classes.names), channels, encoded)


def open_tfds_masks(config):
    """Opens a data set of TensorFlow Datasets whose images have a segmentation mask.

    Args:
        config: `DataConfig` with `name`.

    Returns:
        The number of channels of its images, and a callable from the name of a split to an `EncodedShards` whose `read`
        gives the encoded image and the encoded mask.

    Raises:
        ValueError: as `open_tfds`; if the data set has no mask, or several.
    """
    builder, skip = _builder(config)
    features = builder.info.features
    masks = [name for name in features if name != "image" and _is_mask(name, features[name])]
    if "image" not in features or len(masks) != 1:
        raise ValueError(
            "a data set to segment must have 'image' and one mask, an image of one channel such as "
            f"'segmentation_mask'. Received: {config.name!r} with {sorted(features)}"
        )
    (mask,) = masks
    encoded = functools.partial(_split, builder, config, {"image": skip, mask: skip}, mask)
    return features["image"].shape[-1] or 3, encoded


def _is_mask(name, feature):
    """Returns whether a feature is an image of labels."""
    is_named = any(word in name for word in ("mask", "segment", "annotation"))
    return is_named and hasattr(feature, "encoding_format") and feature.shape[-1] in (1, None)


def _builder(config):
    """The builder of a data set, and the decoder that leaves images encoded."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            "TensorFlow Datasets is missing: pip install 'keras-vit-zoo[data] @ git+<this repository>'"
        ) from error
    try:
        builder = tfds.builder(config.name, data_dir=config.data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        raise ValueError(f"unknown data set{nearest(config.name, known)} Received: name={config.name!r}") from None
    return builder, tfds.decode.SkipDecoding()


def _pair(example, features, label):
    """Returns `(image, label)` of an example: a class, a row of 0 and 1 of several, or a mask."""
    if label != _SETS:
        return example["image"], example[label]
    classes = tf.one_hot(example[_SETS], features[_SETS].feature.num_classes)
    # Without a label the sum is a row of zeros.
    return example["image"], tf.minimum(tf.reduce_sum(classes, axis=0), 1)


def _split(builder, config, decoders, label, name):
    """Returns the `EncodedShards` of a split or a slice such as `train[:10%]`."""
    _prepare(builder, config)
    features = builder.info.features
    try:
        dataset = builder.as_dataset(split=name, decoders=decoders, shuffle_files=False)
    except ValueError as error:
        known = list(builder.info.splits)
        raise ValueError(
            f"unknown split of {config.name!r}{nearest(name, known)} Received: split={name!r} ({error})"
        ) from error

    def parse(serialized):
        return _pair(features.deserialize_example(serialized, decoders=decoders), features, label)

    settings = (config.shuffle_buffer, config.deterministic)
    files = _files(builder, name)
    if not files:
        # Another file format, or a mock: TFDS reads it, and only the buffer shuffles.
        pairs = dataset.map(lambda example: _pair(example, features, label))
        count = int(dataset.cardinality())
        return EncodedShards([f"{config.name}, {name}"], [count], lambda shard: pairs, lambda pair: pair, *settings)
    paths, skips, takes = (list(column) for column in zip(*files, strict=True))
    with tf.init_scope():
        table = tf.constant(paths), tf.constant(skips, tf.int64), tf.constant(takes, tf.int64)

    def open_shard(shard):
        path, skip, take = (tf.gather(column, shard) for column in table)
        return tf.data.TFRecordDataset(path).skip(skip).take(take)

    return EncodedShards(paths, takes, open_shard, parse, *settings)


def _files(builder, name):
    """Lists `(path, skip, take)` of the TFRecords of a split; an empty list for other file formats."""
    if not builder.info.splits or builder.info.file_format.value != "tfrecord":
        return []
    instructions = builder.info.splits[name].file_instructions
    return [(str(i.filename), i.skip, i.examples_in_shard - i.skip if i.take < 0 else i.take) for i in instructions]


def _prepare(builder, config):
    """Prepares a data set, downloaded if `download` allows it; raises an error with instructions on failure."""
    instructions = (
        f'Prepare it with: python -c "import tensorflow_datasets as tfds; tfds.load({config.name!r})" '
        "(--set data.data_dir=... for another directory), or use a folder of class folders: --set data.folder=..."
    )
    try:
        if config.download:
            builder.download_and_prepare()
        elif not builder.is_prepared():
            raise ValueError(f"the data set {config.name!r} is not in {str(builder.data_dir)!r}. {instructions}")
    except ValueError:
        raise
    except Exception as error:  # TFDS passes on any error of its downloader.
        raise ValueError(
            f"the data set {config.name!r} could not be downloaded or prepared ({error}). {instructions}"
        ) from error
