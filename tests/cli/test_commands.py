"""The command line: start-up time is that of argparse, errors are one line."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from tiny import IMAGES, tiny_vit

import keras_vit
import keras_vit_cli
from keras_vit.cli.runtimes import export_format
from keras_vit.config import apply_overrides
from keras_vit.config.files import RECIPES, list_recipes, load_recipe, load_recipe_module
from keras_vit.export.server.warmup import read_warmup
from keras_vit.weights.hub.catalog import imagenet_ids, read_labels

SMALL = [
    "--set",
    "model.num_layers=1",
    "--set",
    "model.hidden_dim=16",
    "--set",
    "model.num_heads=2",
    "--set",
    "training.compiler=plain",
]


def _main(*arguments):
    return keras_vit_cli.main([str(a) for a in arguments])


def test_help_imports_neither_keras_nor_tensorflow():
    script = (
        "import sys, keras_vit_cli\n"
        "try:\n    keras_vit_cli.main(['--help'])\n"
        "except SystemExit as end:\n"
        "    print(end.code, sorted({'keras', 'tensorflow', 'numpy', 'keras_vit'} & set(sys.modules)))\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "train a recipe" in answer.stdout
    assert answer.stdout.rstrip().endswith("0 []")


def test_every_command_has_its_function():
    from keras_vit.cli import commands as cli

    commands = keras_vit_cli._parser()._subparsers._group_actions[0].choices
    names = {"check", "train", "evaluate", "predict", "export", "explain", "publish", "rollback", "convert", "list"}
    assert set(commands) >= names
    assert all(callable(getattr(cli, name)) for name in commands)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A smoke run of the digits with everything behind it; returns its folder."""
    directory = tmp_path_factory.mktemp("run")
    assert _main("train", "vit_digits", "--smoke", "--out", directory, *SMALL) == 0
    return directory


def test_train_leaves_its_files(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"checkpoint.npz", "model.keras", "curve.png", "record.json", "saved_model"} <= names
    assert Image.open(trained / "curve.png").size[0] > 400
    record = json.loads((trained / "record.json").read_text())
    assert record["config"]["model"]["hidden_dim"] == 16
    assert (trained / "saved_model" / "1" / "saved_model.pb").exists()


def test_evaluate_measures_the_whole_split(trained, capsys):
    assert _main("evaluate", trained / "model.keras", "--data", "digits") == 0
    assert re.search(r"digits, test: 899 images, .*accuracy 0\.\d{4}", capsys.readouterr().out)


def test_evaluate_refuses_other_classes(trained, tmp_path, capsys):
    folder = tmp_path / "test" / "cat"
    folder.mkdir(parents=True)
    Image.new("L", (8, 8)).save(folder / "0.png")
    assert _main("evaluate", trained / "model.keras", "--folder", tmp_path) == 1
    assert "must have the classes of the model" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["model.keras", "saved_model"])
