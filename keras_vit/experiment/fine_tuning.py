"""Fine-tunes a pretrained model on images of one's own: the head first, then all layers.

The head is fitted to the features of the frozen model, which are computed once. All layers then go on from there as an
ordinary recipe does, resumable and validated after every epoch; what is best on the validation images stays.
"""

import dataclasses
import json
import pathlib
import re
import time
import warnings

import keras
import numpy as np

from keras_vit.atomic import replaced
from keras_vit.config import AugmentConfig, OptimizerConfig, Recipe, TrainingConfig, apply_overrides
from keras_vit.config.from_weights import follow_weights
from keras_vit.config.recipe import NO_CHOICE, upgrade_saved
from keras_vit.data import evaluation_dataset, plain_errors, train_and_evaluation
from keras_vit.distribution.strategies import device_kind
from keras_vit.experiment import runner as experiment
from keras_vit.experiment.fine_tuning_data import load_fine_tuning_data
from keras_vit.metadata import metadata
from keras_vit.models import ViTConfig
from keras_vit.training.initialization.warm_start import initial_model
from keras_vit.training.loop.hardware import choose_precision
from keras_vit.training.loop.run_lock import clear_directory, locked
from keras_vit.training.reports import plot
from keras_vit.training.reports import run_record as record
from keras_vit.training.reports.per_class import classification_report, markdown_report
from keras_vit.training.tasks.linear_head import fit_heads, head_inputs
from keras_vit.weights.key_selection import KeySelection
from keras_vit.weights.publish.push import license_of, shown_origin
from keras_vit.zoo.create import MODEL_FILE, describe_model

# Images that are much smaller than those of the weights are enlarged by so much and no more.
ENLARGEMENT = 3
_MIRRORED = 5_000  # up to so many training images, the head also learns from their mirror images
_MOST_FEATURES = 50_000


@dataclasses.dataclass
class FineTuned:
    """What `fine_tune` returns.

    Args:
        model: the `keras.Model`, with the weights that are best on the validation images. Its metadata has the classes,
            the preprocessing, the origin and the license.
        report: dict of JSON types: the data, the settings, `validation` and, with a test split, `test` (see
            `keras_vit.training.reports.per_class.classification_report`), `kept`, seconds, versions.
        history: list of dicts, one an epoch of all layers.
        directory: `pathlib.Path` with `model.keras`, `report.json`, `report.md`, `confusion.png`, `curve.png`.
    """

    model: keras.Model
    report: dict
    history: list
    directory: pathlib.Path


