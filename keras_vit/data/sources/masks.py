"""Images with segmentation masks: pairs of files in a folder, TensorFlow Datasets, or synthetic ones.

The splits are those of encoded images whose `read` gives the encoded mask in place of a label.
"""

import io
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_vit.data.sources import synthetic
from keras_vit.data.sources.encoded import EncodedFiles
from keras_vit.data.sources.folder import SPLITS
from keras_vit.data.sources.load import Source
from keras_vit.data.sources.tfds import open_tfds_masks
from keras_vit.data.unreadable import unreadable
from keras_vit.image_ops.masks import read_mask
from keras_vit.image_ops.pillow_reader import UnreadableImage, image_size, read_pixels
from keras_vit.validation import nearest
from keras_vit_client.image_files import EXTENSIONS

# Names of the folders, in any case. Those of VOC and ADE20K are among them.
IMAGES = ("images", "image", "img", "jpegimages")
MASKS = ("masks", "mask", "annotations", "labels", "segmentationclass", "segmentationclassaug", "trimaps")
LISTS = pathlib.PurePath("ImageSets", "Segmentation")
CLASSES = "classes.txt"
_MASK_ENDINGS = (".png", ".bmp", ".gif", ".tif", ".tiff")


class MaskedFiles(EncodedFiles):
    """Encoded images and masks with random access.

    Args:
        names: sequence of str, the paths of the images.
        masks: sequence of str, the paths of the masks.
        contents: sequence of pairs of bytes, image and mask; `None` reads them from the paths on demand.
    """

    def __init__(self, names, masks, contents=None):
        super().__init__(names, np.arange(len(names)), None if contents is None else [image for image, _ in contents])
        self.masks, self._pairs = [str(mask) for mask in masks], contents
        with tf.init_scope():
            self._masks = tf.constant(self.masks if contents is None else [mask for _, mask in contents], tf.string)

    def read(self, number):
        """Returns `(encoded image, encoded mask)` of a record."""
        data, label = super().read(number)
        mask = tf.gather(self._masks, label)
        return data, mask if self._pairs is not None else tf.io.read_file(mask)

    def mask_name_of(self, number):
        """Returns the path of a mask."""
        return self.masks[number]

    def _select(self, mask):
        numbers = np.flatnonzero(mask)
        contents = None if self._pairs is None else [self._pairs[i] for i in numbers]
        return MaskedFiles([self.names[i] for i in numbers], [self.masks[i] for i in numbers], contents)

    def divide(self, fraction):
        """Divides the split at random as `Split.divide`; there are no classes of whole images to balance."""
        count = round(len(self) * fraction)
        if not 0 < count < len(self):
            raise ValueError(
                f"both parts of a divided split need an image. Received: fraction={fraction} of {len(self)} images"
            )
        chosen = np.zeros(len(self), bool)
        chosen[np.random.default_rng(0).permutation(len(self))[:count]] = True
        return self._select(~chosen), self._select(chosen)


def load_mask_source(config, segmentation):
    """Opens the images and masks that a recipe names.

    Args:
        config: `DataConfig` with `folder` or `name`. Its `num_classes` of `None` is counted: in `classes.txt` of the
            folder, a class a line, else in the masks of the training split, which are all read.
        segmentation: `SegmentationConfig`.

    Returns:
        A `Source` whose splits `read` pairs of an encoded image and an encoded mask.

    Raises:
        ValueError: if there is no such data set, an image has no mask, or the number of classes is unknown.
    """
    if config.folder:
        return _folder(config, segmentation)
    if config.name == synthetic.NAME:
        names = _class_names(config, segmentation, "synthetic masks")
        files = _synthetic(len(names), config.label_offset)
        return Source(synthetic.NAME, names, 3, None, lambda split: files)
    names = _class_names(config, segmentation, f"the data set {config.name!r}")
    channels, encoded = open_tfds_masks(config)
    return Source(config.name, names, channels, None, encoded)


def _class_names(config, segmentation, what, count=None):
    """The names of the classes: those of the recipe, or their numbers."""
    names, count = segmentation.class_names, config.num_classes or count
    if names is None and count is None:
        raise ValueError(
            f"the number of classes of {what} must be given: data.num_classes=..., or segmentation.class_names. "
            "Received: neither"
        )
    if names is not None and count not in (None, len(names)):
        raise ValueError(
            f"class_names must name every class. Received: {len(names)} class_names for {count} classes of {what}"
        )
    return names or tuple(str(number) for number in range(count))