def test_predict_prints_the_best_classes(trained, tmp_path, capsys, kind):
    file = tmp_path / "digit.png"
    Image.new("L", (8, 8), 100).save(file)
    assert _main("predict", file, "--model", trained / kind, "--top-k", "2") == 0
    assert re.search(r"digit.png: \d 0\.\d+, \d 0\.\d+$", capsys.readouterr().out.strip())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder as timm writes it, of a model with the classes of ImageNet."""
    model = tiny_vit(num_classes=1000, labels=read_labels("imagenet1k"))
    keras_vit.update_metadata(model, input_spec=keras_vit.InputSpec((16, 24), crop_fraction=0.9))
    folder = tmp_path_factory.mktemp("published")
    keras_vit.save_pretrained(model, folder)
    return folder / "model.safetensors"


def test_predict_and_evaluate_take_checkpoints(checkpoint, tmp_path, capsys):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.jpg")
    assert _main("predict", tmp_path / "photo.jpg", "--model", checkpoint, "--top-k", "2") == 0
    line = capsys.readouterr().out.strip()
    names = [part.rsplit(" ", 1)[0] for part in re.split(r"(?<=\d), ", line.partition("photo.jpg: ")[2])]
    assert len(names) == 2
    assert set(names) <= set(read_labels("imagenet1k"))


def test_evaluate_on_imagenet_counts_every_image_once(checkpoint, tmp_path, capsys):
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=7):
        arguments = ["--data", "imagenet2012", "--split", "validation", "--data-dir", tmp_path, "--batch-size", "3"]
        assert _main("evaluate", checkpoint, *arguments) == 0
    assert re.search(
        r"imagenet2012, validation: 7 images, accuracy 0\.\d{4}, loss .*, top-5 0", capsys.readouterr().out
    )


def test_evaluate_streams_a_folder_as_in_memory(checkpoint, tmp_path, capsys):
    """Class folders named by WordNet ids, as everybody keeps ImageNet."""
    rng = np.random.default_rng(0)
    for wordnet_id in imagenet_ids():
        (tmp_path / "val" / wordnet_id).mkdir(parents=True)
    for i, wordnet_id in enumerate(imagenet_ids()[:5]):
        pixels = rng.integers(0, 256, (30, 40, 3), dtype="uint8")
        Image.fromarray(pixels).save(tmp_path / "val" / wordnet_id / f"{i}.png")
    assert _main("evaluate", checkpoint, "--folder", tmp_path, "--split", "val", "--batch-size", "2") == 0
    loss = float(re.search(r"val: 5 images, .*loss (\d+\.\d+)", capsys.readouterr().out)[1])
    model = keras_vit.from_checkpoint(checkpoint)
    spec = keras_vit.metadata(model).input_spec
    images = np.stack([spec.load(tmp_path / "val" / w / f"{i}.png") for i, w in enumerate(imagenet_ids()[:5])])
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(np.arange(5), model(images))
    assert loss == pytest.approx(float(expected), abs=2e-3)


@pytest.fixture
def photos(tmp_path):
    """A folder with four photos of two classes, one of them cut short, and a model of these classes."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (30, 40, 3), dtype="uint8")
            Image.fromarray(pixels).save(tmp_path / "photos" / "test" / name / f"{i}.jpg")
    broken = tmp_path / "photos" / "test" / "dog" / "0.jpg"
    broken.write_bytes(broken.read_bytes()[:-500])
    keras_vit.save_weights(tiny_vit(num_classes=2, labels=["cat", "dog"]), tmp_path / "pets.safetensors")
    return tmp_path / "photos", tmp_path / "pets.safetensors"


def test_evaluate_names_the_image_that_it_cannot_read(photos, capsys):
    folder, model = photos
    assert _main("evaluate", model, "--folder", folder, "--batch-size", "2") == 1
    error = capsys.readouterr().err.strip()
    assert re.fullmatch(r"keras_vit evaluate: every image must be readable.*dog/0.jpg \(image file is trunc.*", error)


@pytest.mark.filterwarnings("error")
def test_evaluate_leaves_unreadable_images_out_when_asked(photos, capsys):
    folder, model = photos
    assert _main("evaluate", model, "--folder", folder, "--batch-size", "2", "--skip-unreadable") == 0
    out, error = capsys.readouterr()
    assert "test: 3 images, accuracy" in out
    assert error.strip() == f"keras_vit: 1 unreadable image is left out: {folder / 'test' / 'dog' / '0.jpg'}"


@pytest.mark.parametrize("skip", [[], ["--skip-unreadable"]])
def test_evaluate_needs_an_image(photos, capsys, skip):
    folder, model = photos
    for image in folder.rglob("*.jpg"):
        image.write_bytes(b"") if skip else image.unlink()
    assert _main("evaluate", model, "--folder", folder, *skip) == 1
    assert re.fullmatch(r"keras_vit evaluate: .* at least one image. .*split 'test': empty\n", capsys.readouterr().err)