def fine_tune(
    model,
    data,
    *,
    validation=None,
    test=None,
    class_names=None,
    epochs=5,
    learning_rate=None,
    batch_size=None,
    image_size=None,
    validation_fraction=None,
    head_only=False,
    skip=(),
    new=(),
    prefix=None,
    seed=0,
    overrides=(),
    directory=None,
    overwrite=False,
    log=print,
):
    """Fine-tunes a pretrained model on a folder of images, arrays or a data set.

    Architecture, preprocessing (mean, std, crop, interpolation), origin and license follow the weights, the classes
    the data. The same call goes on where an interrupted one was saved.

    Args:
        model: what `keras_vit.load_model` takes that has weights, or a `keras.Model` of this library.
        data: path of a folder, `<folder>/<class>/...` or `<folder>/{train,validation,test}/<class>/...`; a pair of
            arrays `(images, labels)`; or a `tf.data.Dataset` of such pairs. See
            `keras_vit.experiment.fine_tuning_data.load_fine_tuning_data`.
        validation, test, class_names: with arrays and data sets, as for `load_fine_tuning_data`.
        epochs: int. Of all layers, after the head; fewer where the validation accuracy has stopped growing. Default 5.
        learning_rate: float or `None`: 2e-5. Of the head; layers nearer to the image learn slower.
        batch_size: int or `None`: 32, or fewer for few images.
        image_size: int, `(h, w)` or `None`: that of the weights, but at most three times the images' own size.
        validation_fraction: float or `None`: 0.2 of the training images, where there is no validation split.
        head_only: bool. Whether the other layers stay as they are. Default False.
        skip, new, prefix: what is taken of a checkpoint's file, as for `keras_vit.load_weights`.
        seed: int.
        overrides: iterable of `field=value`, further fields of the `Recipe`, such as `augment.flip=False`.
        directory: path of the run's folder; `None`: `runs/<data>_<model>`.
        overwrite: bool. Delete an earlier run in that folder instead of going on with it.
        log: callable for lines of text.

    Returns:
        A `FineTuned`.

    Raises:
        ValueError: if the model has no weights or is no model, or the data cannot be used; as
            `keras_vit.experiment.run`.
        FileNotFoundError, OSError, RuntimeError, KeyboardInterrupt, Preempted: as `keras_vit.load_model` and
            `keras_vit.experiment.run`.
    """
    began, processor, code = time.perf_counter(), time.process_time(), record.code()
    selection = KeySelection(skip, new, prefix)
    found = load_fine_tuning_data(data, validation, test, class_names, batch_size, validation_fraction)
    name = f"{found.name}_{_model_name(model)}"
    directory = pathlib.Path(directory or f"runs/{name}")
    with locked(directory), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="split .* of .*: not used")  # `found.description` names them
        warnings.filterwarnings("ignore", message=".* unreadable images? (is|are) left out: ")  # and these
        if overwrite:
            clear_directory(directory)
        weights = _weights_of(model, directory)
        log(found.description)
        recipe = _recipe(name, weights, selection, found, epochs, learning_rate, image_size, seed, log)
        recipe = apply_overrides(recipe, overrides)
        source = found.source or experiment.load_source(recipe.data)
        recipe = follow_weights(recipe).for_data(len(source.class_names), source.num_channels)
        head = _fit_head(recipe, source, found, directory / "head", log)
        tuned = recipe.replace(weights=str(directory / "head" / MODEL_FILE), **NO_CHOICE)
        if head_only:
            model, run_record = keras.models.load_model(directory / "head" / MODEL_FILE, compile=False), None
            with replaced(directory / MODEL_FILE) as partial:
                model.save(partial)
        else:
            finished = experiment.run(tuned, directory, log=log, source=source)
            model, run_record = finished.model, finished.record
        kept = _keep_better(model, run_record, head, directory, log)
        report = _report(model, tuned, source, found, head, run_record, kept)
        seconds = time.perf_counter() - began, time.process_time() - processor
        report |= {**code, "hardware": record.hardware()}
        report |= {"seconds": round(seconds[0], 1), "processor_seconds": round(seconds[1], 1)}
        _write(report, directory, run_record, log)
    return FineTuned(model, report, run_record["epochs"] if run_record else [], directory)


def _model_name(model):
    """A short name for folders."""
    name = model.name if isinstance(model, keras.Model) else str(model).rstrip("/\\")
    if not isinstance(model, keras.Model) and pathlib.Path(name).exists():
        path = pathlib.Path(name).resolve()
        name = path.stem if path.is_file() else path.name
    return re.sub(r"[^\w.-]+", "_", name.rpartition(":")[2]).strip("._") or "model"


def _weights_of(model, directory):
    """What a recipe takes for the weights; a model in memory is written first, once."""
    if not isinstance(model, keras.Model):
        return str(model)
    metadata(model)  # raises where it is none of this library
    file = directory / "initial" / MODEL_FILE
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with replaced(file) as partial:
            model.save(partial)
    return str(file)


