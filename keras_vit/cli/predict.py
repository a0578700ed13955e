"""`keras_vit predict`: the best classes of images."""

from keras_vit.cli.console import counted, say, warn
from keras_vit.cli.predictor import check_head, check_no_limit, classify_files
from keras_vit.export.loaded_model import LoadedSavedModel
from keras_vit.export.saved_models import PREDICT_BATCH
from keras_vit.metadata import describe_front, metadata
from keras_vit.zoo.create import is_saved_model, load_model
from keras_vit_client.image_files import find_images
from keras_vit_client.predictions import check_target, report


def predict(options):
    """Prints or writes the best classes of images, by a SavedModel or any model that `load_model` reads."""
    check_target(options.to)
    images = find_images(options.images)
    if is_saved_model(options.model):
        check_no_limit(options.max_pixels)
        loaded = LoadedSavedModel(options.model)
        loaded.check_signature("strict", "classify encoded images")
        _warn_of_few_classes(loaded, options.top_k)
        _say_what_is_applied(options, None, loaded.calibration)

        def classify(files):
            starts = range(0, len(files), PREDICT_BATCH)
            return (loaded.classify(files[start : start + PREDICT_BATCH]) for start in starts)

    else:
        model = load_model(options.model)
        check_head(model)
        _say_what_is_applied(options, describe_front(model), metadata(model).calibration)

        def classify(files):
            return classify_files(model, files, options.top_k, options.activation, max_pixels=options.max_pixels)

    with counted("images", len(images)) as advance:
        report(images, _one_by_one(classify(images), advance), options.top_k, options.to, say, options.form)


def _say_what_is_applied(options, front, calibration):
    """Says what stands in front of a model and how its probabilities are calibrated, unless a table is printed."""
    if options.form is not None:
        return
    if front:
        say(front)
    if calibration is not None:
        say(f"probabilities are calibrated: {calibration.describe()}")


def _one_by_one(batches, advance):
    """Yields the answers of batches one by one and advances the progress bar."""
    for answers in batches:
        yield from answers
        advance(len(answers))


def _warn_of_few_classes(loaded, top):
    """Warns if the SavedModel was exported with a smaller top-k than requested, although it has more classes."""
    scores = loaded.signatures["serving_default"].structured_outputs.get("scores")
    count = None if scores is None else scores.shape[-1]
    if count is not None and count < min(top, loaded.num_classes):
        warn(f"the SavedModel returns only its {count} best classes; export it with --top-k {top} to get more")
