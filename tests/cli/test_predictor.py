"""Commands on many images: folders, patterns, files that cannot be read, answers in files, SavedModels."""

import csv
import json
import re
import shutil

import hostile
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_vit

import keras_vit
import keras_vit_cli
from keras_vit.cli.predictor import best_classes, classify_files
from keras_vit.config import DataConfig
from keras_vit.data import evaluation_dataset, load_source
from keras_vit.metadata import metadata
from keras_vit_client.image_files import find_images

LABELS = ["bee", "cat", "dog", "emu"]


def _main(*arguments):
    return keras_vit_cli.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A tiny model of four classes as a `.keras` file."""
    path = tmp_path_factory.mktemp("model") / "model.keras"
    tiny_vit(num_classes=4, labels=LABELS).save(path)
    return path


@pytest.fixture(scope="module")
def exported(model_file):
    """The same as a SavedModel whose answers have two classes."""
    folder = model_file.parent / "animals"
    keras_vit.export.saved_model(keras_vit.load_model(model_file), folder, top_k=2, batch_sizes=())
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """`test/<class>/<n>.png`, three of each class, one of them cut short, and files that are no images."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in LABELS:
        (folder / "test" / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (20, 30, 3), dtype="uint8")
            Image.fromarray(pixels).save(folder / "test" / name / f"{i}.png")
    (folder / "test" / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def damaged(photos, tmp_path):
    """Three readable images, one cut short and one that is not there."""
    paths = [photos / "test" / "cat" / f"{i}.png" for i in range(3)]
    cut = tmp_path / "cut.png"
    cut.write_bytes(paths[0].read_bytes()[:-700])
    return [paths[0], cut, paths[1], tmp_path / "missing.png", paths[2]]


def test_files_folders_and_patterns_stand_for_images(photos, tmp_path, monkeypatch):
    every = sorted(photos.rglob("*.png"))
    assert len(every) == 12
    (photos / ".hidden.png").touch()
    assert find_images([photos]) == every
    assert find_images([photos / "test" / "dog", photos]) == [*every[6:9], *every[:6], *every[9:]]
    assert find_images([f"{photos}/**/1.png"]) == every[1::3]
    assert find_images([f"{photos}/test/[be]*"]) == [*every[:3], *every[9:]]
    odd = tmp_path / "scan[1].png"
    odd.touch()
    assert find_images([odd, "missing.png"]) == [odd, tmp_path.__class__("missing.png")]
    monkeypatch.chdir(tmp_path)
    for argument, message in ((f"{photos}/*.gif", "matches nothing"), (tmp_path / "empty", "0 other files")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=message):
            find_images([argument])


def test_predict_has_the_pixels_of_evaluate(tmp_path):
    """Of files that two decoders would read with small differences, or not alike at all."""
    rng = np.random.default_rng(1)
    photo = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype="uint8")).resize((41, 30))
    files = {
        "a/0.jpg": hostile.with_orientation(photo, 6),
        "a/1.png": hostile.deep_png(rng.integers(0, 2**16, (24, 30, 1), dtype="uint16")),
        "b/2.tif": hostile.encode(photo, "TIFF"),
        "b/3.webp": hostile.animated("WEBP"),
    }
    for name, data in files.items():
        (tmp_path / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / name).write_bytes(data)
    model = tiny_vit(num_classes=2, labels=("a", "b"))
    source, spec = load_source(DataConfig(folder=str(tmp_path), train_split="test")), metadata(model).input_spec
    scores = model.predict(evaluation_dataset(source.split("test", spec), 2, spec, 3))
    expected = best_classes(model, scores, 2)
    # Batches of another size, with a file between that cannot be read.
    paths = [tmp_path / "test" / name for name in files]
    batches = classify_files(model, [paths[0], tmp_path / "missing.jpg", *paths[1:]], 2, batch_size=3)
    answers = [answer for batch in batches for answer in batch]
    assert re.search("No such file", answers.pop(1))
    for ours, theirs in zip(answers, expected, strict=True):
        assert [name for name, _ in ours] == [name for name, _ in theirs]
        np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], atol=1e-6)