def _recipe(name, weights, selection, data, epochs, learning_rate, image_size, seed, log):
    """The recipe of all layers, whose weights are still those that it begins with."""
    source = describe_model(weights, selection)
    log(
        f"weights: {shown_origin(source.origin)}, license {license_of(source) or 'not stated'}, mean "
        f"{_rounded(source.input_spec.mean)}, std {_rounded(source.input_spec.std)}"
    )
    model = {"drop_path_rate": 0.1} if hasattr(source.config, "drop_path_rate") else {}
    size = image_size or _image_size(source.config, data.side, log)
    optimizer = OptimizerConfig(
        learning_rate=learning_rate or 2e-5,
        warmup_epochs=0.5,
        weight_decay=0.05,
        layer_decay=0.75 if hasattr(source.config, "num_heads") else None,
        global_clipnorm=1.0,
    )
    return Recipe(
        name=name,
        weights=weights,
        weights_skip=selection.skip,
        weights_new=selection.new,
        weights_prefix=selection.prefix,
        model=model | {"image_size": size},
        data=data.config,
        augment=AugmentConfig(crop_scale=(0.5, 1.0), flip=True),
        optimizer=optimizer,
        training=TrainingConfig(epochs=epochs, label_smoothing=0.1, early_stopping=3, seed=seed),
    )


def _rounded(values):
    return ", ".join(f"{value:.3g}" for value in values)


