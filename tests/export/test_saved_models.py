"""The SavedModel: its signatures beside the Keras model, its graph, and its files."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from hostile import damaged, encode, picture
from tensorflow.core.protobuf import saved_model_pb2
from tiny import randomize, tiny_vit

import keras_vit
from keras_vit import SwinConfig, features
from keras_vit.export import predict, saved_model
from keras_vit.export.servable.signatures import EXAMPLE_KEYS
from keras_vit.interpret import rollout_model
from keras_vit.models import build_swin

LABELS = ("ant", "bee", "cat")
BYTES, PIXELS = {"image_bytes": ("string", [-1])}, [-1, -1, -1, 3]
ANSWER = {
    "scores": ("float32", [-1, 3]),
    "classes": ("string", [-1, 3]),
    "class_ids": ("int32", [-1, 3]),
    "valid": ("bool", [-1]),
}
LOGITS = {"logits": ("float32", [-1, 3]), "probabilities": ("float32", [-1, 3])}
# signature: inputs and outputs, each a type and a shape
CONTRACT = {
    "serving_default": (BYTES, ANSWER),
    "strict": (BYTES, ANSWER),
    "images": ({"images": ("float32", PIXELS)}, LOGITS),
    "images_uint8": ({"images": ("uint8", PIXELS)}, LOGITS),
    "embeddings": (
        BYTES,
        {"embedding": ("float32", [-1, None]), "representation": ("float32", [-1, None]), "valid": ("bool", [-1])},
    ),
    "explain": (
        BYTES,
        {
            "heat_map": ("float32", [-1, 2, 3]),
            "class": ("string", [-1]),
            "class_id": ("int32", [-1]),
            "score": ("float32", [-1]),
            "valid": ("bool", [-1]),
        },
    ),
    "classify": ({"inputs": ("string", [-1])}, {"classes": ("string", [-1, 3]), "scores": ("float32", [-1, 3])}),
}
FORBIDDEN = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "ReadFile", "WriteFile", "MatchingFiles", "Print", "PrintV2")


def _vit():
    # Wide enough that weights outweigh what else lies in a checkpoint.
    return tiny_vit(hidden_dim=128, mlp_dim=512, labels=LABELS)


def _deit():
    fields = {"hidden_dim": 128, "mlp_dim": 512, "distillation_token": True, "num_registers": 1}
    return tiny_vit(**fields, labels=LABELS, dtype="mixed_bfloat16")


def _swin():
    config = SwinConfig(
        image_size=(16, 24), patch_size=2, window_size=4, embed_dim=64, depths=(2, 2), num_heads=(1, 2), num_classes=3
    )
    model = build_swin(config, labels=LABELS)
    randomize(model)
    return model


class Exported:
    """A model and its SavedModel."""

    def __init__(self, model, folder):
        self.model, self.path = model, saved_model(model, folder)
        self.spec = keras_vit.metadata(model).input_spec
        self.signatures = tf.saved_model.load(str(self.path)).signatures

    def __call__(self, signature, values, dtype=tf.string):
        (name,) = CONTRACT[signature][0]
        outputs = self.signatures[signature](**{name: tf.constant(values, dtype)})
        return {name: output.numpy() for name, output in outputs.items()}

    def logits(self, data):
        """What the Keras model makes of encoded images, which Pillow reads."""
        images = np.stack([self.spec.load(io.BytesIO(d)) for d in data])
        return np.array(self.model(images))


@pytest.fixture(autouse=True)
def _reproducible():
    """Instead of the seeds of other tests: TensorFlow forgets its functions with each seed."""


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return Exported(_vit(), tmp_path_factory.mktemp("models") / "insects")


@pytest.fixture(scope="module", params=[None, _deit, _swin], ids=["vit", "deit", "swin"])
def exported(request, vit, tmp_path_factory):
    return Exported(request.param(), tmp_path_factory.mktemp("models") / "insects") if request.param else vit


@pytest.fixture(scope="module")
def data():
    """Encoded images, one at the model's size."""
    jpeg, png = encode(picture(0), "JPEG"), encode(picture(1, (90, 41)))
    return [jpeg, png, encode(picture(2, (24, 16))), encode(picture(3), "WEBP"), encode(picture(4, mode="L"), "BMP")]


