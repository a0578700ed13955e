"""Folders of images: their layouts, their splits and classes, and what is said of files that are not used."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_vit.config import DataConfig
from keras_vit.data import find_image_folder, load_source
from keras_vit.data.sources.folder import EMPTY, HIDDEN, NO_IMAGES, OTHER, OUTSIDE, UNSUPPORTED, find_split
from keras_vit.preprocessing import InputSpec

SPEC = InputSpec(8)


def _encoded(kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file, kind)
    return file.getvalue()


PNG, JPEG, TIFF = (_encoded(kind) for kind in ("PNG", "JPEG", "TIFF"))


def _make(root, *names, content=PNG):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def _relative(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_classes_without_splits(tmp_path):
    found = find_image_folder(_make(tmp_path, "cat/a.png", "cat/b.png", "dog/c.png"))
    assert (found.class_names, list(found.splits), found.unused) == (("cat", "dog"), ["all"], {})
    assert found.splits["all"].counts == {"cat": 2, "dog": 1}
    paths, labels = found.splits["all"].examples()
    assert _relative(paths, tmp_path) == ["cat/a.png", "cat/b.png", "dog/c.png"]
    np.testing.assert_array_equal(labels, [0, 0, 1])
    assert "all: 3 images (cat 2, dog 1)" in found.describe()


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "dev"])
def test_splits_are_found_under_their_usual_names(name, tmp_path):
    _make(tmp_path, "Train/cat/a.png", "Train/dog/b.png", f"{name}/dog/c.png", "testing/cat/d.png")
    found = find_image_folder(tmp_path)
    assert {key: split.name for key, split in found.splits.items()} == {
        "train": "Train",
        "validation": name,
        "test": "testing",
    }
    # A split may lack a class; its labels are those of the training split.
    paths, labels = found.splits["validation"].examples(found.class_names)
    assert (_relative(paths, tmp_path), list(labels)) == ([f"{name}/dog/c.png"], [1])
    assert find_split(tmp_path, "validation").path == tmp_path / name


def test_the_single_folder_of_an_archive_is_entered(tmp_path):
    _make(tmp_path, "flowers/v1/train/a/1.png", "flowers/v1/train/b/1.png", "__MACOSX/flowers/._1.png")
    found = find_image_folder(tmp_path)
    assert (found.path, found.class_names) == (tmp_path / "flowers" / "v1", ("a", "b"))


def test_a_class_may_be_called_train(tmp_path):
    found = find_image_folder(_make(tmp_path, "train/1.png", "car/1.png"))
    assert found.class_names == ("car", "train")
    found = find_image_folder(_make(tmp_path / "nested", "test/red/1.png", "car/blue/1.png"))
    assert found.class_names == ("car", "test")


def test_images_in_subfolders_of_a_class_belong_to_it(tmp_path):
    _make(tmp_path, "train/cat/a.png", "train/cat/2024/may/b.png", "train/dog/x/c.png")
    (tmp_path / "train" / "cat" / "loop").symlink_to(tmp_path / "train" / "cat")
    paths, labels = find_split(tmp_path, "train").examples()
    assert _relative(paths, tmp_path) == ["train/cat/2024/may/b.png", "train/cat/a.png", "train/dog/x/c.png"]
    assert list(labels) == [0, 0, 1]


def test_every_file_that_is_not_used_has_a_reason(tmp_path):
    _make(tmp_path, "train/cat/a.png", "train/dog/b.PNG", "train/cat/.hidden.png", "train/.git/c.png")
    _make(tmp_path, "train/d.png", "train/tulip/.x")
    _make(tmp_path, "train/cat/.thumbs/e.png", "train/cat/notes.txt", "train/Thumbs.db", content=b"no image")
    _make(tmp_path, "train/dog/f.heic", "README", "train/tulip/g.csv", "masks/all/h.png", content=b"no image")
    found = find_image_folder(tmp_path)
    assert {reason: _relative(paths, tmp_path) for reason, paths in found.unused.items()} == {
        HIDDEN: ["train/.git", "train/cat/.hidden.png", "train/cat/.thumbs/e.png", "train/tulip/.x"],
        NO_IMAGES: ["README", "train/Thumbs.db", "train/cat/notes.txt", "train/tulip/g.csv"],
        UNSUPPORTED: ["train/dog/f.heic"],
        OUTSIDE: ["train/d.png"],
        EMPTY: ["train/tulip"],
        OTHER: ["masks"],
    }
    assert len(found.splits["train"]) == 2
    assert "masks" in found.describe()


def test_a_source_warns_of_them_once(tmp_path):
    _make(tmp_path, "train/cat/a.png", "train/dog/b.png", "train/cat/.c.png", "train/tulip/.d.png")
    source = load_source(DataConfig(folder=str(tmp_path), in_memory=False))
    with pytest.warns(UserWarning, match=r"2 hidden files .*\.c\.png.*1 class folder without.*tulip") as said:
        source.load("train", DataConfig(folder=str(tmp_path), in_memory=False), SPEC)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(source.encoded("train")) == 2
    assert len(said) == 1
    assert source.class_names == ("cat", "dog")


def test_images_are_known_by_their_content_where_the_ending_is_unknown(tmp_path):
    _make(tmp_path, "a/1.png", "a/2", "a/3.image", "b/4.jfif", "b/5.JPE")
    _make(tmp_path, "b/6.dat", content=JPEG)
    _make(tmp_path, "b/7.txt", content=b"BM is no bitmap")
    found = find_image_folder(tmp_path)
    assert found.splits["all"].counts == {"a": 3, "b": 3}
    assert list(found.unused) == [NO_IMAGES]


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        ([], "must look like <folder>/<class>/<image>"),
        (["a.png", "b.png"], "must look like .*2 images outside the class folders"),
        (["cat/a.png"], r"at least 2 classes.*Received: 1 class \(cat\)"),
        (["train/cat/a.png", "val/cat/b.png"], r"at least 2 classes.*Received: 1 class \(cat\)"),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], r"same class folders.*a, b.*Received: 1 class \(c\)"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"], "one validation split"),
    ],
)
def test_other_layouts_are_refused(names, rule, tmp_path):
    with pytest.raises(ValueError, match=rule):
        find_image_folder(_make(tmp_path, *names))


def test_a_folder_that_is_missing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere', which does not exist"):
        find_image_folder(tmp_path / "nowhere")


def test_an_unknown_split_names_those_that_there_are(tmp_path):
    _make(tmp_path / "split", "train/a/1.png", "train/b/1.png", "val/a/1.png")
    with pytest.raises(ValueError, match=r"which has train, val.*data.test_split=val .*Received: split='test'"):
        find_split(tmp_path / "split", "test")
    _make(tmp_path / "flat", "a/1.png", "b/1.png")
    assert len(find_split(tmp_path / "flat", "train")) == 2
    with pytest.raises(ValueError, match=r"which has all.*data.validation_fraction.*Received: split='test'"):
        find_split(tmp_path / "flat", "test")


def test_a_split_for_evaluation_may_lack_classes_of_the_model(tmp_path):
    config = DataConfig(folder=str(_make(tmp_path, "val/b/1.png")), train_split="val", in_memory=False)
    source = load_source(config, [("x", "y"), ("c", "b", "a")])
    assert source.class_names == ("c", "b", "a")
    assert list(source.load("val", config, SPEC).labels) == [1]
    assert load_source(config, [("x", "y")]).class_names == ("b",)
