"""Write a model as a SavedModel that TF Serving serves, and ask one."""

import os
import pathlib
import shutil
import tempfile

import keras
import tensorflow as tf

from keras_vit.data.preprocess import decode, resize
from keras_vit.metadata import LAYER_NAME, has_classifier, metadata, output_activation
from keras_vit.validation import check_positive


def next_version(directory):
    """The integer after the highest version in `directory`, 1 where there is none."""
    directory = pathlib.Path(directory)
    versions = [int(p.name) for p in directory.iterdir() if p.name.isdigit()] if directory.is_dir() else []
    return max(versions, default=0) + 1


def _signatures(model, content, labels, top_k):
    """The functions behind the signatures, closing over the model."""
    spec, names = content.input_spec, tf.constant(labels)
    is_probability = output_activation(model) is not None

    def probabilities(outputs):
        outputs = tf.cast(outputs, tf.float32)
        return outputs if is_probability else tf.nn.softmax(outputs)

    def prepare(data):
        return resize(decode(data, spec.num_channels), spec)

    def classify(image_bytes):
        shape = tf.TensorSpec((*spec.size, spec.num_channels), tf.float32)
        pixels = tf.map_fn(prepare, image_bytes, fn_output_signature=shape)
        scores, ids = tf.math.top_k(probabilities(model(spec.normalize(pixels), training=False)), top_k)
        return {"scores": scores, "classes": tf.gather(names, ids), "class_ids": ids}

    def images(images):
        outputs = tf.cast(model(images, training=False), tf.float32)
        return (
            {"probabilities": outputs}
            if is_probability
            else {"logits": outputs, "probabilities": probabilities(outputs)}
        )

    return classify, images


def saved_model(model, directory, labels=None, top_k=5, version=None):
    """Writes `<directory>/<version>/`, a SavedModel with the preprocessing in the graph.

    The version appears whole or not at all: it is written beside and renamed. Signatures:

    * `serving_default`: `image_bytes`, string `(n,)`, encoded images of any size, to `scores` float32 `(n, k)`,
      `classes` string `(n, k)`, `class_ids` int32 `(n, k)`, best first.
    * `images`: `images`, float32 `(n, h, w, c)`, normalised and of the model's size, to `logits` and
      `probabilities`, float32 `(n, num_classes)`; without `logits` where the model ends in a softmax or sigmoid.

    Args:
        model: a model of keras_vit with a classifier.
        directory: path, for example `saved_models/flowers`.
        labels: class names; `None` for the model's own, or the numbers of the classes.
        top_k: int. How many classes `serving_default` returns, at most all. Default 5.
        version: int or `None`: the next one.

    Returns:
        The path of the version.

    Raises:
        ValueError: if the version exists, the model has no classifier or changes its images before the
            preprocessing of keras_vit, or the labels do not fit it.
    """
    content = metadata(model)
    _check_exportable(model)
    count = model.outputs[0].shape[-1]
    check_positive(top_k, "top_k")
    if version is not None:
        check_positive(version, "version")
    if labels is None:
        labels = [str(i) for i in range(count)] if content.labels is None else content.labels
    if len(labels) != count:
        raise ValueError(f"labels must name every class. Received: {len(labels)} labels for {count} classes")
    directory = pathlib.Path(directory)
    version = next_version(directory) if version is None else version
    target = directory / str(version)
    if target.exists():
        raise ValueError(f"a version is never overwritten. Received: {str(target)!r}, which exists")
    directory.mkdir(parents=True, exist_ok=True)
    # A hidden folder beside the target: on the same file system, and no integer, so the server ignores it.
    partial = pathlib.Path(tempfile.mkdtemp(prefix=".partial-", dir=directory))
    try:
        _write(model, content, [str(label) for label in labels], min(top_k, count), partial)
        os.chmod(partial, 0o755)
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def _check_exportable(model):
    """The graph of the signatures prepares the images: nothing else may, and a classifier must follow."""
    direct = any(
        layer.name == LAYER_NAME and any(layer.input is tensor for tensor in model.inputs) for layer in model.layers
    )
    if not direct:
        raise ValueError(
            "a model to export must take its images as keras_vit prepares them; export the inner model. "
            f"Received: model={model.name!r}, whose input does not go straight to its {LAYER_NAME!r} layer"
        )
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2 or not has_classifier(model):
        raise ValueError(f"only a model with a classifier can be exported. Received: model={model.name!r}")


def _write(model, content, labels, top_k, path):
    classify, images = _signatures(model, content, labels, top_k)
    spec = content.input_spec
    # `add_endpoint` alone stores every variable once; `track` or `model.export` would store it twice.
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serving_default", classify, [tf.TensorSpec((None,), tf.string, name="image_bytes")])
    pixels = tf.TensorSpec((None, *spec.size, spec.num_channels), tf.float32, name="images")
    archive.add_endpoint("images", images, [pixels])
    archive.write_out(str(path), verbose=False)


def predict(path, files):
    """Classifies image files with a SavedModel, without Keras.

    Args:
        path: of a version, or of a folder of versions, whose highest is taken.
        files: paths of images.

    Returns:
        A list with a list of `(class name, score)` for each file, best first.

    Raises:
        ValueError: if there is no SavedModel, or a file cannot be read or decoded.
    """
    path = pathlib.Path(path)
    if not (path / "saved_model.pb").exists() and next_version(path) > 1:
        path = path / str(next_version(path) - 1)
    if not (path / "saved_model.pb").exists():
        raise ValueError(
            f"there must be a SavedModel in the folder or in a numbered folder in it. Received: {str(path)!r}"
        )
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    results = []
    for file in files:
        try:
            outputs = serve(image_bytes=tf.constant([pathlib.Path(file).read_bytes()]))
        except (OSError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(f"an image must be a readable file. Received: {str(file)!r} ({error})") from error
        names = [name.decode() for name in outputs["classes"][0].numpy()]
        results.append(list(zip(names, outputs["scores"][0].numpy().tolist(), strict=True)))
    return results