def _softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _proto(path):
    message = saved_model_pb2.SavedModel()
    message.ParseFromString((path / "saved_model.pb").read_bytes())
    (graph,) = message.meta_graphs
    return graph


def _described(tensors):
    dtypes = {name: tf.as_dtype(info.dtype).name for name, info in tensors.items()}
    return {name: (dtypes[name], [d.size for d in info.tensor_shape.dim]) for name, info in tensors.items()}


def test_signatures_are_those_of_the_contract(exported):
    found = {name: s for name, s in _proto(exported.path).signature_def.items() if not name.startswith("__")}
    is_swin = isinstance(keras_vit.metadata(exported.model).config, SwinConfig)
    assert set(found) == set(CONTRACT) - ({"explain"} if is_swin else set())
    width = exported.model.get_layer("representation").output.shape[-1]
    for name, signature in found.items():
        inputs, outputs = CONTRACT[name]
        assert _described(signature.inputs) == inputs
        expected = {key: (dtype, [width if s is None else s for s in shape]) for key, (dtype, shape) in outputs.items()}
        assert _described(signature.outputs) == expected


def test_bytes_are_classified_as_the_model_does(exported, data):
    answer, expected = exported("serving_default", data), _softmax(exported.logits(data))
    scores = np.take_along_axis(expected, answer["class_ids"], axis=1)
    # A value that is rounded the other way than in Pillow is one of 256 levels of one pixel; bfloat16 is coarser.
    np.testing.assert_allclose(answer["scores"], scores, atol=5e-3)
    assert (np.diff(answer["scores"], axis=1) <= 0).all()
    np.testing.assert_allclose(answer["scores"].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(answer["classes"].astype(str), np.array(LABELS)[answer["class_ids"]])
    assert answer["valid"].all()
    # Images must differ in their answers, or the comparison would tell little.
    assert len(np.unique(answer["scores"].round(4))) > 10


def test_images_of_the_size_of_the_model_go_in_as_they_are(exported):
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 16, 24, 3)).astype("float32")
    outputs = exported("images", pixels, tf.float32)
    expected = np.array(exported.model(exported.spec.normalize(pixels)))
    tolerance = 1e-5 if exported.model.get_layer("patch_encoder").compute_dtype == "float32" else 2e-2
    np.testing.assert_allclose(outputs["logits"], expected, atol=tolerance)
    np.testing.assert_allclose(outputs["probabilities"], _softmax(outputs["logits"]), atol=1e-6)


def test_images_of_other_sizes_are_resized_as_encoded_ones(exported):
    images = [picture(seed, (61, 40)) for seed in range(3)]
    pixels = np.stack([np.asarray(image) for image in images])
    wide, narrow = exported("images", pixels, tf.float32), exported("images_uint8", pixels, tf.uint8)
    for name in ("logits", "probabilities"):
        np.testing.assert_array_equal(wide[name], narrow[name])
    answer = exported("serving_default", [encode(image) for image in images])
    scores = np.take_along_axis(wide["probabilities"], answer["class_ids"], axis=1)
    np.testing.assert_allclose(answer["scores"], scores, atol=1e-6)


def test_embeddings_are_what_the_classifier_starts_from(exported, data):
    outputs = exported("embeddings", data)
    images = np.stack([exported.spec.load(io.BytesIO(d)) for d in data])
    expected = np.array(features(exported.model, "representation")(images)["representation"], "float32")
    np.testing.assert_allclose(outputs["representation"], expected, atol=0.05 * np.abs(expected).max())
    norms = np.linalg.norm(outputs["representation"], axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["embedding"], outputs["representation"] / norms, atol=1e-5)
    assert outputs["valid"].all()


