"""`keras_vit evaluate` and `keras_vit calibrate`: how good a classifier is, and how sure it may be."""

import json
import pathlib

from keras_vit.atomic import replaced
from keras_vit.cli.console import say
from keras_vit.cli.labeled_images import open_classifier, open_images
from keras_vit.evaluation.classification import evaluate as evaluate_classifier
from keras_vit.evaluation.temperature_scaling import calibrate as fit_calibration
from keras_vit.metadata import metadata
from keras_vit.zoo.create import is_saved_model, model_file

_WORST = 3  # classes and confusions in the summary


def evaluate(options):
    """Prints, and writes where that is wanted, what a model achieves on a split of a data set."""
    classifier, _, baked = open_classifier(options.model)
    data = open_images(options, classifier)
    with data.reading() as advance:
        report = evaluate_classifier(
            classifier,
            data.batches,
            class_names=data.class_names,
            multi_label=data.multi_label,
            label_sets=data.label_sets,
            classes=data.classes,
            threshold=options.threshold,
            names=data.names,
            progress=advance,
        )
    applied = classifier.calibration or baked
    written = report.save(options.to) if options.to else []
    if options.predictions:
        written.append(report.save_predictions(options.predictions))
    if options.json:
        content = {"model": str(options.model), "data": data.name, "split": data.split_name, "choice": data.choice}
        content |= report.to_dict() | {"calibration": applied and applied.get_config()}
        print(json.dumps(content, indent=1, ensure_ascii=False))
        return
    if written:
        say("written: " + ", ".join(str(path) for path in written))
    _print_summary(report, data, applied)


def _print_summary(report, data, calibration):
    """Prints the details, and the measures as the last line."""
    if data.choice:
        left_out = f"; {report.left_out:,} images without a label are left out" if report.left_out else ""
        say(f"{data.choice}{left_out}")
    if calibration is not None:
        say(f"probabilities are calibrated: {calibration.describe()}")
    key = report.class_measure
    known = sorted((row for row in report.classes if row[key] is not None), key=lambda row: row[key])
    if len(known) > 1:
        worst = (f"{row['name']} {row[key]:.3f} of {row['examples']:,} images" for row in known[:_WORST])
        say(f"lowest {key.replace('_', ' ')}: {', '.join(worst)}")
    if confusions := report.confusions():
        pairs = (f"{row['label']} taken for {row['predicted']} ({row['images']:,})" for row in confusions[:_WORST])
        say(f"most frequent mistakes: {', '.join(pairs)}")
    measures, (low, high) = report.measures(), report.interval
    say(
        f"{next(iter(measures))} {low:.4f} to {high:.4f} with 95 % confidence (bootstrap), ECE {report.ece:.4f}, "
        f"{report.images_per_second:,.1f} images/s"
    )
    named = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
    say(f"{data.name}, {data.split_name}: {report.images:,} images, {named}")


def calibrate(options):
    """Fits a calibration on a split of a data set and stores it in the model's file."""
    target = _target(options)
    classifier, model, _ = open_classifier(options.model, options.activation)
    data = open_images(options, classifier)
    with data.reading() as advance:
        report = fit_calibration(
            model,
            data.batches,
            multi_label=True if data.multi_label else None,
            bias=not options.no_bias,
            activation=options.activation,
            progress=advance,
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced(target) as partial:
        model.save(partial)
    if options.json:
        content = {"model": str(options.model), "data": data.name, "split": data.split_name, "file": str(target)}
        print(json.dumps(content | report.to_dict(), indent=1, ensure_ascii=False))
        return
    before, after = report.before, report.after
    say(
        f"{data.name}, {data.split_name}: {report.images:,} images, {metadata(model).calibration.describe()}; "
        f"ECE {before['ece']:.4f} before, {after['ece']:.4f} after; NLL {before['nll']:.4f} before, "
        f"{after['nll']:.4f} after, on these images"
    )
    say(f"stored in {target}: predict, evaluate and export use it")


def _target(options):
    """Returns the path of the calibrated model.

    Raises:
        ValueError: if it cannot be known, or is no `.keras` file.
    """
    if is_saved_model(options.model):
        raise ValueError(
            "a SavedModel cannot be changed; calibrate the model that it was exported from, and export it again. "
            f"Received: {str(options.model)!r}, a SavedModel"
        )
    if options.to is not None:
        path = pathlib.Path(options.to)
        if path.suffix != ".keras":
            raise ValueError(f"--to must end in .keras. Received: --to {options.to}")
        return path
    found = model_file(options.model)
    if found is None:
        raise ValueError(
            "--to FILE.keras must say where the calibrated model goes, unless the model is a .keras file or the folder "
            f"of a training run, which is changed. Received: {str(options.model)!r} without --to"
        )
    return found