@pytest.mark.parametrize("kind", ["model_file", "exported"])
def test_predict_goes_on_after_images_that_it_cannot_read(kind, damaged, request, capsys):
    assert _main("predict", *damaged, "--model", request.getfixturevalue(kind), "--top-k", "2") == 1
    out, error = capsys.readouterr()
    lines = out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(damaged[i]) for i in (0, 2, 4)]
    assert all(re.search(r": \w+ [01]\.\d{3}, \w+ 0\.\d{3}$", line) for line in lines)
    assert "Received: 2 of 5 that are not" in error
    assert f"{damaged[1]}: " in error
    assert re.search(rf"{damaged[3]}: .*No such file", error)


def test_predict_answers_alike_of_a_model_and_its_saved_model(photos, model_file, exported, tmp_path):
    answers = []
    for model in (model_file, exported):
        assert _main("predict", photos, "--model", model, "--top-k", "2", "--to", tmp_path / "answers.json") == 0
        answers.append(json.loads((tmp_path / "answers.json").read_text()))
    for ours, theirs in zip(*answers, strict=True):
        assert ours["image"] == theirs["image"]
        assert [c["class"] for c in ours["classes"]] == [c["class"] for c in theirs["classes"]]
        scores = [[c["score"] for c in item["classes"]] for item in (ours, theirs)]
        np.testing.assert_allclose(*scores, atol=0.02)
    assert len(answers[0]) == 12


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_predict_writes_answers_and_errors(ending, damaged, model_file, tmp_path, capsys):
    target = tmp_path / "new" / f"answers.{ending}"
    assert _main("predict", *damaged, "--model", model_file, "--top-k", "10", "--to", target) == 1
    assert capsys.readouterr().out == f"3 images classified: {target}\n"
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    text = target.read_text()
    if ending == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert [*rows[0]] == ["image", *(f"{k}_{i}" for i in range(1, 5) for k in ("class", "score")), "error"]
        assert {rows[0][f"class_{i}"] for i in range(1, 5)} == set(LABELS)
        assert sum(float(rows[0][f"score_{i}"]) for i in range(1, 5)) == pytest.approx(1)
    else:
        rows = json.loads(text) if ending == "json" else [json.loads(line) for line in text.splitlines()]
        assert {item["class"] for item in rows[0]["classes"]} == set(LABELS)
    assert [row["image"] for row in rows] == [str(path) for path in damaged]
    assert [bool(row.get("error")) for row in rows] == [False, True, False, True, False]


def test_predict_refuses_what_it_cannot_write_before_it_loads_a_model(photos, capsys):
    assert _main("predict", photos, "--model", "nothing.keras", "--to", "answers.xlsx") == 1
    assert "--to must end in .csv, .json, .jsonl" in capsys.readouterr().err
    assert _main("predict", photos / "nowhere*", "--model", "nothing.keras") == 1
    assert "matches nothing" in capsys.readouterr().err


def test_predict_says_that_a_saved_model_has_fewer_classes_in_an_answer(photos, exported, capsys):
    image = photos / "test" / "cat" / "0.png"
    assert _main("predict", image, "--model", exported, "--top-k", "3") == 0
    assert "its 2 best classes; export it with --top-k 3" in capsys.readouterr().err
    assert _main("predict", image, "--model", exported, "--top-k", "2") == 0
    assert capsys.readouterr().err == ""


def test_evaluate_finds_the_same_of_a_model_and_its_saved_model(photos, model_file, exported, capsys):
    found = []
    for model in (model_file, exported, exported / "1"):
        assert _main("evaluate", model, "--folder", photos, "--batch-size", "5") == 0
        line = capsys.readouterr().out.strip().splitlines()[-1]
        # Of four classes one of the best five is always right.
        assert re.search(r"12 images, accuracy [01]\.\d{4}, loss \d+\.\d{4}$", line), line
        found.append([float(number) for number in re.findall(r"\d+\.\d{4}", line)])
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)
    assert found[1] == found[2]