def test_explain_tells_the_best_class_and_where_it_looked(vit, data):
    outputs, answer = vit("explain", data), vit("serving_default", data)
    for name, best in (("class", "classes"), ("class_id", "class_ids"), ("score", "scores")):
        np.testing.assert_array_equal(outputs[name], answer[best][:, 0])
    images = np.stack([vit.spec.load(io.BytesIO(d)) for d in data])
    expected = rollout_model(vit.model)(images)["heat_map"]
    np.testing.assert_allclose(outputs["heat_map"], expected, atol=1e-3)
    np.testing.assert_allclose(outputs["heat_map"].sum(axis=(1, 2)), 1, atol=1e-5)


def _example(**features):
    lists = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString()


def test_classify_takes_examples(exported, data):
    answer = exported("serving_default", data)
    for key in EXAMPLE_KEYS:
        outputs = exported("classify", [_example(**{key: d, "other": b"x"}) for d in data])
        for name in ("classes", "scores"):
            np.testing.assert_array_equal(outputs[name], answer[name])
    bad = [b"no example", _example(other=b"x"), _example(image_bytes=b"no image"), b""]
    outputs = exported("classify", [bad[0], _example(image_bytes=data[0]), *bad[1:]])
    np.testing.assert_array_equal(outputs["scores"][1], answer["scores"][0])
    np.testing.assert_array_equal(outputs["scores"][[0, 2, 3, 4]], 0)
    assert set(outputs["classes"][[0, 2, 3, 4]].ravel()) == {b""}


@pytest.mark.parametrize("signature", ["serving_default", "embeddings", "explain"])
def test_a_bad_image_gets_zeros_and_harms_no_other(vit, data, signature):
    files = list(damaged().values())
    outputs = vit(signature, [data[0], *files, data[1]])
    assert list(outputs["valid"]) == [True] + [False] * len(files) + [True]
    alone = [vit(signature, [d]) for d in data[:2]]
    for name, values in outputs.items():
        assert set(values[1:-1].ravel()) == {b"" if values.dtype == object else 0}
        for value, (expected,) in zip(values[[0, -1]], (outputs[name] for outputs in alone), strict=True):
            if values.dtype == "float32":
                np.testing.assert_allclose(value, expected, atol=1e-5)
            else:
                np.testing.assert_array_equal(value, expected)


def test_strict_names_the_row_and_the_rule(exported, data):
    answer, expected = exported("strict", data), exported("serving_default", data)
    for name, values in answer.items():
        np.testing.assert_array_equal(values, expected[name])
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0\0\xff\xff" * 2
    formats = r"formats jpeg, png, webp, bmp, gif \(no compressed BMP nor one of 1, 4 or 16 bits\)"
    for bad, rule in (
        (b"hello", rf"{formats}. Received: 5 bytes"),
        (encode(picture(0, mode="1"), "BMP"), formats),
        (data[0][:500], r"decoded to its end. Received: 500 bytes"),
        (bomb, r"at most 33554432 pixels"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"image_bytes\[2\] must be an image .*{rule}"):
            exported("strict", [*data[:2], bad, b"another bad one"])


def test_batches_of_any_size_and_twice_the_same(exported, data):
    whole = exported("serving_default", data)
    for count in (0, 1, 2, 5):
        answer = exported("serving_default", data[:count])
        for name, values in answer.items():
            assert values.shape == (count, *whole[name].shape[1:])
            if name == "scores":
                np.testing.assert_allclose(values, whole[name][:count], atol=1e-5 if count else 0)
    for name, values in exported("serving_default", data).items():
        np.testing.assert_array_equal(values, whole[name])
    for name in exported.signatures:
        inputs, outputs = CONTRACT[name]
        ((dtype, shape),) = inputs.values()
        empty = np.zeros((0, 7, 9, 3)) if len(shape) == 4 else []
        answer = exported(name, empty, tf.as_dtype(dtype))
        assert {key: len(value) for key, value in answer.items()} == dict.fromkeys(outputs, 0)


def test_images_of_a_wrong_shape_are_refused_by_the_graph(vit):
    """As a server calls it, which does not look at the shape that a signature states."""
    shapes = [(16, 24, 3), (2, 16, 24, 1), (2, 16, 24, 4), (2, 0, 24, 3), (2, 1, 20_000, 3), (1, 8000, 8000, 3), (3,)]
    meta = _proto(vit.path)
    for node in meta.graph_def.node:
        if node.op == "Placeholder":
            node.attr["shape"].shape.Clear()
            node.attr["shape"].shape.unknown_rank = True
            node.attr.pop("_output_shapes", None)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.import_graph_def(meta.graph_def, name="")
        saver, file = meta.saver_def, str(vit.path / "variables" / "variables")
        session.run(saver.restore_op_name, {saver.filename_tensor_name: file})
        for name in ("images", "images_uint8"):
            signature = meta.signature_def[name]
            feed = graph.get_tensor_by_name(signature.inputs["images"].name)
            fetch = graph.get_tensor_by_name(signature.outputs["logits"].name)
            for shape in shapes:
                images = np.zeros(shape, feed.dtype.as_numpy_dtype)
                with pytest.raises(tf.errors.InvalidArgumentError) as error:
                    session.run(fetch, {feed: images})
                message = f"images must have the shape (batch, height, width, 3), at most {2**25} pixels each"
                assert message in str(error.value)
                assert f"Received: shape=({', '.join(map(str, shape))})" in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_with_their_row(exported, value):
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 16, 24, 3)).astype("float32")
    pixels[1, 3, 5, 2] = pixels[2, 0, 0, 0] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"images\[1\] must be of finite numbers"):
        exported("images", pixels, tf.float32)