def test_a_missing_package_is_one_line(checkpoint, tmp_path, capsys, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.jpg")
    assert _main("explain", tmp_path / "photo.jpg", "--model", checkpoint, "--to", tmp_path) == 1
    assert re.fullmatch(r"keras_vit explain: figures need matplotlib: .*\n", capsys.readouterr().err)


def test_every_command_takes_a_folder_of_save_pretrained(checkpoint, tmp_path, capsys):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.jpg")
    folder, image = checkpoint.parent, tmp_path / "photo.jpg"
    answers = []
    for model in (folder, checkpoint):
        assert _main("predict", image, "--model", model, "--top-k", "2") == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert _main("convert", folder, tmp_path / "x.npz", "--layout", "google") == 0
    assert _main("export", folder, "--to", tmp_path / "served") == 0
    assert _main("predict", image, "--model", tmp_path / "served", "--top-k", "2") == 0


def test_convert_takes_a_keras_file(tmp_path, capsys):
    model, source, target = tiny_vit(), tmp_path / "x.keras", tmp_path / "x.safetensors"
    model.save(source)
    assert _main("convert", source, target, "--layout", "timm") == 0
    np.testing.assert_array_equal(keras_vit.from_checkpoint(target)(IMAGES), model(IMAGES))


def test_a_saved_model_becomes_no_other_model(trained, tmp_path, capsys):
    for path in (trained / "saved_model", trained / "saved_model" / "1"):
        assert _main("convert", path, tmp_path / "x.npz", "--layout", "google") == 1
        assert "a SavedModel" in capsys.readouterr().err


@pytest.mark.parametrize("num_classes", [3, 0])
def test_predict_without_labels_prints_numbers_and_without_a_classifier_says_so(num_classes, tmp_path, capsys):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.jpg")
    keras_vit.save_weights(tiny_vit(num_classes=num_classes), tmp_path / "x.safetensors")
    code = _main("predict", tmp_path / "photo.jpg", "--model", tmp_path / "x.safetensors")
    answer = capsys.readouterr()
    if num_classes:
        assert code == 0
        assert set(re.findall(r"(\d) 0\.\d+", answer.out)) == {"0", "1", "2"}
    else:
        assert code == 1
        assert "the model has no classifier" in answer.err


def test_list_of_published_weights(capsys):
    assert _main("list", "deit_tiny_d*", "--pretrained") == 0
    assert "deit_tiny_distilled_patch16_224.fb_in1k" in capsys.readouterr().out


def test_export_writes_the_next_version_and_what_it_is_told(trained, tmp_path, capsys):
    folder, names = tmp_path / "digits", tmp_path / "names.txt"
    names.write_text("\n".join(f"ziffer {i}" for i in range(10)) + "\n")
    arguments = ["--batch-sizes", "1", "3", "--labels", names, "--license", "cc0-1.0"]
    assert _main("export", trained / "model.keras", "--to", folder, *arguments) == 0
    assert _main("export", trained / "model.keras", "--to", folder) == 0
    assert re.search(r"exported: .*digits/2, 0\.\d MB of weights$", capsys.readouterr().out.strip())
    told = [keras_vit.export.read_description(folder / version) for version in ("1", "2")]
    assert (told[0]["labels"][3], told[0]["weights"]["license"]) == ("ziffer 3", "cc0-1.0")
    assert (told[1]["labels"][3], told[1]["weights"]["license"]) == ("3", None)
    # The second has the sizes of the files that the first has brought.
    assert "allowed_batch_sizes: 3" in (folder / "batching.config").read_text()
    assert {
        log.predict_log.request.inputs["image_bytes"].tensor_shape.dim[0].size for log in _strict(folder / "2")
    } == {
        1,
        3,
    }
    assert _main("check", folder, "--model", trained / "model.keras") == 0, capsys.readouterr()
    assert _main("export", trained / "model.keras", "--to", folder, "--batch-sizes", "1", "4") == 1
    assert "--batch-sizes must be the allowed_batch_sizes of batching.config" in capsys.readouterr().err
    names.write_text("one\n\nthree")
    assert _main("export", trained / "model.keras", "--to", folder, "--labels", names) == 1
    assert "names.txt', line 2 is empty" in capsys.readouterr().err
    # What the server's files would be refused for is refused before there is a version.
    assert _main("export", trained / "model.keras", "--to", tmp_path / "my digits") == 1
    assert "name must be of letters" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits", "names.txt"]
    assert not (folder / "3").exists()


def _strict(path):
    """The warm-up records of `strict`."""
    return [log for log in read_warmup(path) if log.predict_log.request.model_spec.signature_name == "strict"]


@pytest.mark.long
def test_export_tells_what_fewer_bytes_cost(trained, tmp_path, capsys):
    arguments = [
        "--weights",
        "int8",
        "--dtype",
        "bfloat16",
        "--image-formats",
        "png",
        "--max-pixels",
        "64",
        "--ignore-exif-orientation",
    ]
    assert _main("export", trained / "model.keras", "--to", tmp_path / "digits", *arguments) == 0
    assert re.search(
        r"outputs for 16 synthetic images differ by at most \d\.\de-0\d of the largest", capsys.readouterr().out
    )
    options = keras_vit.export.read_description(tmp_path / "digits" / "1")["options"]
    expected = {"formats": ["png"], "max_pixels": 64, "upright": False, "weights": "int8", "dtype": "bfloat16"}
    assert options | expected == options
    assert _main("check", tmp_path / "digits", "--model", trained / "model.keras") == 0, capsys.readouterr()
    for name, size in (("small", 8), ("large", 9)):
        Image.new("L", (size, size), 100).save(tmp_path / f"{name}.png")
    assert _main("predict", tmp_path / "small.png", "--model", tmp_path / "digits") == 0
    assert _main("predict", tmp_path / "large.png", "--model", tmp_path / "digits") == 1
    assert "at most 64 pixels" in capsys.readouterr().err


def test_explain_draws_what_the_model_looks_at(trained, tmp_path, capsys):
    for name in ("a", "b"):
        Image.new("L", (8, 8), 100).save(tmp_path / f"{name}.png")
    images = [tmp_path / "a.png", tmp_path / "b.png"]
    assert _main("explain", *images, "--model", trained / "model.keras", "--to", tmp_path / "maps") == 0
    assert re.search(r"a.png: \d 0\.\d{3}, .*maps/a_explained.png\n.*b.png: ", capsys.readouterr().out)
    assert Image.open(tmp_path / "maps" / "b_explained.png").size[0] > 400


def test_explain_draws_why_the_model_finds_a_class(trained, tmp_path, capsys):
    Image.new("L", (8, 8), 100).save(tmp_path / "a.png")
    command = ("explain", tmp_path / "a.png", "--model", trained / "model.keras", "--to", tmp_path)
    for method in ("relevance", "grad_cam"):
        assert _main(*command, "--method", method, "--class", "7") == 0
        assert re.search(r"a.png: 7 0\.\d{3}, .*a_explained.png", capsys.readouterr().out)
        (tmp_path / "a_explained.png").unlink()
    for options, message in (
        (("--method", "relevance", "--class", "77"), r"Received: class=77"),
        (("--method", "relevance", "--class", "sevn"), r"unknown class.* Received: class='sevn'"),
        (("--class", "7"), r"--method relevance, .* Received: --class 7"),
    ):
        assert _main(*command, *options) == 1
        assert re.search(message, capsys.readouterr().err)
    saved = ("explain", tmp_path / "a.png", "--model", trained / "saved_model", "--to", tmp_path)
    assert _main(*saved, "--method", "relevance") == 1
    assert "Received: --method relevance" in capsys.readouterr().err
    assert not (tmp_path / "a_explained.png").exists()


def test_inspect_draws_what_the_model_has_learned(trained, tmp_path, capsys):
    Image.new("L", (8, 8), 100).save(tmp_path / "a.png")
    for figure in ("positions", "filters", "distance", "pca"):
        images = ("--image", tmp_path / "a.png") if figure in ("distance", "pca") else ()
        assert _main("inspect", trained / "model.keras", "--figure", figure, *images, "--to", tmp_path / "views") == 0
        (path,) = (tmp_path / "views").glob(f"*_{figure}.png")
        assert str(path) in capsys.readouterr().out
        assert min(Image.open(path).size) > 100
    assert _main("inspect", trained / "model.keras", "--figure", "pca") == 1
    assert "--image photo.jpg. Received: no --image" in capsys.readouterr().err


def test_export_chooses_the_format_by_the_ending(trained, tmp_path, capsys):
    assert _main("export", trained / "model.keras", "--to", tmp_path / "digits.onnx") == 0
    answer = capsys.readouterr().out
    assert f"exported: {tmp_path / 'digits.onnx'}; in onnxruntime " in answer
    assert "at batches of 1, 2, 5" in answer
    assert [path.name for path in tmp_path.iterdir()] == ["digits.onnx"]


def test_export_writes_a_keras_file(checkpoint, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {i}" for i in range(1000)))
    assert _main("export", checkpoint, "--to", tmp_path / "new" / "x.keras", "--labels", names) == 0
    model = keras_vit.load_model(tmp_path / "new" / "x.keras")
    assert keras_vit.metadata(model).labels[999] == "class 999"
    np.testing.assert_array_equal(model(IMAGES), keras_vit.load_model(checkpoint)(IMAGES))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.keras"]


@pytest.mark.parametrize(
    ("to", "chosen", "expected"),
    [
        ("new.onnx", None, "onnx"),
        ("new.ONNX", None, "onnx"),
        ("new.tflite", None, "litert"),
        ("new.xml", None, "openvino"),
        ("new.keras", None, "keras"),
        ("new.onnx", "onnx", "onnx"),
        ("saved_models/flowers", None, "saved_model"),
        ("saved_models/vit.v2", None, "saved_model"),
        ("saved_models/vit-1.5", None, "saved_model"),
    ],
)
def test_the_format_follows_the_ending(to, chosen, expected):
    assert export_format("m.keras", to, chosen) == expected


@pytest.mark.parametrize(
    ("to", "chosen", "advice"),
    [
        ("folder", "onnx", "for example --to folder/model.onnx"),
        ("new.tflite", "onnx", "for example --to new.onnx"),
        ("new.onnx", "litert", "for example --to new.tflite"),
        ("new.onnx", "saved_model", "for example --to new;"),
        ("new.safetensors", None, "`keras_vit convert m.keras new.safetensors --layout timm`"),
        ("new.pth", None, "`keras_vit convert m.keras weights.safetensors --layout timm`"),
        ("a/new.h5", None, "`keras_vit export m.keras --to a/new.keras`"),
        ("saved_model.pb", None, "`keras_vit export m.keras --to saved_model`"),
        ("new.bin", None, "`keras_vit export m.keras --to new.xml`"),
        ("new.mlmodel", None, "`keras_vit export m.keras --to new.onnx`"),
        ("new.onxx", None, "Did you mean '.onnx'?"),
        ("new.tflight", None, "Did you mean '.tflite'?"),
        ("new.kears", None, "Did you mean '.keras'?"),
    ],
)
def test_an_ending_of_another_format_is_refused_with_what_to_do(to, chosen, advice, capsys):
    with pytest.raises(ValueError) as error:
        export_format("m.keras", to, chosen)
    assert advice in str(error.value)
    assert f"--to {to}" in str(error.value)


def test_a_folder_with_the_ending_of_a_file_is_refused(tmp_path):
    (tmp_path / "new.onnx").mkdir()
    with pytest.raises(ValueError, match="there is a folder of that name"):
        export_format("m.keras", tmp_path / "new.onnx")


SAVED_MODELS_ALONE = (
    *("--version 3", "--top-k 2", "--dtype bfloat16", "--weights int8", "--compare a.png", "--activation sigmoid"),
    *("--image-formats png", "--max-pixels 9", "--ignore-exif-orientation", "--batch-sizes 1 2", "--license mit"),
)


@pytest.mark.parametrize("option", SAVED_MODELS_ALONE)
def test_options_of_saved_models_belong_to_no_other_format(option, tmp_path, capsys):
    arguments = ["export", "a.keras", "--to", tmp_path / "a.onnx", "--format", "onnx"]
    assert _main(*arguments, *option.split()) == 1
    assert f"{option.split()[0]}: options of SavedModels only" in capsys.readouterr().err


def test_list_prints_names(capsys):
    assert _main("list", "vit_huge*") == 0
    assert "vit_huge_patch14_224" in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vitt*"], "did you mean vit_base_patch"),
        (["vit_bsae*"], "did you mean vit_base_patch"),
        (["huge"], "contain 'huge': `keras_vit list '*huge*'`"),
        (["*augreg*"], "published weights: `keras_vit list '*augreg*' --pretrained`"),
        (["zzz"], "see `keras_vit list`"),
        (["augreg", "--pretrained"], "contain 'augreg': `keras_vit list '*augreg*' --pretrained`"),
        (["deit_tini*", "--pretrained"], "did you mean deit_tiny_"),
        (["vit_digit", "--recipes"], "1 contains 'vit_digit': `keras_vit list '*vit_digit*' --recipes`"),
        (["finetunes", "--recipes"], "did you mean finetune"),
    ],
)
def test_list_says_what_to_try_where_nothing_matches(arguments, message, capsys):
    assert _main("list", *arguments) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert message in error
    assert f"Received: {arguments[0]!r}" in error


