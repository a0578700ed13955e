"""Fine-tunes a pretrained model on new images: the head first, then all layers.

The head is fitted to the features of the frozen model, which are computed once. Then all layers are trained as an
ordinary recipe, resumable and validated after every epoch. The weights with the best validation accuracy are kept.
"""

import collections.abc
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
from keras_vit.config.from_weights import complete_from_weights
from keras_vit.config.lora import LoraConfig
from keras_vit.config.recipe import NO_SELECTION, upgrade_saved
from keras_vit.data import evaluation_dataset, load_source, train_and_evaluation, unwrap_tf_errors
from keras_vit.distribution.strategies import device_kind
from keras_vit.evaluation.figures import confusion_figure
from keras_vit.evaluation.per_class import classification_report, markdown_report
from keras_vit.experiment.fine_tuning_data import load_fine_tuning_data
from keras_vit.experiment.runner import LORA_FILE, run
from keras_vit.metadata import metadata
from keras_vit.models.heads import HEADS
from keras_vit.training.initialization.warm_start import initial_model
from keras_vit.training.loop.hardware import choose_precision
from keras_vit.training.loop.run_lock import clear_directory, locked
from keras_vit.training.reports import plot
from keras_vit.training.reports import run_record as record
from keras_vit.training.tasks.linear_head import fit_heads, head_inputs
from keras_vit.validation import check_choice, check_positive
from keras_vit.weights.key_selection import KeySelection
from keras_vit.weights.publish.push import license_of, shown_origin
from keras_vit.zoo.create import MODEL_FILE, describe_model

# Images that are smaller than those of the weights are enlarged by at most this factor.
MAX_ENLARGEMENT = 3
_MAX_FLIPPED_IMAGES = 5_000  # Up to this number of training images, the head is also fitted to their mirror images.
_MAX_HEAD_IMAGES = 50_000
_LEARNING_RATE, _LORA_LEARNING_RATE = 2e-5, 3e-4