def _nodes(graph_def):
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def test_the_graph_holds_nothing_that_a_server_lacks(exported):
    meta = _proto(exported.path)
    nodes = list(_nodes(meta.graph_def))
    assert not {node.op for node in nodes} & set(FORBIDDEN)
    assert not [node.name for node in nodes if "_XlaMustCompile" in node.attr and node.attr["_XlaMustCompile"].b]
    assert not [f for f in meta.graph_def.library.function if f.attr["_XlaMustCompile"].b]
    assert max(node.ByteSize() for node in nodes if node.op == "Const") < 2**20
    assert [*meta.meta_info_def.tags] == ["serve"]
    for node in nodes:
        if node.op in ("DecodeJpeg", "DecodeAndCropJpeg"):
            assert not node.attr["try_recover_truncated"].b
            assert node.attr["dct_method"].s == b"INTEGER_ACCURATE"


def test_no_file_tells_where_it_was_made(exported):
    places = [str(pathlib.Path(keras_vit.__file__).parent), str(pathlib.Path.home()), str(exported.path.parent)]
    for file in (file for file in exported.path.rglob("*") if file.is_file()):
        assert not [place for place in places if place.encode() in file.read_bytes()], file


def test_every_variable_is_stored_once(exported):
    stored = sum(file.stat().st_size for file in (exported.path / "variables").iterdir())
    assert 4 * exported.model.count_params() < stored <= 1.02 * 4 * exported.model.count_params()


def test_predict_takes_the_highest_version(vit, tmp_path):
    file = tmp_path / "image.png"
    file.write_bytes(encode(picture(0)))
    (vit.path.parent / ".partial-of-another-process").mkdir()
    (answer,) = predict(vit.path.parent, [file])
    expected = vit("serving_default", [file.read_bytes()])
    names, scores = zip(*answer, strict=True)
    assert [name.encode() for name in names] == list(expected["classes"][0])
    np.testing.assert_allclose(scores, expected["scores"][0], atol=1e-6)


def test_predict_names_what_it_cannot_read(vit, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(ValueError, match=r"bad.png' \(must be an image of one of the formats .* 8 bytes\)"):
        predict(vit.path, [bad])
    with pytest.raises(ValueError, match=r"missing.png"):
        predict(vit.path, [tmp_path / "missing.png"])
    with pytest.raises(ValueError, match="there must be a SavedModel"):
        predict(tmp_path, [bad])