def test_list_of_recipes_has_a_line_of_each(capsys):
    assert _main("list", "--recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list_recipes()
    assert any(re.fullmatch("vit_digits +A small Vision Transformer on handwritten digits", line) for line in lines)
    assert _main("list", "ViT_D*", "--recipes") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_list_imports_neither_data_nor_exports():
    script = (
        "import sys, keras_vit_cli\n"
        "print(keras_vit_cli.main(['list', 'ViT_Huge*']), {'keras_vit.data', 'keras_vit.export'} & set(sys.modules))\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "vit_huge_patch14_224" in answer.stdout
    assert answer.stdout.rstrip().endswith("0 set()"), answer.stderr


def test_recipes_are_loaded_from_python():
    assert keras_vit.list_recipes() == list_recipes()
    recipe = keras_vit.load_recipe("vit_digits", ["training.epochs=3"])
    assert isinstance(recipe, keras_vit.config.Recipe)
    assert recipe.training.epochs == 3
    assert {"list_recipes", "load_recipe"} <= set(dir(keras_vit))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "vit_digit"], "Did you mean 'vit_digits'"),
        (["train", "vit_digits", "--set", "data.nam=x"], "Did you mean 'name'"),
        (["train", "vit_digits", "--set", "distribution.name=mirored"], "Did you mean 'mirrored'"),
        (["evaluate", "nothing.keras", "--data", "digits"], "a model must be an existing .keras file"),
        (["train", "vit_digits", "--smoke", "--record"], "a smoke run has no record"),
        (
            ["predict", "image.png", "--model", "deit_tini_patch16_224.fb_in1k"],
            "Did you mean 'deit_tiny_patch16",
        ),
        (["export", "nothing.keras", "--to", "x"], "must be an existing .keras file"),
        (["export", "nothing.keras", "--to", "x.pt"], "keras_vit convert nothing.keras weights.safetensors"),
    ],
)
def test_an_error_is_one_line_and_a_code(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _main(*arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith(f"keras_vit {arguments[0]}: ")
    assert "Traceback" not in error


def test_an_interrupt_says_how_to_resume_what_can_be_resumed(capsys, monkeypatch):
    from keras_vit.cli import commands as cli

    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "train", interrupt)
    monkeypatch.setattr(cli, "convert", interrupt)
    assert _main("train", "vit_digits") == 130
    assert capsys.readouterr().err == "keras_vit train: interrupted. Run the same command to resume.\n"
    assert _main("convert", "a.keras", "b.npz", "--layout", "timm") == 130
    assert capsys.readouterr().err == "keras_vit convert: interrupted\n"


def test_a_run_folder_that_is_a_file_is_an_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert _main("train", "vit_digits", "--smoke", "--out", tmp_path / "file", *SMALL) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("where", ["folder", "tfds"])
@pytest.mark.long
def test_the_cifar_recipe_runs_from_a_folder_and_from_tfds(where, tmp_path, capsys):
    import tensorflow_datasets as tfds

    arguments = ["--out", tmp_path / "run", "--no-export", *SMALL]
    if where == "folder":
        for path in (tmp_path / split / name for split in ("train", "test") for name in ("cat", "dog")):
            path.mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (32, 32), (i, 0, 0)).save(path / f"{i}.jpg")
        arguments += ["--set", f"data.folder={tmp_path}"]
    else:
        arguments += ["--set", f"data.data_dir={tmp_path}"]
    with tfds.testing.mock_data(num_examples=16):
        assert _main("train", "vit_tiny_cifar10", "--smoke", *arguments) == 0
    out = capsys.readouterr().out
    assert ("2 classes" in out) == (where == "folder")
    assert "16 training images" in out


