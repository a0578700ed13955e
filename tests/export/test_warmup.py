"""Warm-up records: for every signature and batch size, replayed as a server does."""

import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
from served_model import write_model
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from tiny import tiny_vit

from keras_vit.export import replay_warmup, saved_model, write_warmup
from keras_vit.export.servable.signature_defs import CLASSIFY_METHOD, PREDICT_METHOD, signature_defs
from keras_vit.export.server.warmup import WARMUP_FILE, read_warmup

SIGNATURES = ["classify", "embeddings", "images", "serving_default", "strict"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "1")


@pytest.fixture
def model(written, tmp_path):
    """A copy that a test may harm."""
    return shutil.copytree(written, tmp_path / "1")


def _write(path, logs):
    with tf.io.TFRecordWriter(str(path / WARMUP_FILE)) as writer:
        for log in logs:
            writer.write(log if isinstance(log, bytes) else log.SerializeToString())


def test_the_signatures_are_read_without_loading(model):
    found = signature_defs(model)
    assert list(found) == SIGNATURES
    methods = {name: signature.method_name for name, signature in found.items()}
    assert methods == {name: CLASSIFY_METHOD if name == "classify" else PREDICT_METHOD for name in SIGNATURES}


@pytest.mark.parametrize("content", [None, b"", b"\xff\xffno proto"])
def test_what_is_no_saved_model_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ValueError, match="a SavedModel must have"):
        signature_defs(tmp_path)


def test_there_is_a_record_for_each_signature_and_batch_size(model):
    assert write_warmup(model, "colors", (1, 2, 5), image_size=(12, 10)) == 15
    logs = read_warmup(model)
    kinds = [log.WhichOneof("log_type") for log in logs]
    assert kinds == ["classify_log"] * 3 + ["predict_log"] * 12
    requests = [getattr(log, kind).request for log, kind in zip(logs, kinds, strict=True)]
    assert {request.model_spec.name for request in requests} == {"colors"}
    assert [request.model_spec.signature_name for request in requests] == [n for n in SIGNATURES for _ in range(3)]
    assert [len(request.input.example_list.examples) for request in requests[:3]] == [1, 2, 5]
    shapes = {r.model_spec.signature_name: tf.make_ndarray(next(iter(r.inputs.values()))).shape for r in requests[3:]}
    assert shapes == {"embeddings": (5, 8, 6, 3), "images": (5, 12, 10, 3), "serving_default": (5,), "strict": (5,)}
    (image, *_) = requests[-1].inputs["image_bytes"].string_val
    assert tf.io.decode_jpeg(image).shape == (12, 10, 3)
    # A batch of numbers takes no more room than one of them.
    assert (model / WARMUP_FILE).stat().st_size < 30 * (len(image) + 500)
    assert replay_warmup(model) == [(name, size) for name in SIGNATURES for size in (1, 2, 5)]


def test_the_images_have_the_size_that_a_signature_tells(model):
    write_warmup(model, "colors", (1,))
    (log,) = [log for log in read_warmup(model) if log.predict_log.request.model_spec.signature_name == "images"]
    assert tf.make_ndarray(log.predict_log.request.inputs["images"]).shape == (1, 8, 6, 3)


def test_an_exported_model_takes_its_records(tmp_path):
    """Whatever signatures the exporter writes."""
    path = saved_model(tiny_vit(labels=("ant", "bee", "cat")), tmp_path / "insects")
    count = write_warmup(path, "insects", (1, 2), image_size=(16, 24))
    assert count == 2 * len(signature_defs(path))
    assert replay_warmup(path) == [(name, size) for name in signature_defs(path) for size in (1, 2)]


def _request(signature, **inputs):
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log


def _classify_request(signature, *examples):
    log = PredictionLog()
    log.classify_log.request.model_spec.signature_name = signature
    log.classify_log.request.input.example_list.examples.extend(examples)
    return log


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (_request("strict", image_bytes=[b"no image"]), "record 1, signature 'strict' .*no image in row"),
        (_request("nothing", image_bytes=[b""]), "record 1, signature 'nothing' .*no such signature"),
        (_request("", image=[b""]), r"signature 'serving_default' .*the inputs are \['image_bytes'\], not \['image'\]"),
        (_request("images", images=np.ones((1, 4, 3), "float32")), "record 1, signature 'images'"),
        (_request("images", images=["text"]), "record 1, signature 'images'"),
        (_classify_request("strict", tf.train.Example()), "its method is"),
        (_classify_request("classify", tf.train.Example()), "record 1, signature 'classify'"),
    ],
)
def test_a_record_that_fails_is_named(model, log, message):
    write_warmup(model, "colors", (1,))
    _write(model, [read_warmup(model)[0], log])
    with pytest.raises(ValueError, match=f"(?s)a warm-up record must run.*{message}"):
        replay_warmup(model)


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        ([], "1 to 1000 warm-up records. Received: 0"),
        ([_request("a", b=[1])] * 1001, "Received: 1001"),
        ([_request("a", b=[1]), b"\xff\xff garbage"], "record 1"),
        ([PredictionLog()], "must be a Predict or Classify request"),
        ([b""], "must be a Predict or Classify request"),
    ],
    ids=["none", "too many", "garbage", "empty", "nothing"],
)
def test_records_that_a_server_would_refuse_or_pass_over_are_refused(tmp_path, logs, message):
    (tmp_path / WARMUP_FILE).parent.mkdir()
    _write(tmp_path, logs)
    with pytest.raises(ValueError, match=message):
        read_warmup(tmp_path)


@pytest.mark.parametrize("cut", [None, -3])
def test_a_file_that_is_no_tfrecord_is_refused(model, cut):
    write_warmup(model, "colors", (1,))
    file = model / WARMUP_FILE
    file.write_bytes(b"some text that is no record" if cut is None else file.read_bytes()[:cut])
    with pytest.raises(ValueError, match="must be a TFRecord of PredictionLog"):
        read_warmup(model)
    file.unlink()
    with pytest.raises(ValueError, match="must be a TFRecord of PredictionLog"):
        replay_warmup(model)


@pytest.mark.parametrize("sizes", [(), (0, 1), (2, 1), (1, 1), (1.5,), range(1, 300)])
def test_batch_sizes_must_increase_and_be_few(model, sizes):
    with pytest.raises(ValueError, match=r"batch_sizes must|1 to 1000 warm-up records"):
        write_warmup(model, "colors", sizes)
    assert not (model / WARMUP_FILE).exists()


def test_without_the_extra_the_error_names_it(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.prediction_log_pb2", None)
    for call in (lambda: write_warmup(model, "colors"), lambda: replay_warmup(model)):
        with pytest.raises(ImportError, match=r"keras-vit-zoo\[serving\]"):
            call()
