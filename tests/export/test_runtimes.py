"""Files for ONNX Runtime, LiteRT and OpenVINO: each is read with its runtime's own interface."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from random_configs import SWINS, VITS, swin, vit
from tiny import CONFIG, randomize, tiny_vit

import keras_vit
from keras_vit.export import litert_model, onnx_model, openvino_model
from keras_vit.export.runtimes import base as runtimes
from keras_vit.export.runtimes.openvino import without_telemetry
from keras_vit.models import build_model

with without_telemetry():
    import openvino

WRITERS = {
    "model.onnx": onnx_model,
    "model.tflite": litert_model,
    "model.xml": openvino_model,
}
# Not every pair: what a family adds to the others is in some format of each kind.
CASES = [
    ("gap", "model.onnx"),
    ("map", "model.tflite"),
    ("map", "model.xml"),
    ("distilled", "model.tflite"),
    ("distilled", "model.xml"),
    ("swin", "model.onnx"),
    ("swin v2", "model.onnx"),
    ("swin v2", "model.tflite"),
    ("swin v2", "model.xml"),
]
LABELS = ("ant", "bee", "élan blanc")


@pytest.fixture(scope="module")
def model():
    return tiny_vit(labels=LABELS, origin="a test")


@pytest.fixture(scope="module")
def onnx_path(model, tmp_path_factory):
    return onnx_model(model, tmp_path_factory.mktemp("onnx") / "model.onnx").path


def _run(path, images):
    """The outputs by name, computed by the runtime that a file is for."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {"images": images}), strict=True))
    if path.suffix == ".tflite":
        return Interpreter(model_path=str(path)).get_signature_runner("serving_default")(images=images)
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {output.any_name: compiled({"images": images})[output] for output in compiled.outputs}


def _images(model, count=3):
    spec = keras_vit.metadata(model).input_spec
    return np.random.default_rng(3).normal(size=(count, *spec.size, spec.num_channels)).astype("float32")


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), CASES)
def test_every_family_gives_the_outputs_of_keras(family, name, tmp_path):
    model = build_model(vit(**VITS[family]) if family in VITS else swin(**SWINS[family]))
    randomize(model)
    written = WRITERS[name](model, tmp_path / name)
    images = _images(model)
    outputs = _run(written.path, images)
    expected = keras.ops.convert_to_numpy(model(images, training=False))
    (output,) = outputs
    assert output == "logits"
    np.testing.assert_allclose(outputs[output], expected, atol=2e-5)
    assert written.difference < 2e-5
    assert written.runtime.split()[0] in ("onnxruntime", "ai-edge-litert", "openvino")
    assert {p.name for p in tmp_path.iterdir()} == {name, *(["model.bin"] if name == "model.xml" else [])}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["token", "map", "distilled", "hybrid", "swin", "swin v2"])
def test_the_converter_of_tensorflow_needs_only_operations_of_litert(family):
    model = build_model(vit(**VITS[family]) if family in VITS else swin(**SWINS[family]))
    randomize(model)
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    run = Interpreter(model_content=content).get_signature_runner()
    images = _images(model)
    (outputs,) = run(images=images).values()
    np.testing.assert_allclose(outputs, model.predict(images, verbose=0), atol=2e-5)


@pytest.mark.parametrize("family", ["token", "swin"])
def test_the_litert_export_of_keras_needs_only_operations_of_litert(family, tmp_path):
    path = str(tmp_path / "model.tflite")
    build_model(vit() if family == "token" else swin(depths=(2,), num_heads=(1,))).export(path, format="litert")
    kinds = {operation["op_name"] for operation in Interpreter(model_path=path)._get_ops_details()}
    assert "GELU" in kinds
    assert not [kind for kind in kinds if kind.startswith("Flex")]


def test_litert_int8_is_calibrated_and_its_difference_told(tmp_path):
    model = tiny_vit(labels=LABELS, hidden_dim=64, mlp_dim=256)
    images = [np.random.default_rng(i).integers(0, 256, (16, 24, 3), dtype="uint8") for i in range(8)]
    plain = litert_model(model, tmp_path / "plain.tflite")
    written = litert_model(model, tmp_path / "int8.tflite", quantize="int8", images=images)
    assert written.path.stat().st_size < 0.5 * plain.path.stat().st_size
    details = Interpreter(model_path=str(written.path)).get_tensor_details()
    assert sum(tensor["dtype"] == np.int8 for tensor in details) > 20
    assert (plain.quantization, written.difference) == (None, None)
    spec = keras_vit.metadata(model).input_spec
    inputs = np.stack([spec.load(image) for image in images])
    expected = model.predict(inputs, verbose=0)
    outputs = np.concatenate([_run(written.path, image[None])["logits"] for image in inputs])
    assert written.quantization == {
        "images": 8,
        "outputs_max": pytest.approx(np.abs(outputs - expected).max() / np.abs(expected).max(), rel=1e-3),
        "outputs_mean": pytest.approx(np.abs(outputs - expected).mean() / np.abs(expected).max(), rel=1e-3),
        "top1_agreement": np.mean(outputs.argmax(1) == expected.argmax(1)),
    }
    assert 0 < written.quantization["outputs_mean"] < 0.2