@dataclasses.dataclass
class FineTuningResult:
    """The results of `fine_tune`.

    Args:
        model: the `keras.Model` with the weights of the best validation accuracy. Its metadata has the classes, the
            preprocessing, the origin and the license.
        report: dict of JSON types: the data, the settings, `validation` and, with a test split, `test` (see
            `keras_vit.evaluation.per_class.classification_report`), `kept`, the seconds and the versions.
        history: list of dicts, one for each epoch of all layers.
        directory: `pathlib.Path` with `model.keras`, `report.json`, `report.md`, `confusion.png`, `curve.png`.
        example: str or `None`. The path of a readable image of the folder, to try the model with.
    """

    model: keras.Model
    report: dict
    history: list
    directory: pathlib.Path
    example: str | None = None


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
    lora=None,
    class_weights=None,
    skip=(),
    new=(),
    prefix=None,
    seed=0,
    overrides=(),
    directory=None,
    overwrite=False,
    log=print,
):
    """Fine-tunes a pretrained model on a folder of images, arrays or a dataset.

    Architecture, preprocessing (mean, std, crop, interpolation), origin and license come from the weights, the classes
    from the data. Call it again with the same arguments to resume an interrupted run.

    Args:
        model: a `keras.Model` of this library, or a name or path of weights as for `keras_vit.load_model`.
        data: path of a folder, `<folder>/<class>/...` or `<folder>/{train,validation,test}/<class>/...`; a pair of
            arrays `(images, labels)`; or a `tf.data.Dataset` of such pairs. See
            `keras_vit.experiment.fine_tuning_data.load_fine_tuning_data`.
        validation, test, class_names: with arrays and datasets, as for `load_fine_tuning_data`.
        epochs: int. Epochs of all layers, after the head; fewer if the validation accuracy stops rising. Default 5.
        learning_rate: float or `None`: 2e-5, with `lora` 3e-4. That of the head; it decays toward the first layer.
        batch_size: int or `None`: 32, or less for few images.
        image_size: int, `(h, w)` or `None`: that of the weights, but at most three times the size of the images.
        validation_fraction: float or `None`: 0.2 of the training images, if there is no validation split.
        head_only: bool. Whether to train nothing but the head (a linear probe). Default False.
        lora: int, the rank of LoRA adapters, or `None`. With them all layers but the head stay as they are: less
            memory, and a file of a few MB, `lora.safetensors`, beside the model that has them merged. Default `None`.
        class_weights: a float for each class, a dict of them by the names or indices of the classes, `balanced`: the
            same total weight for every class, or `None` (default).
        skip, new, prefix: the keys to load from a checkpoint file, as for `keras_vit.load_weights`.
        seed: int.
        overrides: iterable of `field=value`: other fields of the `Recipe`, such as `augment.flip=False`.
        directory: path of the run's folder; `None` for `runs/<data>_<model>`.
        overwrite: bool. Whether to discard an existing run in that folder instead of resuming it. Default False.
        log: callable for lines of text.

    Returns:
        `FineTuningResult`.

    Raises:
        ValueError: if the model is not of this library or has no weights, or if the data cannot be used; as
            `keras_vit.experiment.run`.
        FileNotFoundError, OSError, RuntimeError, KeyboardInterrupt, Preempted: as `keras_vit.load_model` and
            `keras_vit.experiment.run`.
    """
    start, start_processor, code = time.perf_counter(), time.process_time(), record.code()
    if lora is not None:
        check_positive(lora, "lora")
        if head_only:
            raise ValueError(
                f"head_only trains no adapters; leave one of the two out. Received: lora={lora}, head_only=True"
            )
    selection = KeySelection(skip, new, prefix)
    images = load_fine_tuning_data(data, validation, test, class_names, batch_size, validation_fraction)
    name = f"{images.name}_{_model_name(model)}"
    directory = pathlib.Path(directory or f"runs/{name}")
    with locked(directory), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="split .* of .*: not used")  # In `images.description`.
        warnings.filterwarnings("ignore", message=".* unreadable images? (is|are) left out: ")
        if overwrite:
            clear_directory(directory)
        weights = _weights_source(model, directory)
        log(images.description)
        recipe = _make_recipe(name, weights, selection, images, epochs, learning_rate, lora, image_size, seed, log)
        recipe = apply_overrides(recipe, overrides)
        source = images.source or load_source(recipe.data)
        recipe = complete_from_weights(recipe).for_data(len(source.class_names), source.num_channels)
        if class_weights is not None:
            recipe = _with_class_weights(recipe, source, class_weights, log)
        head = _fit_head(recipe, selection, source, images, directory / "head", log)
        tuned = recipe.replace(weights=str(directory / "head" / MODEL_FILE), **NO_SELECTION)
        if lora is not None:
            tuned = tuned.replace(lora=LoraConfig(rank=lora))
        if head_only:
            model, run_record = keras.models.load_model(directory / "head" / MODEL_FILE, compile=False), None
            with replaced(directory / MODEL_FILE) as partial:
                model.save(partial)
        else:
            finished = run(tuned, directory, log=log, source=source)
            model, run_record = finished.model, finished.record
        kept = _keep_better_head(model, run_record, head, directory, log)
        report = _make_report(model, tuned, source, images, head, run_record, kept)
        seconds = time.perf_counter() - start, time.process_time() - start_processor
        report |= {**code, "hardware": record.hardware()}
        report |= {"seconds": round(seconds[0], 1), "processor_seconds": round(seconds[1], 1)}
        _save_report(report, directory, run_record, log)
    return FineTuningResult(model, report, run_record["epochs"] if run_record else [], directory, images.example)


def _model_name(model):
    """A short name of the model, for the folder of the run."""
    name = model.name if isinstance(model, keras.Model) else str(model).rstrip("/\\")
    if not isinstance(model, keras.Model) and pathlib.Path(name).exists():
        path = pathlib.Path(name).resolve()
        name = path.stem if path.is_file() else path.name
    return re.sub(r"[^\w.-]+", "_", name.rpartition(":")[2]).strip("._") or "model"


def _weights_source(model, directory):
    """The `weights` of a recipe: the name or path itself, or the file to which a model in memory is saved once."""
    if not isinstance(model, keras.Model):
        return str(model)
    metadata(model)  # Raises if it is not of this library.
    file = directory / "initial" / MODEL_FILE
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with replaced(file) as partial:
            model.save(partial)
    return str(file)


