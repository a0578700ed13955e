"""A server's life: the SavedModel in a process of its own, moved, without Keras, for long, and under attack."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hostile import BOMBS, encode, gif_frames, picture, small_png, text_chunk
from PIL import Image
from tiny import tiny_vit

from keras_vit.export import saved_model
from keras_vit.image_ops.decode import BYTES_PER_PIXEL, PARALLEL
from keras_vit.metadata import metadata

# Megabytes.
MOST_FOR_A_BOMB, MOST_FOR_A_THOUSAND_CALLS = 50, 5
LARGE = (2048, 2048)
SCRIPT = """
import json, pathlib, sys, threading
sys.modules["keras"] = sys.modules["keras_vit"] = None
import numpy as np
import tensorflow as tf

folder = pathlib.Path(sys.argv[1])
signatures = tf.saved_model.load(str(folder / "moved")).signatures
files = {path.name: path.read_bytes() for path in sorted((folder / "files").iterdir())}
good = [data for name, data in files.items() if name.startswith("good")]
large = [data for name, data in files.items() if name.startswith("large")]
bombs = {name: data for name, data in files.items() if not name.startswith(("good", "large"))}


def status(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def ask(signature, data):
    outputs = signatures[signature](**{"image_bytes": tf.constant(data)})
    return {name: value.numpy() for name, value in outputs.items()}


result = {"scores": ask("serving_default", good[:2])["scores"].tolist(), "bombs": {}}


def growth(data):
    # How much more memory than before an answer takes at its height, and which rows are valid.
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # sets the height back to the present memory
    before = status("VmHWM")
    valid = ask("serving_default", data)["valid"]
    return [status("VmHWM") - before, valid.tolist()]


for name, data in bombs.items():
    result["bombs"][name] = growth([good[0], data])

# Batches of one to six rows, of which every second has a bad one; each of them comes again and again.
rows = [*good, b"no image"]
batches = [[rows[(start + step) % len(rows)] for step in range(1 + start % 6)] for start in range(3 * len(rows))]
for number in range(200):
    ask("serving_default", batches[number % len(batches)])
before = status("VmRSS")
for number in range(1000):
    ask("serving_default", batches[number % len(batches)])
result["growth"] = status("VmRSS") - before

result["large"] = growth(large * 8)

# What each image gets alone, and how different that is for different images.
names = ("serving_default", "embeddings", "explain")
alone = {name: [ask(name, [data]) for data in rows] for name in names}
floats = {name: [np.concatenate([v.ravel() for v in row.values() if v.dtype.kind == "f"]) for row in alone[name]]
          for name in names}
result["apart"] = min(float(np.abs(one - other).max()) for name in names
                      for i, one in enumerate(floats[name]) for other in floats[name][:i])
wrong, calls = [], []


def client(number):
    # Images, order and size of the batches are the thread's own.
    random = np.random.default_rng(number)
    for call in range(10):
        chosen = random.choice(len(rows), 1 + (number + call) % 6, replace=False)
        for name in names:
            answer = ask(name, [rows[row] for row in chosen])
            calls.append(name)
            for place, row in enumerate(chosen):
                for key, value in alone[name][row].items():
                    found = answer[key][place : place + 1]
                    same = np.abs(found - value).max() < 1e-5 if value.dtype.kind == "f" else (found == value).all()
                    if not same:
                        wrong.append([name, key, number, call, place])


threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
result["calls"], result["wrong"] = len(calls), wrong[:5]
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A model, its images, and what a process with the moved SavedModel tells of them."""
    folder = tmp_path_factory.mktemp("server")
    model = tiny_vit()
    good = [encode(picture(0), "JPEG"), encode(picture(1, (90, 41))), encode(picture(2), "WEBP", lossless=True)]
    good += [encode(picture(3, (24, 16)), "BMP"), encode(picture(4), "JPEG", progressive=True), encode(picture(5))]
    shutil.move(saved_model(model, folder / "exported"), folder / "moved")
    shutil.rmtree(folder / "exported")
    files = {f"good {number}": data for number, data in enumerate(good)}
    files |= {name: make() for name, make in BOMBS.items()}
    files["large"] = encode(Image.new("CMYK", LARGE), "JPEG", progressive=True)
    files["png with text"] = small_png([text_chunk()] * 50, [text_chunk()] * 50)
    files["gif of 500 frames"] = gif_frames(500, (400, 400))
    (folder / "files").mkdir()
    for name, data in files.items():
        (folder / "files" / name).write_bytes(data)
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
    assert answer.returncode == 0, answer.stderr
    return model, good[:2], json.loads(answer.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_moved_savedmodel_needs_neither_keras_nor_this_library(told):
    model, good, result = told
    spec = metadata(model).input_spec
    logits = np.array(model(np.stack([spec.load(io.BytesIO(data)) for data in good])))
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result["scores"], -np.sort(-expected, axis=1), atol=2e-3)
    assert np.shape(result["scores"]) == (2, 3)
    np.testing.assert_allclose(np.sum(result["scores"], axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_a_bomb_takes_no_memory(told):
    growth = {name: megabytes for name, (megabytes, _) in told[2]["bombs"].items()}
    assert set(growth) > set(BOMBS)
    assert max(growth.values()) < MOST_FOR_A_BOMB, growth
    assert {name for name, (_, valid) in told[2]["bombs"].items() if valid != [True, False]} == {
        "png with text",
        "gif of 500 frames",
    }


@pytest.mark.slow
def test_a_thousand_calls_take_no_memory(told):
    assert told[2]["growth"] < MOST_FOR_A_THOUSAND_CALLS


@pytest.mark.slow
def test_eight_large_images_take_no_more_than_the_formula(told):
    """That of `keras_vit.export.server.files`, for images of as many pixels as a cap allows."""
    growth, valid = told[2]["large"]
    assert valid == [True] * 8
    one = BYTES_PER_PIXEL * LARGE[0] * LARGE[1] / 2**20
    # An image has three bytes a pixel when it is decoded.
    assert 3 * one / BYTES_PER_PIXEL < growth < PARALLEL * one + MOST_FOR_A_BOMB


@pytest.mark.slow
def test_eight_clients_at_once_get_what_each_image_gets_alone(told):
    """Each asks for images of its own, in its own order, in batches of any size, bad ones among them."""
    assert told[2]["apart"] > 1e-3
    assert told[2]["calls"] == 240
    assert told[2]["wrong"] == []