@pytest.mark.parametrize("name", ["deit_tiny_i1k", "vit_augreg_i21k"])
@pytest.mark.long
def test_smoke_invents_images_where_the_data_set_is_missing(name, tmp_path, capsys):
    """21,843 classes with several labels an image, and what only its owner can download."""
    small = [f"model.{field}={value}" for field, value in (("num_layers", 1), ("hidden_dim", 24), ("mlp_dim", 8))]
    arguments = [part for field in small for part in ("--set", field)]
    arguments += ["--set", "model.image_size=32"] if name == "deit_tiny_i1k" else ["--set", "model.image_size=16"]
    assert _main("train", name, "--smoke", "--out", tmp_path, *arguments) == 0
    out = capsys.readouterr().out
    assert "using synthetic images: " in out
    assert "64 training images" in out


def test_smoke_of_data_that_was_asked_for_is_strict(tmp_path, capsys):
    folder = f"data.folder={tmp_path / 'nowhere'}"
    assert _main("train", "vit_tiny_cifar10", "--smoke", "--out", tmp_path / "run", "--set", folder) == 1
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_loads_and_explains_itself(name):
    module = load_recipe_module(name)
    assert module.recipe.name.startswith(name)
    for wanted in (f"keras_vit train recipes/{name}.py", "Expected", "Hardware"):
        assert wanted in module.__doc__
    assert "keras-cv" in module.__doc__ or not module.recipe.augment.policy