def _image_size(config, side, log):
    """The image size of the weights, or a smaller one of whole patches for images that are much smaller."""
    native = config.image_size
    if type(config) is not ViTConfig or side * ENLARGEMENT >= min(native):
        return native
    size = tuple(max(-(-side * ENLARGEMENT // patch), 4) * patch for patch in config.patch_size)
    if any(new >= old for new, old in zip(size, native, strict=True)):
        return native
    log(
        f"image size: {size[0]} x {size[1]}, as half of the images have at most {side} pixels on their shorter side; "
        f"the weights are used with {native[0]} x {native[1]} (--size, image_size=)"
    )
    return size


def _fit_head(recipe, source, data, directory, log):
    """Fits the head and saves the model, unless that is done; returns a dict with its validation accuracy."""
    state = directory / "head.json"
    wanted = {"recipe": _head_settings(recipe.to_dict())}
    if state.exists() and (directory / MODEL_FILE).exists():
        known = json.loads(state.read_text())
        if _head_settings(upgrade_saved(known["recipe"], recipe)) == wanted["recipe"]:
            return known
        raise ValueError(
            "a run can only go on with the weights, data and sizes it began with; choose another directory (--out) or "
            f"pass --overwrite. Received: {str(directory.parent)!r}"
        )
    directory.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(recipe.training.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*the head is new")
        model = initial_model(recipe, source.class_names, choose_precision(recipe, device_kind()))
    train, judge, _ = train_and_evaluation(source, recipe.data, recipe.input_spec)
    if len(train) > _MOST_FEATURES:
        _, train = train.divide(_MOST_FEATURES / len(train))
    extractor = head_inputs(model)
    log(f"head: features of {data.count(train):,} training and {data.count(judge):,} validation images")
    features, labels = _features(extractor, train, recipe, mirrored=recipe.augment.flip and len(train) <= _MIRRORED)
    fit_heads(model, features, labels, recipe.training.seed)
    features, labels = _features(extractor, judge, recipe)
    accuracy = float(np.mean(_logits(model, features).argmax(-1) == labels))
    log(f"head: validation accuracy {accuracy:.4f}")
    with replaced(directory / MODEL_FILE) as partial:
        model.save(partial)
    found = wanted | {"validation_accuracy": accuracy}
    record.write_json(state, found)
    return found


def _head_settings(content):
    """The fields of a recipe, as a dict, that the fit of the head depends on."""
    unused = {"epochs", "early_stopping", "save_minutes", "save_steps"}
    settings = {name: value for name, value in content.items() if name not in ("optimizer", "augment", "distribution")}
    settings["training"] = {name: value for name, value in content["training"].items() if name not in unused}
    return settings


def _features(extractor, split, recipe, mirrored=False):
    """What the heads see of every image, a list of arrays, and the labels."""
    collected, labels = [], []
    for images, targets in _batches(split, recipe):
        for pixels in (images, images[:, :, ::-1]) if mirrored else (images,):
            outputs = extractor.predict_on_batch(pixels)
            collected.append(outputs if isinstance(outputs, list | tuple) else [outputs])
            labels.append(targets.argmax(-1))
    return [np.concatenate(column).astype("float32") for column in zip(*collected, strict=True)], np.concatenate(labels)


def _batches(split, recipe):
    """Normalized images and one-hot targets as arrays, without those that cannot be read."""
    batches = evaluation_dataset(
        split,
        recipe.model.num_classes,
        recipe.input_spec,
        recipe.data.batch_size,
        skip_unreadable=recipe.data.skip_unreadable,
    )
    with plain_errors():
        yield from batches.as_numpy_iterator()


def _logits(model, features):
    """The mean of the heads' answers."""
    heads = [layer for layer in model.layers if layer.name in ("head", "head_dist")]
    answers = [keras.ops.convert_to_numpy(head(inputs)) for head, inputs in zip(heads, features, strict=True)]
    return np.mean(answers, axis=0)


def _keep_better(model, run_record, head, directory, log):
    """What the model ends with: the best epoch, or the head alone where no epoch was as good; its weights follow."""
    if run_record is None:
        return "head"
    best = max(epoch["val_accuracy"] for epoch in run_record["epochs"])
    # An epoch's accuracy is a float32.
    if best > head["validation_accuracy"] - 1e-6:
        return f"epoch {run_record['best_epoch']}"
    log(f"no epoch was better than the head alone on the validation images ({best:.4f}): its model is kept")
    model.set_weights(keras.models.load_model(directory / "head" / MODEL_FILE, compile=False).get_weights())
    with replaced(directory / MODEL_FILE) as partial:
        model.save(partial)
    return "head"


def _report(model, recipe, source, data, head, run_record, kept):
    """The report of a run as JSON types, without folders of this machine."""
    train, judge, _ = train_and_evaluation(source, recipe.data, recipe.input_spec)
    splits = {"validation": judge}
    if data.test_split:
        splits["test"] = source.load(data.test_split, recipe.data, recipe.input_spec)
    content = metadata(model)
    measured = {}
    for name, split in splits.items():
        predictions, labels = [], []
        for images, targets in _batches(split, recipe):
            predictions.append(model.predict_on_batch(images).argmax(-1))
            labels.append(targets.argmax(-1))
        measured[name] = classification_report(np.concatenate(labels), np.concatenate(predictions), content.labels)
    return {
        "data": {"name": data.name, "classes": list(content.labels), "training_images": data.count(train)},
        "weights": {"origin": shown_origin(content.origin), "license": license_of(content)},
        "model": {
            "family": type(content.config).__name__,
            "image_size": list(content.config.image_size),
            "input_spec": content.input_spec.get_config(),
            "parameters": model.count_params(),
        },
        "settings": {
            key: value for key, value in recipe.to_dict().items() if key in ("augment", "optimizer", "training")
        }
        | {"batch_size": recipe.data.batch_size, "validation_fraction": recipe.data.validation_fraction},
        "head": {"validation_accuracy": head["validation_accuracy"]},
        "epochs": run_record["epochs"] if run_record else [],
        "kept": kept,
        **measured,
    }


def _write(report, directory, run_record, log):
    """Leaves the report, the curve and the confusion matrix in the run's folder."""
    record.write_json(directory / "report.json", report)
    split = "test" if "test" in report else "validation"
    text = f"# {report['data']['name']}\n\n{split}: {report[split]['examples']:,} images, "
    text += f"{report[split]['accuracy']:.1%} right\n\n{markdown_report(report[split])}\n"
    (directory / "report.md").write_text(text, encoding="utf-8")
    plot.confusion_matrix(report[split], directory / "confusion.png", log)
    if run_record is None:
        return
    plot.training_curve(run_record, directory / "curve.png", log)