@pytest.mark.parametrize("given", [{"quantize": "int8"}, {"images": ["a.jpg"]}, {"quantize": "int8", "images": []}])
def test_int8_and_images_go_together(given, model, tmp_path):
    with pytest.raises(ValueError, match="needs images to calibrate"):
        litert_model(model, tmp_path / "model.tflite", **given)


def _metadata(path):
    """What a file says of itself, read as its format's users do."""
    if path.suffix == ".onnx":
        entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    elif path.suffix == ".tflite":
        with zipfile.ZipFile(path) as archive:
            assert archive.read("labels.txt").decode() == "ant\nbee\nélan blanc\n"
            return json.loads(archive.read("keras_vit.json"))
    else:
        model = openvino.Core().read_model(str(path))
        entries = dict(model.get_rt_info("keras_vit").value.items())
    return entries | {key: json.loads(entries[key]) for key in ("labels", "input_spec")}


@pytest.mark.parametrize("name", WRITERS)
def test_preprocessing_and_labels_travel_inside(name, model, tmp_path):
    written = WRITERS[name](model, tmp_path / name)
    found = _metadata(written.path)
    spec = keras_vit.metadata(model).input_spec
    assert keras_vit.InputSpec(**found["input_spec"]) == spec
    assert tuple(found["labels"]) == LABELS
    assert (found["input"], found["output"], found["origin"]) == ("images", "logits", "a test")


def test_onnx_is_valid_and_has_a_dynamic_batch(onnx_path):
    onnx.checker.check_model(str(onnx_path), full_check=True)
    graph = onnx.load(onnx_path).graph
    kinds = [node.op_type for node in graph.node]
    assert "Erfc" not in kinds
    assert kinds.count("Erf") == CONFIG.num_layers
    dims = [value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)]
    assert dims == ["batch", "batch"]
    # ONNX Runtime warns of others.
    assert {tensor.name for tensor in graph.initializer} <= {name for node in graph.node for name in node.input}


def test_onnx_keeps_every_weight_by_its_name(model, onnx_path):
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(onnx_path).graph.initializer}
    for weight in model.weights:
        np.testing.assert_array_equal(found[weight.path], weight.numpy(), err_msg=weight.path)
    assert onnx_path.stat().st_size < 4 * model.count_params() + 40_000