def _make_recipe(name, weights, selection, data, epochs, learning_rate, lora, image_size, seed, log):
    """The recipe for all layers; its weights are still the pretrained ones."""
    source = describe_model(weights, selection)
    log(
        f"weights: {shown_origin(source.origin)}, license {license_of(source) or 'not stated'}, mean "
        f"{_rounded(source.input_spec.mean)}, std {_rounded(source.input_spec.std)}"
    )
    model = {"drop_path_rate": 0.1} if source.config.stage_depths else {}
    size = image_size or _image_size(source.config, data.side, log)
    optimizer = OptimizerConfig(
        learning_rate=learning_rate or (_LEARNING_RATE if lora is None else _LORA_LEARNING_RATE),
        warmup_epochs=0.5,
        weight_decay=0.05,
        layer_decay=0.75 if source.config.stage_depths and lora is None else None,
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


def _with_class_weights(recipe, source, class_weights, log):
    """The recipe with class weights, those of `balanced` computed as scikit-learn does."""
    if isinstance(class_weights, str):
        check_choice(class_weights, ("balanced",), "class_weights")
        train, _, _ = train_and_evaluation(source, recipe.data, recipe.input_spec)
        counts = np.bincount(train.labels, minlength=len(source.class_names))
        class_weights = [float(len(train) / (len(counts) * max(count, 1))) for count in counts]
        log(
            "class weights: "
            + ", ".join(f"{n} {w:.3g}" for n, w in zip(source.class_names, class_weights, strict=True))
        )
    else:
        class_weights = _weights_in_order(class_weights, source.class_names)
    return recipe.replace(data=dataclasses.replace(recipe.data, class_weights=tuple(class_weights)))


def _weights_in_order(class_weights, names):
    """The weights in the order of the classes, also from a dict by names or indices, as Keras and scikit-learn take."""
    if isinstance(class_weights, collections.abc.Mapping):
        keys = next((keys for keys in (names, range(len(names))) if set(keys) == set(class_weights)), None)
        weights = None if keys is None else [class_weights[key] for key in keys]
    else:
        weights = list(class_weights) if isinstance(class_weights, collections.abc.Iterable) else None
    if weights is None or len(weights) != len(names):
        raise ValueError(
            "class_weights must have one weight for each class: a list in the order of the classes, or a dict by their "
            f"names or indices. Received: class_weights={class_weights!r}, classes: {', '.join(names)}"
        )
    return [weight.item() if isinstance(weight, np.generic) else weight for weight in weights]


def _rounded(values):
    return ", ".join(f"{value:.3g}" for value in values)


def _image_size(config, side, log):
    """The image size of the weights, or a smaller multiple of the patch size for images that are much smaller."""
    native = config.image_size
    if not config.has_flexible_grid or side * MAX_ENLARGEMENT >= min(native):
        return native
    size = tuple(max(-(-side * MAX_ENLARGEMENT // patch), 4) * patch for patch in config.patch_size)
    if any(new >= old for new, old in zip(size, native, strict=True)):
        return native
    log(
        f"image size: {size[0]} x {size[1]} instead of the {native[0]} x {native[1]} of the weights, as the median "
        f"of the shorter sides of the images is {side} pixels; pass --image-size (image_size=) to change it"
    )
    return size


def _fit_head(recipe, selection, source, data, directory, log):
    """Fits the head and saves the model, unless it is saved already; returns a dict with its validation accuracy."""
    state = directory / "head.json"
    settings = {"recipe": _head_settings(recipe.to_dict())}
    if state.exists() and (directory / MODEL_FILE).exists():
        saved = json.loads(state.read_text())
        if _head_settings(upgrade_saved(saved["recipe"], recipe)) == settings["recipe"]:
            return saved
        raise ValueError(
            "a resumed run must have the same weights, data and sizes; choose another directory (--out), or pass "
            f"--overwrite. Received: {str(directory.parent)!r}"
        )
    directory.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(recipe.training.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*the head is new")
        dtype = choose_precision(recipe, device_kind())
        model = initial_model(recipe, source.class_names, dtype, selection)
    train, validation, _ = train_and_evaluation(source, recipe.data, recipe.input_spec)
    if len(train) > _MAX_HEAD_IMAGES:
        _, train = train.divide(_MAX_HEAD_IMAGES / len(train))
    extractor = head_inputs(model)
    log(f"head: features of {data.count(train):,} training and {data.count(validation):,} validation images")
    features, labels = _features(
        extractor, train, recipe, flipped=recipe.augment.flip and len(train) <= _MAX_FLIPPED_IMAGES
    )
    fit_heads(model, features, labels, recipe.training.seed, recipe.data.class_weights)
    features, labels = _features(extractor, validation, recipe)
    accuracy = float(np.mean(_logits(model, features).argmax(-1) == labels))
    log(f"head: validation accuracy {accuracy:.4f}")
    with replaced(directory / MODEL_FILE) as partial:
        model.save(partial)
    result = settings | {"validation_accuracy": accuracy}
    record.write_json(state, result)
    return result


def _head_settings(content):
    """The fields of a recipe, as a dict, that the fit of the head depends on."""
    unused = {"epochs", "early_stopping", "save_minutes", "save_steps"}
    settings = {name: value for name, value in content.items() if name not in ("optimizer", "augment", "distribution")}
    settings["training"] = {name: value for name, value in content["training"].items() if name not in unused}
    return settings


def _features(extractor, split, recipe, flipped=False):
    """The inputs of the heads for every image, as a list of arrays, and the labels."""
    collected, labels = [], []
    for images, targets in _batches(split, recipe):
        for pixels in (images, images[:, :, ::-1]) if flipped else (images,):
            outputs = extractor.predict_on_batch(pixels)
            collected.append(outputs if isinstance(outputs, list | tuple) else [outputs])
            labels.append(targets.argmax(-1))
    return [np.concatenate(column).astype("float32") for column in zip(*collected, strict=True)], np.concatenate(labels)


def _batches(split, recipe):
    """Yields normalized images and one-hot targets as arrays; unreadable images are left out."""
    batches = evaluation_dataset(
        split,
        recipe.model.num_classes,
        recipe.input_spec,
        recipe.data.batch_size,
        skip_unreadable=recipe.data.skip_unreadable,
    )
    with unwrap_tf_errors():
        yield from batches.as_numpy_iterator()


def _logits(model, features):
    """The mean of the logits of the heads."""
    heads = [layer for layer in model.layers if layer.name in HEADS]
    logits = [keras.ops.convert_to_numpy(head(inputs)) for head, inputs in zip(heads, features, strict=True)]
    return np.mean(logits, axis=0)


def _keep_better_head(model, run_record, head, directory, log):
    """Restores the model with the fitted head if no epoch was as good; returns the name of what is kept."""
    if run_record is None:
        return "head"
    best = max(epoch["val_accuracy"] for epoch in run_record["epochs"])
    # The accuracy of an epoch is a float32.
    if best > head["validation_accuracy"] - 1e-6:
        return f"epoch {run_record['best_epoch']}"
    log(f"keeping the model with the fitted head: no epoch has a higher validation accuracy (best {best:.4f})")
    model.set_weights(keras.models.load_model(directory / "head" / MODEL_FILE, compile=False).get_weights())
    with replaced(directory / MODEL_FILE) as partial:
        model.save(partial)
    (directory / LORA_FILE).unlink(missing_ok=True)  # They are not part of the model that is kept.
    return "head"


def _make_report(model, recipe, source, data, head, run_record, kept):
    """Makes the report of a run as JSON types, without paths of this machine."""
    train, validation, _ = train_and_evaluation(source, recipe.data, recipe.input_spec)
    splits = {"validation": validation}
    if data.test_split:
        splits["test"] = source.load(data.test_split, recipe.data, recipe.input_spec)
    content = metadata(model)
    metrics = {}
    for name, split in splits.items():
        predictions, labels = [], []
        for images, targets in _batches(split, recipe):
            predictions.append(model.predict_on_batch(images).argmax(-1))
            labels.append(targets.argmax(-1))
        metrics[name] = classification_report(np.concatenate(labels), np.concatenate(predictions), content.labels)
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
            key: value for key, value in recipe.to_dict().items() if key in ("augment", "lora", "optimizer", "training")
        }
        | {"batch_size": recipe.data.batch_size, "validation_fraction": recipe.data.validation_fraction},
        "head": {"validation_accuracy": head["validation_accuracy"]},
        "epochs": run_record["epochs"] if run_record else [],
        "kept": kept,
        **metrics,
    }


def _save_report(report, directory, run_record, log):
    """Saves the report, the curve and the confusion matrix in the run's folder."""
    record.write_json(directory / "report.json", report)
    split = "test" if "test" in report else "validation"
    text = f"# {report['data']['name']}\n\n{split}: {report[split]['examples']:,} images, "
    text += f"accuracy {report[split]['accuracy']:.1%}\n\n{markdown_report(report[split])}\n"
    (directory / "report.md").write_text(text, encoding="utf-8")
    try:
        confusion_figure(report[split]).savefig(directory / "confusion.png", dpi=120)
    except ImportError as error:
        log(f"no plot of the confusion matrix: {error}")
    if run_record is None:
        return
    plot.training_curve(run_record, directory / "curve.png", log)