def _folder(config, segmentation):
    root = pathlib.Path(config.folder)
    if not root.is_dir():
        raise ValueError(f"a folder of images and masks must exist. Received: {str(root)!r}, which does not")

    def encoded(name):
        images, masks = find_pairs(root, name)
        return MaskedFiles([str(path) for path in images], masks)

    listed, count = root / CLASSES, None
    if listed.is_file():
        lines = tuple(line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip())
        if segmentation.class_names is None and config.num_classes in (None, len(lines)):
            return Source(str(root), lines, 3, None, encoded)
        count = len(lines)
    elif config.num_classes is None and segmentation.class_names is None:
        count = _count_classes(encoded(config.train_split), config.label_offset, segmentation.ignore_label)
    return Source(str(root), _class_names(config, segmentation, str(root), count), 3, None, encoded)


def _count_classes(split, offset, ignore_label):
    """One more than the highest label of the masks of a split."""
    highest = -1
    for name in split.masks:
        labels = _read_mask_file(name)
        labels = labels[labels != ignore_label] - offset
        highest = max(highest, int(labels.max(initial=-1)))
    if highest < 0:
        raise ValueError(f"masks must have a label that is not ignored. Received: {len(split)} masks without any")
    return highest + 1


def _read_mask_file(path):
    try:
        return read_mask(pathlib.Path(path).read_bytes())
    except UnreadableImage as error:
        raise ValueError(f"every mask must be readable. Received: {str(path)!r} ({error})") from error


def find_pairs(root, split):
    """Finds the images of a split and their masks, which have the same name but for the ending.

    A folder looks like one of these, where `images` and `masks` may have the other names in `IMAGES` and `MASKS` and a
    split those in `keras_vit.data.sources.folder.SPLITS`:

        images/x.jpg, masks/x.png                                          one split, `train`
        train/images/x.jpg, train/masks/x.png                              a folder a split
        images/training/x.jpg, annotations/training/x.png                  ADE20K
        JPEGImages/x.jpg, SegmentationClass/x.png, ImageSets/Segmentation/train.txt   Pascal VOC

    Args:
        root: path.
        split: str.

    Returns:
        Lists of the paths of the images, sorted by name, and of their masks.

    Raises:
        ValueError: if there is no such split, no image, or an image without a mask, with its name.
    """
    root, words = pathlib.Path(root), _words(split)
    if part := _child(root, words):
        folders = _child(part, IMAGES), _child(part, MASKS)
        if all(folders):
            return _paired(*folders)
    images, masks = _child(root, IMAGES), _child(root, MASKS)
    if not (images and masks):
        raise ValueError(
            "a folder of images and masks must look like images/x.jpg and masks/x.png, <split>/images and "
            "<split>/masks, images/<split> and annotations/<split>, or Pascal VOC. "
            f"Received: {str(root)!r} with {_names(root)}, split {split!r}"
        )
    if (root / LISTS).is_dir():
        return _listed(root, images, masks, split, words)
    parts = _child(images, words), _child(masks, words)
    if all(parts):
        return _paired(*parts)
    known = [path.name for path in images.iterdir() if path.is_dir()]
    if known or split.lower() not in SPLITS["train"]:
        advice = "" if known else " data.validation_fraction=0.2 evaluates on a part of the training images."
        known = known or ["train"]
        raise ValueError(
            f"unknown split of {str(root)!r}, which has {', '.join(sorted(known))}{nearest(split, known)}{advice} "
            f"Received: split={split!r}"
        )
    return _paired(images, masks)


def _words(split):
    """The names that a split may have on disk."""
    return (split.lower(), *next((names for names in SPLITS.values() if split.lower() in names), ()))


def _child(folder, names):
    """The subfolder with the first of some names, whatever its case; `None` without one."""
    found = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return next((found[name] for name in names if name in found), None)


def _names(folder):
    return ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"


def _listed(root, images, masks, split, words):
    """The pairs that a list of Pascal VOC names."""
    lists = {path.stem.lower(): path for path in (root / LISTS).glob("*.txt")}
    file = next((lists[word] for word in words if word in lists), None)
    if file is None:
        raise ValueError(
            f"unknown split of {str(root)!r}, which has {', '.join(sorted(lists))}{nearest(split, lists)} "
            f"Received: split={split!r}"
        )
    names = {line.split()[0] for line in file.read_text().splitlines() if line.strip()}
    found = _files(images, EXTENSIONS)
    if missing := sorted(names - set(found)):
        raise ValueError(f"every image of {file} must exist. Received: no {missing[0]!r} in {str(images)!r}")
    return _matched({name: found[name] for name in names}, images, masks)