def test_a_recipe_file_takes_arguments():
    assert load_recipe("vit_augreg_i1k:size=base,level=light2").name == "vit_augreg_i1k_base_light2"
    for arguments, message in (
        ("vit_augreg_i1k:sise=base", "Did you mean 'size'"),
        ("vit_augreg_i1k:level=heavy", r"no such recipe \(level must be one of \['light1', .*level='heavy'"),
        ("vit_augreg_i21k:size=huge", r"size must be one of \['base', 'small', 'tiny'\]"),
        ("deit_cifar10:kind=foo", r"kind must be one of \['hard', 'soft'\].*kind='foo'"),
        ("cnn_vs_vit:model=rnn", r"model must be one of \['cnn', 'deit', 'vit'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            load_recipe(arguments)
    with pytest.raises(ValueError, match="takes the arguments"):
        load_recipe("vit_digits:size=base")


def test_recipes_of_one_folder_import_each_other_and_are_forgotten(tmp_path):
    (tmp_path / "first.py").write_text((RECIPES / "vit_digits.py").read_text())
    (tmp_path / "second.py").write_text("from first import recipe as first\nrecipe = first.replace(name='second')\n")
    assert load_recipe(tmp_path / "second.py").name == "second"
    assert "first" not in sys.modules
    assert str(tmp_path) not in sys.path


def test_a_file_without_a_recipe_is_refused(tmp_path):
    file = tmp_path / "empty.py"
    file.write_text("")
    with pytest.raises(ValueError, match="must define 'recipe'"):
        load_recipe(str(file))


def _parsed(*arguments):
    return keras_vit_cli._parser().parse_args(["train", "vit_digits", *arguments])


def test_training_options_stand_for_fields_in_the_order_of_the_command_line():
    options = _parsed("--epochs", "3", "--lr", "1e-2", "--set", "training.epochs=5", "--batch-size", "8", "--seed", "2")
    recipe = load_recipe("vit_digits", options.overrides)
    assert (recipe.training.epochs, recipe.training.seed) == (5, 2)
    assert (recipe.optimizer.learning_rate, recipe.data.batch_size) == (0.01, 8)
    again = apply_overrides(recipe, _parsed("--set", "training.epochs=5", "--epochs", "3").overrides)
    assert again.training.epochs == 3


@pytest.mark.parametrize(
    "arguments", [["--epochs", "0"], ["--epochs", "ten"], ["--lr", "fast"], ["--batch-size", "-1"], ["--device", "x"]]
)
def test_a_bad_value_of_an_option_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        _parsed(*arguments)
    assert end.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "before", "inside"),
    [
        ("cpu", None, "-1"),
        ("cpu", "2,3", "-1"),
        ("gpu", "2,3", "2,3"),
        ("gpu:1", "2,3", "3"),
        ("gpu:1", None, "1"),
        (None, None, None),
    ],
)
def test_device_chooses_what_frameworks_see(device, before, inside, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    with keras_vit_cli._visible_devices(device):
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == inside
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


def test_a_device_that_is_not_there_is_an_error(capsys, monkeypatch):
    from keras_vit.distribution import strategies as distribution

    monkeypatch.setattr(distribution.tf.config, "list_physical_devices", lambda kind=None: [])
    assert _main("train", "vit_digits", "--device", "gpu") == 1
    assert "TensorFlow must see the GPU" in capsys.readouterr().err


def _help_of(capsys, *arguments):
    """The output of `train ... --help`, and the types and values of the fields in it."""
    assert _main("train", *arguments) == 0
    out = capsys.readouterr().out
    return out, dict(re.findall(r"^  (\w+(?:\.\w+)*): (.*)$", out, re.M))


def test_help_of_a_recipe_shows_what_it_does_and_its_fields(capsys):
    out, fields = _help_of(capsys, "vit_digits", "--help")
    assert load_recipe_module("vit_digits").__doc__.strip().splitlines()[-1] in out
    recipe = load_recipe("vit_digits")
    groups = [dataclasses.fields(group) for group in (recipe.data, recipe.optimizer, recipe.training, recipe.model)]
    names = [field.name for group in groups for field in group]
    assert {name.split(".")[-1] for name in fields} >= set(names)
    assert fields["optimizer.learning_rate"].startswith(f"float = {recipe.optimizer.learning_rate!r}")
    assert fields["optimizer"] == "OptimizerConfig"
    assert fields["data.batch_size"].endswith("(default 128)")
    # A group that the recipe has not, with what it takes to make one.
    assert fields["distillation"] == "DistillationConfig or None = None"
    assert fields["distillation.teacher"] == "str or None = (required)"
    assert "      int or `None`. Number of epochs without a better validation accuracy" in out


def test_help_of_a_recipe_shows_the_values_of_the_command_line(capsys):
    _, fields = _help_of(capsys, "-h", "vit_augreg_i1k:size=base", "--epochs", "7", "--set", "data.name=digits")
    assert fields["training.epochs"] == "int = 7  (default 10)"
    assert fields["data.name"].startswith("str or None = digits")
    assert fields["model.hidden_dim"].startswith("int = 768")


def test_help_without_a_recipe_is_that_of_the_command(capsys):
    with pytest.raises(SystemExit) as end:
        _main("train", "--help")
    assert end.value.code == 0
    assert "--batch-size" in capsys.readouterr().out
    assert _main("train", "vit_digit", "--help") == 1
    assert "Did you mean 'vit_digits'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["train", "vit_digits", "--mixup", "0.8"], "--set augment.mixup=0.8"),
        (["train", "vit_digits", "--label-smoothing=0.1"], "--set training.label_smoothing=0.1"),
        (["train", "vit_digits", "--learning-rate", "1e-3"], "is a field of the recipe: --lr 1e-3"),
        (["finetune", "model", "folder", "--weight-decay", "0.1"], "--set optimizer.weight_decay=0.1"),
        (["finetune", "model", "folder", "--img-size", "96"], "--image-size 96"),
        (["finetune", "model", "folder", "--head_only"], "did you mean --head-only?"),
        (["predict", "x.png", "--model", "x", "--topk", "3"], "did you mean --top-k?"),
    ],
)
def test_an_unknown_option_is_answered_with_what_to_type(arguments, advice, capsys):
    with pytest.raises(SystemExit) as end:
        _main(*arguments)
    assert end.value.code == 2
    assert advice in capsys.readouterr().err


