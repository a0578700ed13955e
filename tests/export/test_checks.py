"""`keras_vit check`: what is right passes, and every check fails for a SavedModel with the fault that it looks for."""

import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from faulty_model import Weights, write
from PIL import Image

import keras_vit_cli
from keras_vit.export import check, write_server_files, write_warmup
from keras_vit.export.checks.base import Exported
from keras_vit.export.checks.run import CHECKS, run
from keras_vit.export.checks.structure import _PATH
from keras_vit.export.servable import fingerprint

SIZES = (1, 2)
# Faults of the graph, the check that finds them, and what it says.
FAULTS = {
    "Python": ("operations", "PyFunc"),
    "XLA": ("no XLA", "must be compiled by XLA"),
    "large constant": ("small constants", "has 2,097,1.. bytes"),
    "weights twice": ("weights stored once", "the same weights are stored as kernel.* and copy"),
    "path": ("no paths", "is the path '/home/somebody/labels.txt'"),
    "no strict": ("signatures", "there is no strict"),
    "batch of four": ("signatures", "its batch must be -1"),
    "half precision": ("signatures", "logits is bfloat16"),
    "another description": ("signatures", "images is not as the description says"),
    "length": ("embeddings", "has the lengths"),
    "flat": ("explain", "the same everywhere"),
    "second class": ("explain", "not that of serving_default"),
    "no explain": ("explain", "though a ViT has attention"),
    "third output": ("Classify", "the outputs are .*class_ids"),
    "no empty batch": ("batches", "InvalidArgumentError: .*Condition x > 0"),
    "rows depend on the batch": ("batch equals rows", "of row 0 differs"),
    "random": ("repeatable", "changes"),
    "NaN": ("JSON", "images: logits is no JSON"),
    "unsorted": ("scores", "scores do not fall"),
    "sums": ("scores", "probabilities sum to 0.9"),
    "labels": ("labels", "not the labels of class_ids"),
    "silent": ("bad images", "valid is True of nothing, text, SVG"),
    "neighbors": ("bad images", "scores of the neighbors changes"),
    "lenient": ("strict", "there is no error"),
    "nameless": ("strict", "does not name the row: .*bad image"),
    "other logits": ("equals Keras", "outputs differ by"),
    "recovers": ("JPEG decoders", "try_recover_truncated=True"),
    "fast DCT": ("JPEG decoders", "dct_method='', not 'INTEGER_ACCURATE'"),
    "second best": ("equals Pillow", "image . is of another class than with Pillow's pixels"),
    "BGR": ("equals Pillow", "image . is of another class than with Pillow's pixels"),
    "bilinear": ("equals Pillow", "answers for image . differ by .* where a gray level moves them"),
}


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A version without a fault, with the files for a server."""
    folder = tmp_path_factory.mktemp("models") / "colors"
    path = write(folder / "1")
    write_warmup(path, "colors", SIZES)
    write_server_files(folder, batch_sizes=SIZES)
    return path


@pytest.fixture
def copied(right, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(right.parent, tmp_path / "colors") / "1"


def _result(name, path, model=None):
    return run(name, dict(CHECKS)[name], Exported(path, model))


def test_everything_holds_of_what_is_right(right):
    report = check(right, model=Weights())
    assert [result for result in report.results if not result.passed] == []
    assert [result.check for result in report.results] == [name for name, _ in CHECKS]
    assert all(result.finding for result in report.results)
    assert report.failed == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_graph_is_found(fault, tmp_path):
    name, finding = FAULTS[fault]
    result = _result(name, write(tmp_path / "1", fault), Weights())
    assert result.passed is False, result
    assert re.search(finding, result.finding), result


def _rename(path):
    return path.rename(path.with_name("v1"))


def _added(path, name):
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).touch()
    return path


def _without(name):
    def damage(path):
        (path / name).unlink()
        return path

    return damage


def _replaced(name, old, new):
    def damage(path):
        file = (path / name).resolve()
        content = file.read_bytes()
        assert old in content
        file.write_bytes(content.replace(old, new))
        return path

    return damage


def _keep_defaults(path):
    proto = Exported(path).proto
    proto.meta_graphs[0].meta_info_def.stripped_default_attrs = False
    (path / "saved_model.pb").write_bytes(proto.SerializeToString())
    return path


def _second_graph(path):
    proto = Exported(path).proto
    proto.meta_graphs.add().meta_info_def.tags.append("train")
    (path / "saved_model.pb").write_bytes(proto.SerializeToString())
    return path


BATCHING, MODELS = "../batching.config", "../models.config"


def _larger_batches(path):
    """As an editor of `batching.config` who knows nothing of the records."""
    for old, new in ((b"value: 2 }", b"value: 16 }"), (b"sizes: 2", b"sizes: 16")):
        _replaced(BATCHING, old, new)(path)
    return path


def _of_other_weights(path):
    index = path / "variables" / "variables.index"
    index.write_bytes(index.read_bytes() + b"more")
    return path


WARMUP = "assets.extra/tf_serving_warmup_requests"
DAMAGE = {
    "a name": ("version", _rename, "called 'v1'"),
    "a version in it": ("version", lambda path: _added(path, "1/saved_model.pb"), "there are 1 in the folder"),
    "a file in it": ("version", lambda path: _added(path, "models.config"), "there are models.config in the folder"),
    "default attributes": ("one graph for serving", _keep_defaults, "not stripped"),
    "a second graph": ("one graph for serving", _second_graph, "the tags .*train"),
    "no fingerprint": ("fingerprint", _without("fingerprint.pb"), "there is no fingerprint.pb"),
    "another fingerprint": ("fingerprint", _of_other_weights, "of other weights"),
    "another graph": ("fingerprint", _replaced("saved_model.pb", b"green", b"greed"), "of other .*saved_model.pb"),
    "broken records": ("warm-up", _replaced(WARMUP, b"colors", b"colorz"), "corrupted record"),
    "batches without a record": (
        "warm-up",
        _larger_batches,
        "no record is for classify with 16 images, .* and 4 others",
    ),
    "another name": ("server files", _replaced(MODELS, b'"colors"', b'"other"'), "names other; .* is one of colors"),
    "another place": (
        "server files",
        _replaced(MODELS, b'"/models/colors"', b'"/nowhere"'),
        "where compose.yaml mounts",
    ),
    "an unknown field": ("server files", _replaced(BATCHING, b"num_batch_threads", b"threads"), "no field named"),
    "a larger batch": (
        "server files",
        _replaced(BATCHING, b"value: 2", b"value: 3"),
        "must be the last",
    ),
    "a file less": ("server files", _without("../monitoring.config"), "only models.config, batching.config"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_the_files_is_found(damage, copied):
    name, function, finding = DAMAGE[damage]
    result = _result(name, function(copied))
    assert result.passed is False, result
    assert re.search(finding, result.finding), result


def test_a_fingerprint_is_as_tensorflow_makes_it(copied, monkeypatch):
    """By a name that is not public; where it is gone, or its rules are others, the weights are compared alone."""
    assert fingerprint._hashes is not None
    tf.saved_model.save(tf.Module(), str(copied.with_name("2")))
    assert fingerprint.altered_parts(copied.with_name("2")) == []
    _replaced("saved_model.pb", b"green", b"greed")(copied)
    assert "saved_model.pb" in fingerprint.altered_parts(copied)
    monkeypatch.setattr(fingerprint, "_hashes", None)
    assert fingerprint.altered_parts(copied) == []
    _of_other_weights(copied)
    assert fingerprint.altered_parts(copied) == ["weights"]
    fingerprint.write_fingerprint(copied)
    with pytest.raises(FileNotFoundError):
        fingerprint.altered_parts(copied)


def test_paths_are_told_by_their_form():
    """Of a machine that need not be this one."""
    for text in (
        "/home/a/b.txt",
        "/data/x",
        "C:\\models\\a",
        "d:/a",
        "\\\\server\\share",
        "~/a",
        "~bob/a",
        "file:///a",
    ):
        assert _PATH.match(text), text
    for text in ("", "/", "cat/dog", "/serving_default", "a: b", "images must be ...", "n/a", "// a comment"):
        assert not _PATH.match(text), text


def test_every_check_has_something_that_fails_it():
    found = {name for name, *_ in (*FAULTS.values(), *DAMAGE.values())}
    assert found == {name for name, _ in CHECKS}


def test_the_command_prints_a_table_and_fails_for_a_fault(right, copied, capsys):
    assert keras_vit_cli.main(["check", str(right.parent)]) == 0
    answer = capsys.readouterr().out
    assert all(name in answer for name, _ in CHECKS)
    assert "no model was given" in answer
    (copied / "fingerprint.pb").unlink()
    assert keras_vit_cli.main(["check", str(copied)]) == 1
    assert f"1 of {len(CHECKS)} do not: fingerprint" in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there must be a SavedModel"):
        check(tmp_path)


def test_the_orientation_of_a_png_is_nobody_s(right, tmp_path):
    """Only JPEGs are turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 14, 3), "uint8")).save(tmp_path / "a.png", exif=exif)
    result = run("equals Pillow", dict(CHECKS)["equals Pillow"], Exported(right, files=[tmp_path / "a.png"]))
    assert result.passed, result


def test_the_images_that_are_given_are_tried(right, tmp_path):
    file = tmp_path / "white.png"
    Image.new("RGB", (9, 9), "white").save(file)
    pictures = Exported(right, files=[file]).pictures
    assert pictures[0] == file.read_bytes()
    assert len(pictures) == 5
    file.write_text("no image")
    with pytest.raises(ValueError, match=r"white\.png' \(no image\)$"):
        check(right, images=[file])