def test_evaluate_takes_all_images_of_a_folder_without_splits(photos, model_file, tmp_path, capsys):
    assert _main("evaluate", model_file, "--folder", photos / "test") == 0
    assert "all: 12 images, accuracy" in capsys.readouterr().out
    for name in ("train", "validation"):
        shutil.copytree(photos / "test", tmp_path / "parts" / name)
    assert _main("evaluate", model_file, "--folder", tmp_path / "parts") == 1
    assert "--split validation" in capsys.readouterr().err


def test_predict_says_what_to_do_with_a_format_that_no_server_takes(exported, tmp_path, capsys):
    Image.new("RGB", (20, 20)).save(tmp_path / "scan.tif")
    (tmp_path / "text.jpg").write_text("no image")
    assert _main("predict", tmp_path, "--model", exported) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    assert [line.endswith("of TIFF; convert the file to one of them") for line in lines] == [True, False]


def test_a_large_image_is_refused_alike_by_a_model_and_its_saved_model(model_file, exported, tmp_path, capsys):
    """By the header, of a file of a few kilobytes with more than 2 ** 25 pixels."""
    path = tmp_path / "large.png"
    Image.new("1", (8192, 4097)).save(path)
    said = []
    for model in (model_file, exported):
        assert _main("predict", path, "--model", model) == 1
        said.append(capsys.readouterr().err.splitlines()[-1])
    assert said[0] == said[1]
    assert "must be an image of at most 33554432 pixels" in said[0]


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_the_limit_of_pixels_is_an_option(ending, model_file, exported, tmp_path, capsys):
    path = tmp_path / f"image.{ending}"
    Image.new("RGB", (30, 20)).save(path)
    assert _main("predict", path, "--model", model_file, "--max-pixels", "600") == 0
    for command in ("predict", "explain"):
        options = ("--to", tmp_path / "maps") if command == "explain" else ()
        assert _main(command, path, "--model", model_file, "--max-pixels", "599", *options) == 1
        assert "must be an image of at most 599 pixels" in capsys.readouterr().err
        assert _main(command, path, "--model", exported, "--max-pixels", "599") == 1
        assert "--max-pixels of a SavedModel is set when it is exported" in capsys.readouterr().err


def test_evaluate_needs_a_classifier(tmp_path, photos, capsys):
    folder = keras_vit.export.saved_model(tiny_vit(num_classes=0), tmp_path / "tower", batch_sizes=())
    assert _main("evaluate", folder, "--folder", photos) == 1
    assert "the SavedModel must have a classifier" in capsys.readouterr().err
    assert _main("explain", photos, "--model", folder) == 1
    assert "the SavedModel must have the signature `explain`" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["model_file", "exported"])
def test_explain_takes_folders_and_saved_models(kind, photos, damaged, request, tmp_path, capsys):
    model = request.getfixturevalue(kind)
    assert _main("explain", *damaged[:2], "--model", model, "--to", tmp_path / "maps") == 1
    out, error = capsys.readouterr()
    assert re.search(r"0\.png: \w+ 0\.\d{3}, .*0_explained.png$", out.strip())
    assert "1 of 2 that are not" in error
    folder = photos / "test"
    assert _main("explain", folder / "bee", folder / "cat" / "0.png", "--model", model, "--to", tmp_path / "many") == 0
    found = sorted(str(path.relative_to(tmp_path / "many")) for path in (tmp_path / "many").rglob("*.png"))
    assert found == [*(f"bee/{i}_explained.png" for i in range(3)), "cat/0_explained.png"]


@pytest.mark.long
@pytest.mark.parametrize(("options", "said"), [(["--top-k", "10"], True), (["--top-k", "4"], False), ([], False)])
def test_export_says_that_there_are_fewer_classes(options, said, model_file, tmp_path, capsys):
    assert _main("export", model_file, "--to", tmp_path / "animals", *options) == 0
    assert ("4 classes, all of which are in an answer. Received: --top-k 10" in capsys.readouterr().err) is said