def test_onnx_runtime_makes_one_kernel_of_gelu_and_of_layer_norm(onnx_path, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(onnx_path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("Gelu") == CONFIG.num_layers
    assert kinds.count("LayerNormalization") == 2 * CONFIG.num_layers + 1


def test_a_mixed_policy_is_written_in_float32(tmp_path):
    model, twin = tiny_vit(dtype="mixed_bfloat16"), tiny_vit()
    twin.set_weights(model.get_weights())
    written = onnx_model(model, tmp_path / "model.onnx")
    images = _images(model)
    np.testing.assert_allclose(_run(written.path, images)["logits"], twin.predict(images, verbose=0), atol=1e-5)


def test_a_model_without_a_classifier_gives_its_representation(tmp_path):
    model = tiny_vit(num_classes=0, num_registers=2)
    images = _images(model)
    outputs = _run(onnx_model(model, tmp_path / "model.onnx").path, images)
    np.testing.assert_allclose(outputs["representation"], model.predict(images, verbose=0), atol=1e-5)


def test_a_classifier_that_ends_in_a_softmax_gives_probabilities(tmp_path):
    model = tiny_vit(classifier_activation="softmax")
    outputs = _run(onnx_model(model, tmp_path / "model.onnx").path, _images(model))
    np.testing.assert_allclose(outputs["probabilities"].sum(1), 1, atol=1e-5)


def _with_head(activation):
    features = tiny_vit(num_classes=0)
    return keras.Model(features.input, keras.layers.Dense(3, activation=activation)(features.output))


@pytest.mark.parametrize(
    ("name", "activation", "reason"),
    [
        # Keras' own exact GELU is written with erfc, which ONNX does not know: converters let it pass.
        ("model.onnx", "gelu", "No Op registered for Erfc"),
        ("model.tflite", keras.ops.erf, "it has no Erf"),
        ("model.xml", keras.ops.erfinv, "Erfinv"),
    ],
)
def test_what_a_runtime_lacks_is_refused(name, activation, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        WRITERS[name](_with_head(activation), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_no_runtime_takes_is_refused():
    model = tiny_vit()
    images = keras.Input((16, 24, 3))
    wrapped = keras.Model(images, model(keras.layers.Rescaling(2.0)(images)))
    with pytest.raises(ValueError, match="export the inner model"):
        runtimes.source(wrapped)
    with pytest.raises(ValueError, match="one vector per image"):
        runtimes.source(keras_vit.features(model, "encoder_norm"))
    with pytest.raises(ValueError, match="2 labels for 3 classes"):
        runtimes.source(model, labels=["a", "b"])
    model.quantize("int8")
    with pytest.raises(ValueError, match="a quantized model"):
        runtimes.source(model)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_has_the_suffix_of_its_format(name, model, tmp_path):
    with pytest.raises(ValueError, match="must end in"):
        WRITERS[name](model, tmp_path / "model.bin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writer", ["onnx", "litert"])
def test_a_model_that_is_larger_than_its_format_is_refused(writer, model, tmp_path, monkeypatch):
    module = importlib.import_module(f"keras_vit.export.runtimes.{writer}")
    monkeypatch.setattr(module, "_MAX_BYTES", 1000)
    name = {"onnx": "model.onnx", "litert": "model.tflite"}[writer]
    with pytest.raises(ValueError, match="holds at most"):
        WRITERS[name](model, tmp_path / name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda outputs: outputs + 1e-3, "a difference of 0.001"),
        (lambda outputs: outputs * np.nan, "a difference of nan"),
        (lambda outputs: outputs[:1], "must give outputs of the shape"),
    ],
    ids=["wrong", "nan", "one row"],
)
def test_wrong_outputs_are_refused(change, reason, model):
    prepared = runtimes.source(model)
    with pytest.raises(ValueError, match=reason):
        runtimes.difference(prepared, lambda: lambda images: change(prepared.model(images, training=False).numpy()))


def test_a_runtime_that_fails_is_named(model):
    def load():
        raise KeyError("no such kernel")

    with pytest.raises(ValueError, match=r"must run the written file.*no such kernel"):
        runtimes.difference(runtimes.source(model), load)


@pytest.mark.parametrize("name", WRITERS)
def test_a_failed_export_leaves_the_older_file(name, model, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    (tmp_path / name).write_text("older")
    monkeypatch.setattr(runtimes.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        WRITERS[name](model, tmp_path / name)
    found = {p.name for p in tmp_path.iterdir()}
    # An older .xml is gone before the weights beside it are replaced.
    assert found == (set() if name == "model.xml" else {name})


@pytest.mark.parametrize(("name", "module"), [("model.onnx", "tf2onnx"), ("model.xml", "openvino")])
def test_a_missing_package_names_its_extra(name, module, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'keras-vit-zoo\[(onnx|openvino)\] @ git+"):
        WRITERS[name](model, tmp_path / name)


@pytest.mark.parametrize(("name", "module"), [("model.onnx", "onnxruntime"), ("model.tflite", "ai_edge_litert")])
def test_without_the_runtime_the_file_is_written_untried(name, module, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    written = WRITERS[name](model, tmp_path / name)
    assert (written.runtime, written.difference) == (None, None)
    assert written.path.stat().st_size > 4 * model.count_params()


@pytest.mark.parametrize("name", WRITERS)
def test_the_page_of_runtimes_shows_programs_that_run(name, model, tmp_path, monkeypatch, capsys):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "runtimes.md").read_text()
    programs = [part.partition("```")[0] for part in page.split("```python\n")[1:]]
    (program,) = [text for text in programs if f'"flowers{pathlib.Path(name).suffix}"' in text]
    monkeypatch.chdir(tmp_path)
    WRITERS[name](model, f"flowers{pathlib.Path(name).suffix}")
    Image.new("RGB", (40, 30), "red").save("rose.jpg")
    exec(program, {})
    spec = keras_vit.metadata(model).input_spec
    best = model.predict(spec.load("rose.jpg")[None], verbose=0)[0].argmax()
    assert capsys.readouterr().out.splitlines()[-1] == LABELS[best]


@pytest.mark.long
def test_openvino_tells_nobody_that_it_is_used(tmp_path):
    """Importing it writes to the home folder, and to a server, unless the package for that is not found."""
    script = (
        "import sys\n"
        "from tiny import tiny_vit\n"
        "from keras_vit.export import openvino_model\n"
        "openvino_model(tiny_vit(), sys.argv[1])\n"
        "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules\n"
    )
    home, here = tmp_path / "home", pathlib.Path(__file__).parents[1] / "helpers"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here)])}
    command = [sys.executable, "-c", script, str(tmp_path / "model.xml")]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert not (home / "intel").exists()