def _paired(images, masks):
    return _matched(_files(images, EXTENSIONS), images, masks)


def _matched(found, images, masks):
    """Lists of images and masks of the same names."""
    if not found:
        raise ValueError(f"a split must have an image. Received: {str(images)!r} without one")
    labels = _files(masks, _MASK_ENDINGS)
    names = sorted(found)
    if missing := [name for name in names if name not in labels]:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise ValueError(
            f"every image must have a mask of its name, a PNG, in {str(masks)!r}. "
            f"Received: {str(found[missing[0]])!r}{more} without one"
        )
    return [found[name] for name in names], [labels[name] for name in names]


def _files(folder, endings):
    """dict from the names of files below a folder, without their endings, to their paths."""
    files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in endings and not p.name.startswith(".")]
    return {str(path.relative_to(folder).with_suffix("")): path for path in files}


def check_pair(split, number, image, mask, num_classes, offset, ignore_label):
    """Checks an encoded image and its encoded mask.

    Args:
        split: split of images and masks, for their names.
        number: int, of the example.
        image, mask: bytes.
        num_classes, offset, ignore_label: ints.

    Raises:
        UnreadableImage: if the mask cannot be read.
        ValueError: if their sizes differ or a label is no class, with the name.
    """
    name = getattr(split, "mask_name_of", split.name_of)(number)
    labels, size = read_mask(mask), image_size(image)
    if labels.shape != size:
        raise ValueError(
            f"a mask must have the size of its image, {size[0]} x {size[1]} pixels. "
            f"Received: {labels.shape[0]} x {labels.shape[1]} in {name}"
        )
    used = np.unique(labels[labels != ignore_label]) - offset
    if beyond := [int(label + offset) for label in used if label >= num_classes]:
        raise ValueError(
            f"labels of a mask must be below {num_classes + offset}, or {ignore_label} to be ignored; data.num_classes "
            f"says how many there are. Received: {beyond[0]} in {name}"
        )


def checked_examples(split, num_classes, config, segmentation, input_spec):
    """Yields the images and masks of a split in order, at full resolution.

    Args:
        split: split of images and masks.
        num_classes: int.
        config: `DataConfig`; its `label_offset` and `skip_unreadable` are used.
        segmentation: `SegmentationConfig`.
        input_spec: `InputSpec`, for the number of channels.

    Yields:
        `(name, uint8 image (height, width, channels), int32 mask (height, width))`; the mask holds classes and
        `ignore_label`.

    Raises:
        ValueError: with the name, if an image or a mask is unreadable, their sizes differ or a label is no class.
    """
    offset, ignore = config.label_offset, segmentation.ignore_label
    for number, record in split.in_order():
        image, mask = (part.numpy() for part in split.read(record))
        number = int(number)
        try:
            check_pair(split, number, image, mask, num_classes, offset, ignore)
            pixels = read_pixels(image, input_spec.num_channels)
        except UnreadableImage as error:
            if not config.skip_unreadable:
                raise unreadable([unreadable_part(split, number, mask)], str(error)) from error
            continue
        labels = read_mask(mask)
        counted = (labels != ignore) & (labels >= offset)
        yield split.name_of(number), pixels, np.where(counted, labels - offset, ignore).astype("int32")


def unreadable_part(split, number, mask):
    """Returns the name of the mask of an example if that is unreadable, else that of its image.

    Args:
        split: split of images and masks.
        number: int, of the example.
        mask: bytes.
    """
    try:
        read_mask(mask)
    except UnreadableImage:
        return getattr(split, "mask_name_of", split.name_of)(number)
    return split.name_of(number)


def _synthetic(num_classes, offset):
    """Noise with rectangles as masks, for smoke runs."""
    random, pairs = np.random.default_rng(0), []
    for _ in range(16):
        mask = np.full((80, 100), offset, "uint8")
        top, left = random.integers(0, (40, 50))
        mask[top : top + 40, left : left + 50] = random.integers(num_classes) + offset
        pixels = random.integers(128, size=(80, 100, 3), dtype="uint8") + 60 * (mask[..., None] > offset)
        pairs.append((_encoded(pixels.astype("uint8"), "JPEG"), _encoded(mask, "PNG")))
    names = [f"synthetic {number}" for number in range(len(pairs))]
    return MaskedFiles(names, names, pairs)


def _encoded(pixels, kind):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()
