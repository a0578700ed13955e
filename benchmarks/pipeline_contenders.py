"""Input pipelines, each on one core: the same photographs from memory, cropped, mirrored and changed by a policy."""

import io
import os
import pathlib

import numpy as np

CROP = {"crop_scale": (0.08, 1.0)}


def on_one_core():
    """Ties all threads of this process, and those to come, to one core."""
    core = {min(os.sched_getaffinity(0))}
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), core)


def photographs(task):
    """The bytes of the JPEGs of a folder, over and over, as many as a pass has."""
    paths = sorted(p for p in pathlib.Path(task.config["folder"]).iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    data = [path.read_bytes() for path in paths]
    return [data[i % len(data)] for i in range(task.batch)]


def small_images(task):
    """Noise of 32 pixels, as many as a pass has: uint8 images and labels."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (task.batch, 32, 32, 3), dtype="uint8"), np.arange(task.batch) % 10


def _passes(dataset):
    """A step is a whole pass, on one thread: nothing is computed ahead of a turn, or for nobody at its end."""
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    dataset = dataset.with_options(options)

    def step():
        for _ in dataset:
            pass

    return step, None


def keras_vit(task, **augment):
    """`keras_vit.data.training_dataset`, normalized batches."""
    on_one_core()
    from keras_vit import InputSpec
    from keras_vit.config import AugmentConfig
    from keras_vit.data import EncodedFiles, Split, training_dataset

    settings = task.config
    spec = InputSpec(settings["image_size"], interpolation="bilinear")
    if settings["folder"]:
        data = photographs(task)
        split = EncodedFiles([str(i) for i in range(len(data))], np.zeros(len(data), "int64"), data)
        config = AugmentConfig(flip=True, policy=settings["policy"], **CROP, **augment)
    elif settings["policy"]:
        from keras_vit.config.files import load_recipe

        split, config = Split(*small_images(task)), load_recipe(settings["policy"]).augment
    else:
        split, config = Split(*small_images(task)), AugmentConfig(flip=True, padding=4, mixup=0.2)
    return _passes(training_dataset(split, 10, spec, settings["batch"], 1, 0, config)[0])


def _decoded(task):
    """The photographs of a pass, cropped while they are decoded, by TensorFlow's operations alone."""
    import tensorflow as tf

    def crop(data):
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data),
            tf.zeros((0, 0, 4)),
            min_object_covered=0.0,
            area_range=CROP["crop_scale"],
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        return tf.io.decode_and_crop_jpeg(data, window, channels=3, dct_method="INTEGER_ACCURATE")

    return tf.data.Dataset.from_tensor_slices(photographs(task)).map(crop)


def raw(task, resize=False, antialias=True):
    """`tf.io.decode_and_crop_jpeg` of random windows, if wished with a resize, without an operation more.

    Crops have too many sizes for a batch, so that only their first pixels leave the pipeline: handing over image by
    image from thread to thread takes as long as decoding, where all threads share a core.
    """
    on_one_core()
    import tensorflow as tf

    dataset, size = _decoded(task), [task.config["image_size"]] * 2
    if resize:
        dataset = dataset.map(lambda image: tf.image.resize(image, size, antialias=antialias))
    return _passes(dataset.map(lambda image: image[0, 0, 0]).batch(task.config["batch"]))


def keras_layers(task):
    """The same crops, resized, then `keras.layers.RandomFlip` and, with a policy, `keras.layers.RandAugment`."""
    on_one_core()
    import keras
    import tensorflow as tf

    size = [task.config["image_size"]] * 2
    layers = [keras.layers.RandomFlip("horizontal")]
    if task.config["policy"]:
        layers.append(keras.layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.9))

    def change(image):
        image = tf.image.resize(image, size, antialias=True)
        for layer in layers:
            image = layer(image, training=True)
        return image

    return _passes(_decoded(task).map(change).batch(task.config["batch"]))


def keras_cv(task):
    """`keras_cv.layers.RandomCropAndResize` of the whole image, `RandomFlip` and, with a policy, `RandAugment`."""
    on_one_core()
    import keras_cv
    import tensorflow as tf

    size = [task.config["image_size"]] * 2
    layers = [
        keras_cv.layers.RandomCropAndResize(size, CROP["crop_scale"], (3 / 4, 4 / 3)),
        keras_cv.layers.RandomFlip("horizontal"),
    ]
    if task.config["policy"]:
        layers.append(keras_cv.layers.RandAugment(value_range=(0, 255), augmentations_per_image=2, magnitude=0.9))

    def change(data):
        image = tf.cast(tf.io.decode_jpeg(data, channels=3), tf.float32)
        for layer in layers:
            image = layer(image, training=True)
        return image

    dataset = tf.data.Dataset.from_tensor_slices(photographs(task))
    return _passes(dataset.map(change).batch(task.config["batch"]))


def timm(task):
    """timm's transforms on Pillow, collated by PyTorch's `DataLoader` in this process; normalized batches."""
    on_one_core()
    import torch
    from PIL import Image
    from timm.data import Mixup, create_transform

    torch.set_num_threads(1)
    _posterize_to_nothing()
    settings, mixup = task.config, None
    policy = {"three_augment": "3a"}.get(settings["policy"], settings["policy"])
    data = photographs(task) if settings["folder"] else list(small_images(task)[0])
    if settings["folder"]:
        transform = create_transform(
            settings["image_size"], is_training=True, auto_augment=policy, interpolation="bilinear", color_jitter=None
        )
    elif policy:  # of vit_lite_cifar10.py
        transform = create_transform(
            32, is_training=True, scale=(0.8, 1.0), auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, color_jitter=None
        )
        mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=10)
    else:
        import torchvision.transforms as transforms

        crop = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        transform = transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])

    class Photographs(torch.utils.data.Dataset):
        def __len__(self):
            return len(data)

        def __getitem__(self, number):
            encoded = data[number]
            is_array = isinstance(encoded, np.ndarray)
            image = Image.fromarray(encoded) if is_array else Image.open(io.BytesIO(encoded)).convert("RGB")
            return transform(image), 0

    loader = torch.utils.data.DataLoader(Photographs(), settings["batch"], shuffle=True, drop_last=True)

    def step():
        for batch in loader:
            if mixup:
                mixup(*batch)

    return step, None


def _posterize_to_nothing():
    """Pillow 13 refuses to keep no bits of a pixel, which timm's RandAugment asks for; before it, that gave black."""
    from PIL import ImageOps

    posterize = ImageOps.posterize
    ImageOps.posterize = lambda image, bits: posterize(image, bits) if bits else image.point(lambda value: 0)
