"""A server's life: the SavedModel in a process of its own, moved, without Keras, for long, and under attack."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hostile import BOMBS, encode, gif_frames, picture, small_png, text_chunk
from tiny import tiny_vit

from keras_vit.export import saved_model
from keras_vit.metadata import metadata

# Megabytes.
MOST_FOR_A_BOMB, MOST_FOR_A_THOUSAND_CALLS = 50, 5
SCRIPT = """
import json, pathlib, sys, threading
sys.modules["keras"] = sys.modules["keras_vit"] = None
import numpy as np
import tensorflow as tf

folder = pathlib.Path(sys.argv[1])
signatures = tf.saved_model.load(str(folder / "moved")).signatures
files = {path.name: path.read_bytes() for path in sorted((folder / "files").iterdir())}
good = [data for name, data in files.items() if name.startswith("good")]
bombs = {name: data for name, data in files.items() if not name.startswith("good")}


def status(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def ask(signature, data):
    outputs = signatures[signature](**{"image_bytes": tf.constant(data)})
    return {name: value.numpy() for name, value in outputs.items()}


answers = {name: ask(name, good) for name in ("serving_default", "embeddings", "explain")}
result = {"scores": answers["serving_default"]["scores"].tolist(), "bombs": {}}

# The highest memory so far, set back to the present one before each bomb.
for name, data in bombs.items():
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = status("VmHWM")
    valid = ask("serving_default", [good[0], data])["valid"]
    result["bombs"][name] = [status("VmHWM") - before, valid.tolist()]

for _ in range(100):
    ask("serving_default", [*good, b"no image"])
before = status("VmRSS")
for _ in range(1000):
    ask("serving_default", [*good, b"no image"])
result["growth"] = status("VmRSS") - before

agreed = []


def client():
    for _ in range(10):
        for name, expected in answers.items():
            answer = ask(name, good)
            agreed.append(all((answer[key] == value).all() for key, value in expected.items()))


threads = [threading.Thread(target=client) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
result["agreed"] = [len(agreed), sum(agreed)]
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A model, its images, and what a process with the moved SavedModel tells of them."""
    folder = tmp_path_factory.mktemp("server")
    model, good = tiny_vit(), [encode(picture(0), "JPEG"), encode(picture(1, (90, 41)))]
    shutil.move(saved_model(model, folder / "exported"), folder / "moved")
    shutil.rmtree(folder / "exported")
    files = {f"good {number}": data for number, data in enumerate(good)}
    files |= {name: make() for name, make in BOMBS.items()}
    files["png with text"] = small_png([text_chunk()] * 50, [text_chunk()] * 50)
    files["gif of 500 frames"] = gif_frames(500, (400, 400))
    (folder / "files").mkdir()
    for name, data in files.items():
        (folder / "files" / name).write_bytes(data)
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
    assert answer.returncode == 0, answer.stderr
    return model, good, json.loads(answer.stdout.splitlines()[-1])


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
def test_eight_clients_at_once_get_the_same_answers(told):
    assert told[2]["agreed"] == [240, 240]