def test_an_option_that_is_like_nothing_is_only_named(capsys):
    with pytest.raises(SystemExit):
        _main("train", "vit_digits", "--zzz", "3")
    assert capsys.readouterr().err.endswith("unrecognized arguments: --zzz 3\n")


def test_every_argument_of_every_command_is_explained():
    parser = keras_vit_cli._parser()
    for name, command in parser._subparsers._group_actions[0].choices.items():
        assert command.description
        assert [action.dest for action in command._actions if not action.help] == [], name
    assert set(keras_vit_cli._LAYOUTS) == set(keras_vit.weights.LAYOUTS)


@pytest.mark.parametrize("arguments", [[], ["--data", "digits", "--folder", "x"]])
def test_evaluate_takes_one_data_set(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        _main("evaluate", "x.keras", *arguments)
    assert end.value.code == 2
    assert "--folder" in capsys.readouterr().err


def test_a_server_has_a_device_of_its_own(capsys):
    assert _main("predict", "x.png", "--server", "http://localhost:1/v1/models/x", "--device", "cpu") == 1
    assert "--device has no effect on a server" in capsys.readouterr().err


def test_export_writes_a_quantized_litert_file(tmp_path, capsys):
    model = tiny_vit(labels=["ant", "bee", "cat"])
    model.save(tmp_path / "tiny.keras")
    (tmp_path / "images").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype="uint8")
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    target, quantize = tmp_path / "tiny.tflite", ("--quantize", "int8", "--images", tmp_path / "images")
    assert _main("export", tmp_path / "tiny.keras", "--to", target, *quantize) == 0
    told = capsys.readouterr().out
    assert "4 images: outputs differ from Keras by" in " ".join(told.split())
    assert target.read_bytes()[4:8] == b"TFL3"
    assert _main("export", tmp_path / "tiny.keras", "--to", target, *quantize[:2]) == 1
    assert "needs images" in capsys.readouterr().err
    assert _main("export", tmp_path / "tiny.keras", "--to", tmp_path / "tiny.onnx", *quantize) == 1
    assert "--quantize" in capsys.readouterr().err
    assert _main("export", tmp_path / "tiny.keras", "--to", tmp_path / "served", *quantize) == 1
    assert "--weights int8" in capsys.readouterr().err
    assert not (tmp_path / "tiny.onnx").exists()
    assert not (tmp_path / "served").exists()
