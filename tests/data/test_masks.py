"""Images with masks: layouts of folders, kinds of masks, batches, and what is wrong with a file."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_vit.config import AugmentConfig, DataConfig, SegmentationConfig, TrainingConfig
from keras_vit.data import load_mask_source, masked_evaluation_dataset, masked_training_dataset, unwrap_tf_errors
from keras_vit.data.pipeline.segmentation import scale_and_crop
from keras_vit.data.sources.masks import find_pairs
from keras_vit.image_ops.masks import read_mask
from keras_vit.preprocessing import InputSpec

SPEC = InputSpec(size=(16, 24), interpolation="bilinear")


def write(root, names, images="images", masks="masks", size=(30, 40), label=1):
    """Pairs whose mask is the threshold of the image."""
    for kind in (images, masks):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        random = np.random.default_rng(number)
        bright = np.kron(random.random((3, 4)) < 0.5, np.ones((size[0] // 3, size[1] // 4))).astype(bool)
        Image.fromarray(np.where(bright, 220, 30).astype("uint8")).convert("RGB").save(root / images / f"{name}.png")
        Image.fromarray((bright * label).astype("uint8")).save(root / masks / f"{name}.png")


def png(array, mode=None):
    file = io.BytesIO()
    image = Image.fromarray(array)
    if mode == "P":
        image = image.convert("L")
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([7 * i % 256 for i in range(768)])
    image.save(file, "PNG")
    return file.getvalue()


def test_a_palette_and_a_gray_mask_hold_the_same_labels():
    labels = np.arange(48, dtype="uint8").reshape(6, 8)
    assert (read_mask(png(labels)) == labels).all()
    assert (read_mask(png(labels, "P")) == labels).all()
    assert (read_mask(png(labels.astype("uint16") * 100)) == 100 * labels.astype("int32")).all()
    assert (read_mask(png(labels > 20)) == (labels > 20)).all()
    with pytest.raises(ValueError, match="RGB"):
        read_mask(png(np.zeros((4, 4, 3), "uint8")))


def test_the_layouts_of_folders(tmp_path):
    write(tmp_path / "flat", ["b", "a"])
    images, masks = find_pairs(tmp_path / "flat", "train")
    assert [path.name for path in images] == ["a.png", "b.png"]
    assert [path.parent.name for path in masks] == ["masks", "masks"]
    write(tmp_path / "splits" / "val", ["c"])
    assert find_pairs(tmp_path / "splits", "validation")[0][0].stem == "c"
    write(tmp_path / "ade", ["d"], "images/training", "annotations/training")
    write(tmp_path / "ade", ["e"], "images/validation", "annotations/validation")
    assert find_pairs(tmp_path / "ade", "train")[0][0].stem == "d"
    assert find_pairs(tmp_path / "ade", "validation")[1][0].stem == "e"
    with pytest.raises(ValueError, match="training, validation"):
        find_pairs(tmp_path / "ade", "other")
    voc = tmp_path / "voc"
    write(voc, ["f", "g", "h"], "JPEGImages", "SegmentationClass")
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("h\nf\n")
    assert [path.stem for path in find_pairs(voc, "validation")[0]] == ["f", "h"]
    with pytest.raises(ValueError, match=r"images/x\.jpg"):
        find_pairs(tmp_path, "train")


def test_an_image_without_a_mask_is_named(tmp_path):
    write(tmp_path, ["a", "b"])
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"b\.png' without"):
        find_pairs(tmp_path, "train")


def test_the_classes_of_a_folder_are_listed_or_counted(tmp_path):
    write(tmp_path, ["a"], label=4)
    config = DataConfig(folder=str(tmp_path))
    assert load_mask_source(config, SegmentationConfig()).class_names == ("0", "1", "2", "3", "4")
    (tmp_path / "classes.txt").write_text("sky\nsea\n")
    assert load_mask_source(config, SegmentationConfig()).class_names == ("sky", "sea")
    with pytest.raises(ValueError, match="1 class_names for 2 classes"):
        load_mask_source(config, SegmentationConfig(class_names=("sky",)))


def batches(folder, first=(0, 0), segmentation=None, **data):
    config = DataConfig(folder=str(folder), batch_size=4, num_classes=2, **data)
    segmentation = segmentation or SegmentationConfig()
    split = load_mask_source(config, segmentation).encoded("train")
    settings = TrainingConfig(epochs=2)
    return masked_training_dataset(
        split, 2, SPEC, config, segmentation, AugmentConfig(flip=True), settings, *first, len(split) // 4
    )


def test_masks_stay_on_their_images(tmp_path):
    write(tmp_path, "abcdefgh")
    seen = 0
    for images, masks in batches(tmp_path):
        images, masks = images.numpy(), masks.numpy()
        assert images.shape == (4, *SPEC.size, 3)
        counted = masks != 255
        # Away from edges, where bilinear pixels are in between.
        clear = counted & (np.abs(images[..., 0]) > 0.5)
        assert ((images[..., 0] > 0) == (masks == 1))[clear].mean() > 0.97
        assert (images[~counted] == images[~counted][:1]).all()
        seen += counted.mean()
    assert seen > 1


def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(tmp_path):
    write(tmp_path, "abcdefgh")
    whole, resumed = list(batches(tmp_path)), list(batches(tmp_path, (1, 1)))
    assert (len(whole), len(resumed)) == (4, 1)
    for part in (0, 1):
        np.testing.assert_array_equal(resumed[0][part], whole[3][part])


def test_scaling_up_to_the_size_of_the_model_changes_no_label():
    mask = np.random.default_rng(0).integers(0, 9, (16, 24)).astype("int32")
    image = np.repeat(mask[..., None], 3, -1).astype("uint8")
    settings = SegmentationConfig(scale_range=(1, 1))
    pixels, labels = scale_and_crop(image, mask, (0, 1), settings, SPEC)
    assert (labels.numpy() == mask).all()
    assert (pixels.numpy() == image).all()
    pixels, labels = scale_and_crop(image, mask, (0, 1), SegmentationConfig(scale_range=(0.5, 0.5)), SPEC)
    assert (labels.numpy()[8:] == 255).all()
    assert (labels.numpy()[:, 12:] == 255).all()
    assert (pixels.numpy()[8:] == 128).all()
    assert labels.numpy()[:8, :12].max() < 9


def test_labels_below_the_offset_are_ignored(tmp_path):
    write(tmp_path, "abcd")
    config = DataConfig(folder=str(tmp_path), batch_size=4, num_classes=1, label_offset=1)
    split = load_mask_source(config, SegmentationConfig()).encoded("train")
    ((_, masks),) = masked_evaluation_dataset(split, 1, SPEC, config, SegmentationConfig())
    assert set(np.unique(masks)) == {0, 255}


def spoil_size(folder):
    Image.new("L", (5, 5)).save(folder / "masks" / "c.png")
    return r"30 x 40 .* 5 x 5 in .*masks/c\.png"


def spoil_label(folder):
    mask = np.zeros((30, 40), "uint8")
    mask[3, 4] = 7
    Image.fromarray(mask).save(folder / "masks" / "c.png")
    return r"below 2.*: 7 in .*masks/c\.png"


def spoil_mask(folder):
    (folder / "masks" / "c.png").write_bytes(b"no mask")
    return r"masks/c\.png"


def spoil_image(folder):
    (folder / "images" / "c.png").write_bytes(b"no image")
    return r"images/c\.png"


@pytest.mark.parametrize("spoil", [spoil_size, spoil_label, spoil_mask, spoil_image])
def test_a_bad_pair_is_one_error_with_its_name(spoil, tmp_path):
    write(tmp_path, "abcd")
    expected = spoil(tmp_path)
    with pytest.raises(ValueError, match=expected), unwrap_tf_errors():
        list(batches(tmp_path))


def test_unreadable_pairs_are_left_out_when_asked(tmp_path):
    write(tmp_path, "abcdefgh")
    spoil_mask(tmp_path)
    with pytest.warns(UserWarning, match=r"masks/c\.png"):
        assert len(list(batches(tmp_path, skip_unreadable=True))) == 4


def test_the_format_of_oxford_pets():
    tfds = pytest.importorskip("tensorflow_datasets")
    random = np.random.default_rng(0)

    def examples(self, *args, **kwargs):
        import tensorflow as tf

        def example(number):
            size = random.integers(20, 60, 2)
            mask = random.integers(1, 4, (*size, 1)).astype("uint8")
            image = random.integers(256, size=(*size, 3)).astype("uint8")
            return {"image": png(image), "segmentation_mask": png(mask[..., 0]), "label": number}

        rows = [example(number) for number in range(8)]
        return tf.data.Dataset.from_tensor_slices({key: [row[key] for row in rows] for key in rows[0]}).apply(
            tf.data.experimental.assert_cardinality(8)
        )

    config = DataConfig(name="oxford_iiit_pet", num_classes=3, label_offset=1, batch_size=4)
    settings = SegmentationConfig(class_names=("pet", "background", "border"))
    with tfds.testing.mock_data(num_examples=8, as_dataset_fn=examples):
        source = load_mask_source(config, settings)
        split = source.encoded("train")
        pairs = list(masked_evaluation_dataset(split, 3, SPEC, config, settings))
    assert source.class_names == ("pet", "background", "border")
    assert [len(images) for images, _ in pairs] == [4, 4]
    assert set(np.unique(pairs[0][1])) == {0, 1, 2}
