"""The command line of keras_vit: a module outside the package, so that `keras_vit --help` does not import Keras."""

import argparse
import contextlib
import difflib
import importlib
import importlib.util
import io
import os
import pathlib
import re
import runpy
import subprocess
import sys
import warnings

# Repairs an environment in which the files of two projects are mixed.
REINSTALL = "pip uninstall -y keras-vit keras-vit-zoo && pip install 'git+<this repository>'"

_PREEMPTED = 75  # `keras_vit.training.loop.preemption.EXIT_CODE`
# Commands that resume an interrupted run.
_RESUMABLE = ("train", "finetune")

_MODEL = (
    "the folder of a training run, a .keras file, a checkpoint or a folder that holds one, "
    "hub:organization/repository, or a name of `keras_vit list --pretrained`"
)
_VERSIONS = "folder of a SavedModel, or of numbered versions, of which the highest is used"
_IMAGES = "image files, folders (with their subfolders) or patterns such as 'photos/**/*.jpg'"
_METHODS = ("rollout", "relevance", "grad_cam", "integrated_gradients", "smooth_grad")
_LAYOUTS = ("big_vision", "deit", "dinov2", "google", "huggingface", "microsoft", "timm", "torchvision")
_FORMATS = ("jpeg", "png", "webp", "bmp", "gif")
_ACTIVATIONS = ("softmax", "sigmoid", "linear")


def _positive(text):
    """Parses a positive int."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "positive int"  # argparse reports an "invalid positive int value".


class _SetField(argparse.Action):
    """Stores an option as `--set FIELD=VALUE`, in the order of the command line: the last one counts."""

    def __init__(self, option_strings, dest, field=None, **kwargs):
        super().__init__(option_strings, "overrides", default=argparse.SUPPRESS, **kwargs)
        self.field = field

    def __call__(self, parser, namespace, value, option_string=None):
        namespace.overrides = [*namespace.overrides, f"{self.field}={value}"]


# Options of the training commands: flag, type, metavar, recipe field, help.
_TRAINING_OPTIONS = (
    ("--epochs", _positive, "N", "training.epochs", "epochs of the whole run"),
    ("--lr", float, "RATE", "optimizer.learning_rate", "peak learning rate"),
    ("--batch-size", _positive, "N", "data.batch_size", "images in a training step"),
    ("--seed", int, "N", "training.seed", "seed of the weights, the order of the data, augmentation and dropout"),
)


def _device(text):
    """Parses `cpu`, `gpu` or `gpu:N`."""
    if not re.fullmatch(r"cpu|gpu(:\d+)?", text.lower()):
        raise argparse.ArgumentTypeError(f"must be cpu, gpu, or gpu:N for the GPU with number N. Received: {text!r}")
    return text.lower()


def _device_argument(parser):
    """Adds `--device`, which `main` reads before TensorFlow is imported."""
    parser.add_argument(
        "--device",
        type=_device,
        metavar="NAME",
        help="cpu, gpu, or gpu:N for the GPU with number N, from 0 (default: all GPUs, or the CPU without any)",
    )


def _limit_argument(parser):
    """Adds `--max-pixels` for images to classify or explain."""
    parser.add_argument(
        "--max-pixels",
        metavar="N",
        type=_positive,
        help="reject images with more pixels before decoding (default 2 ** 25; not for a SavedModel or a server, whose "
        "limit is set when it is exported)",
    )


def _field_arguments(parser):
    """Adds the options that change recipe fields, and `--device`."""
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="change a recipe field, for example --set optimizer.weight_decay=0.05 (repeatable; the last one counts)",
    )
    for flag, kind, metavar, field, text in _TRAINING_OPTIONS:
        text = f"{text}, short for --set {field}={metavar}"
        parser.add_argument(flag, action=_SetField, field=field, type=kind, metavar=metavar, help=text)
    _device_argument(parser)


def _size(text):
    """Parses an image size in pixels, `N` or `HxW`."""
    sides = [int(side) for side in text.lower().split("x")]
    if not 1 <= len(sides) <= 2 or min(sides) < 1:
        raise ValueError
    return sides[0] if len(sides) == 1 else tuple(sides)


_size.__name__ = "size"


def _checkpoint_arguments(parser):
    """Adds the options that select keys of a checkpoint, as in `keras_vit.load_weights`."""
    for flag, text in (
        ("--skip", "ignore checkpoint keys that match this regular expression (repeatable)"),
        ("--new", "keep the initial values of variables whose path matches, such as '^encoder_norm/' (repeatable)"),
    ):
        parser.add_argument(flag, metavar="PATTERN", action="append", default=[], help=text)
    parser.add_argument(
        "--prefix", metavar="NAME", help="the model to read if the checkpoint holds several, such as student"
    )


def _finetune_arguments(parser):
    parser.add_argument("model", help=f"the pretrained weights: {_MODEL}")
    parser.add_argument(
        "folder",
        help="<folder>/<class>/<image> or <folder>/{train,validation,test}/<class>/<image>; class folders may have "
        "subfolders",
    )
    parser.add_argument(
        "--image-size",
        type=_size,
        metavar="N|HxW",
        help="input size of the model in pixels (default: that of the weights, but at most three times the size of the "
        "images)",
    )
    parser.add_argument(
        "--validation-fraction",
        type=float,
        metavar="F",
        help="fraction of the training images to validate with if the folder has no validation split (default 0.2)",
    )
    _checkpoint_arguments(parser)
    method = parser.add_mutually_exclusive_group()
    method.add_argument(
        "--head-only",
        "--probe",
        action="store_true",
        help="train only the head, a linear probe on features computed once",
    )
    method.add_argument(
        "--lora", metavar="RANK", type=_positive, help="train LoRA adapters of this rank and the head, for example 8"
    )
    parser.add_argument(
        "--class-weights",
        choices=("balanced",),
        help="weigh the classes so that all count the same, however many images",
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/<folder>_<model>)")
    parser.add_argument(
        "--overwrite", action="store_true", help="discard an existing run in that folder instead of resuming it"
    )
    _field_arguments(parser)


def _recipe_arguments(parser):
    parser.add_argument(
        "recipe",
        help="recipe file, or a name of `keras_vit list --recipes`; `keras_vit train RECIPE --help` shows its fields",
    )
    _field_arguments(parser)
    parser.add_argument(
        "--smoke", action="store_true", help="test the recipe with two training steps and two evaluation steps"
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/<recipe>/seed<k>)")
    parser.add_argument(
        "--overwrite", action="store_true", help="discard an existing run in that folder instead of resuming it"
    )
    parser.add_argument("--export", metavar="DIR", help="folder of the SavedModel (default: saved_models/<recipe>)")
    parser.add_argument("--no-export", action="store_true", help="train and evaluate only")
    parser.add_argument("--record", action="store_true", help="also write the run record to recipes/results/<recipe>/")


def _serving_arguments(parser):
    """Adds the options of SavedModels, named as the fields of `ExportOptions`; `None` where one is not given."""
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="compute dtype (default: that of the model)")
    parser.add_argument(
        "--weights",
        choices=("float32", "bfloat16", "int8"),
        help="dtype of the stored weights (default float32)",
    )
    parser.add_argument(
        "--compare",
        metavar="IMAGE",
        nargs="+",
        help="images used to measure the error of --dtype and --weights against float32 (default: synthetic images)",
    )
    parser.add_argument(
        "--activation",
        choices=_ACTIVATIONS,
        help="output activation; sigmoid for several labels per image or a single logit, linear for the values of a "
        "regression (default: by the model and its loss, else softmax)",
    )
    parser.add_argument(
        "--image-formats",
        dest="formats",
        metavar="FORMAT",
        nargs="+",
        help=f"accepted image formats (default: {' '.join(_FORMATS)})",
    )
    parser.add_argument(
        "--max-pixels",
        metavar="N",
        type=_positive,
        help="reject images with more pixels before decoding (default 2 ** 25)",
    )
    parser.add_argument(
        "--ignore-exif-orientation",
        dest="apply_exif_orientation",
        action="store_const",
        const=False,
        help="do not rotate images by their Exif orientation",
    )
    parser.add_argument(
        "--batch-sizes",
        metavar="N",
        type=int,
        nargs="+",
        help="increasing batch sizes of the server, for warm-up records and batching.config (default: those of "
        "batching.config in the folder, else 1 2 4 8)",
    )
    parser.add_argument("--license", metavar="NAME", help="license of the weights (default: that of published weights)")


def _version():
    """Reads the version of the package without importing it."""
    file = pathlib.Path(__file__).parent / "keras_vit" / "version.py"
    return runpy.run_path(str(file))["__version__"] if file.exists() else "unknown"


def _command(commands, name, text, example=None):
    """Adds a command with `text` in the list of commands and in its own help, which ends with an example."""
    epilog = None if example is None else f"Example: {example}"
    return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog)


def _json_argument(parser):
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def _labeled_arguments(parser):
    """Adds the options that name a data set with labels."""
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", metavar="NAME", help="digits, or a TFDS data set such as imagenet2012")
    data.add_argument("--folder", metavar="DIR", help="a folder of images: <split>/<class>/... or <class>/...")
    data.add_argument(
        "--arrays", metavar="FILE", help="an .npz file with x_<split> and y_<split>, class numbers or rows of 0 and 1"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="directory of TFDS data sets")
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="train, validation, test or all (default: test, or all images of a folder without splits; of imagenet2012 "
        "validation, which has the labels)",
    )
    parser.add_argument(
        "--multi-label",
        action="store_true",
        help="an image of --arrays may have several classes (default: by its rows)",
    )
    parser.add_argument("--batch-size", metavar="N", type=_positive, default=128, help="batch size (default 128)")
    _device_argument(parser)
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="skip unreadable images and list them instead of stopping"
    )


def _embedding_arguments(parser):
    """Adds the options of how images are embedded."""
    parser.add_argument(
        "--features",
        choices=("representation", "class_token", "mean", "class_token+mean"),
        default="representation",
        help="the embedding: what the head of the model classifies (default), the class token, the mean of the "
        "patches, or both side by side",
    )
    parser.add_argument(
        "--image-size",
        type=_size,
        metavar="N|HxW",
        help="input size of the model in pixels (default: that of the weights)",
    )
    parser.add_argument("--batch-size", metavar="N", type=_positive, default=64, help="batch size (default 64)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing file, and discard unfinished parts of another one"
    )
    _device_argument(parser)


def _embedded_arguments(parser):
    """Adds the options that say which embeddings are classified."""
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="<folder>/<class>/<image>, or <folder>/{train,validation,test}/<class>/<image>; embedded with --model",
    )
    parser.add_argument("--model", help=_MODEL)
    parser.add_argument("--train", metavar="FILE", help="embeddings of the training images, of `keras_vit embed`")
    parser.add_argument(
        "--test", metavar="FILE", help="embeddings of the test images (default: a fifth of the training images)"
    )
    _embedding_arguments(parser)
    _json_argument(parser)


def _embedding_commands(commands):
    """Adds `embed`, `knn`, `probe` and `similar`."""
    embed = _command(
        commands,
        "embed",
        "embed images: one vector an image, in a file",
        "keras_vit embed photos/ --model runs/flowers --to photos.npz",
    )
    embed.add_argument("images", nargs="+", help=f"{_IMAGES}; a folder of class folders gives labels")
    embed.add_argument("--model", required=True, help=_MODEL)
    embed.add_argument("--to", required=True, metavar="FILE", help="a .npz or .parquet file")
    _embedding_arguments(embed)

    knn = _command(
        commands,
        "knn",
        "measure a k-NN classifier on embeddings",
        "keras_vit knn --data photos/ --model vit_small_patch14_dinov2.lvd142m",
    )
    _embedded_arguments(knn)
    knn.add_argument("--k", metavar="N", type=_positive, nargs="+", help="neighbors (default: 10 20 100 200)")
    knn.add_argument("--temperature", metavar="T", type=float, default=0.07, help="of the votes (default 0.07)")

    probe = _command(
        commands,
        "probe",
        "fit a linear classifier on embeddings; it can be saved as a model",
        "keras_vit probe --data photos/ --model vit_small_patch14_dinov2.lvd142m --save probe.keras",
    )
    _embedded_arguments(probe)
    probe.add_argument("--method", choices=("logistic", "ridge", "sgd"), default="logistic", help="default logistic")
    probe.add_argument(
        "--setting",
        metavar="X",
        type=float,
        help="C of logistic, alpha of ridge, learning rate of sgd (default: the best of several on a validation part)",
    )
    probe.add_argument(
        "--shots",
        metavar="N",
        type=_positive,
        nargs="*",
        help="also measure few-shot classifiers with so many images of each class (default: 1 5 10 25)",
    )
    probe.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the validation part (default 0)")
    probe.add_argument("--save", metavar="FILE", help="write the model with this classifier as its head, .keras")

    similar = _command(
        commands,
        "similar",
        "find the images most similar to others",
        "keras_vit similar cat.jpg --in photos.npz --model runs/flowers --to similar.png",
    )
    similar.add_argument("images", nargs="+", help=_IMAGES)
    similar.add_argument(
        "--in", dest="embeddings", metavar="FILE", required=True, help="embeddings to search in, of `keras_vit embed`"
    )
    similar.add_argument("--model", help=f"{_MODEL} (default: the weights that the file names)")
    similar.add_argument("--top-k", type=_positive, default=5, metavar="N", help="number of images (default 5)")
    similar.add_argument("--to", metavar="FILE", help="also draw them side by side, in a .png file")
    similar.add_argument("--batch-size", metavar="N", type=_positive, default=64, help="batch size (default 64)")
    _json_argument(similar)
    _device_argument(similar)


def _training_commands(commands):
    """Adds the commands that train."""
    finetune = _command(commands, "finetune", "fine-tune a pretrained model on a folder of images")
    _finetune_arguments(finetune)

    train = _command(commands, "train", "train a recipe, evaluate it and export it as a SavedModel")
    _recipe_arguments(train)


def _evaluation_commands(commands):
    """Adds the commands that apply a model to images, or explain it."""
    evaluate = _command(
        commands,
        "evaluate",
        "measure the accuracy, the calibration and the mistakes of a model on a data set",
        "keras_vit evaluate runs/flowers --folder photos --split val --to report",
    )
    evaluate.add_argument("model", help=f"the folder of a SavedModel, {_MODEL}")
    _labeled_arguments(evaluate)
    evaluate.add_argument(
        "--real",
        metavar="FILE",
        help="real.json with the labels of ImageNet ReaL, for a --folder of ImageNet's validation images",
    )
    evaluate.add_argument(
        "--choose-from",
        choices=("all", "present"),
        help="classes among which the model chooses: all, or those that have images (default: all, but the 200 of "
        "ImageNet-A and ImageNet-R)",
    )
    evaluate.add_argument(
        "--threshold",
        metavar="P",
        type=float,
        default=0.5,
        help="with several classes an image, the probability from which on one counts as found (default 0.5)",
    )
    _json_argument(evaluate)
    evaluate.add_argument(
        "--to",
        metavar="DIR",
        help="also write report.json, predictions.csv and the figures as PNG files to this folder",
    )
    evaluate.add_argument("--predictions", metavar="FILE", help="also write a .csv file with a row for each image")

    calibrate = _command(
        commands,
        "calibrate",
        "fit the temperature of a model's probabilities on held-out images, and store it in the model",
        "keras_vit calibrate runs/flowers --folder photos --split val",
    )
    calibrate.add_argument("model", help=_MODEL)
    _labeled_arguments(calibrate)
    calibrate.add_argument(
        "--activation", choices=("softmax", "sigmoid"), help="output activation, if the model does not define it"
    )
    calibrate.add_argument(
        "--no-bias", action="store_true", help="with several classes an image, fit the temperature alone, no biases"
    )
    calibrate.add_argument(
        "--to",
        metavar="FILE",
        help="the calibrated model, a .keras file (default: the .keras file or the training run itself)",
    )
    _json_argument(calibrate)

    predict = _command(commands, "predict", "classify images with any model")
    predict.add_argument("images", nargs="+", help=_IMAGES)
    by = predict.add_mutually_exclusive_group(required=True)
    by.add_argument("--model", help=f"the folder of a SavedModel (with or without the version), {_MODEL}")
    by.add_argument(
        "--server",
        metavar="URL",
        help="a model on TF Serving: http://host:8501/v1/models/NAME or grpc://host:8500/v1/models/NAME, optionally "
        "with /labels/LABEL or /versions/NUMBER",
    )
    predict.add_argument("--top-k", type=_positive, default=5, metavar="N", help="number of classes (default 5)")
    _device_argument(predict)
    predict.add_argument(
        "--activation",
        choices=_ACTIVATIONS,
        help="output activation, if the model does not define it; linear for the values of a regression",
    )
    _limit_argument(predict)
    form = predict.add_mutually_exclusive_group()
    form.add_argument(
        "--to", metavar="FILE", help="write the predictions to a .csv, .json or .jsonl file instead of printing them"
    )
    form.add_argument("--json", dest="form", action="store_const", const="json", help="print JSON")
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="print a table of CSV")

    explain = _command(
        commands,
        "explain",
        "draw what a model attends to, or why it finds a class",
        "keras_vit explain photo.jpg --model model.keras --method relevance --class dog --to maps",
    )
    explain.add_argument("images", nargs="+", help=_IMAGES)
    explain.add_argument("--model", required=True, help=f"the folder of a SavedModel, {_MODEL}")
    explain.add_argument(
        "--to", metavar="DIR", default=".", help="output folder for NAME_explained.png (default: the current folder)"
    )
    explain.add_argument(
        "--method",
        choices=_METHODS,
        default="rollout",
        help="rollout of the attention (default), the same for every class; or a method that explains a class: "
        "relevance (not for Swin Transformers), grad_cam, integrated_gradients, smooth_grad",
    )
    explain.add_argument(
        "--class",
        dest="class_name",
        metavar="CLASS",
        help="class to explain, by its label or number (default: the best class of each image)",
    )
    _limit_argument(explain)
    _device_argument(explain)

    inspect = _command(
        commands,
        "inspect",
        "draw what a model has learned: positions, filters, attention distances, tokens",
        "keras_vit inspect model.keras --figure pca --image photos --to pictures",
    )
    inspect.add_argument("model", help=_MODEL)
    inspect.add_argument(
        "--figure",
        choices=("positions", "filters", "distance", "pca"),
        required=True,
        help="similarity of the position embeddings; principal components of the patch embedding; attention distance "
        "of each head in pixels; principal components of the tokens as colors",
    )
    inspect.add_argument("--image", metavar="IMAGE", nargs="+", default=[], help=f"for distance and pca: {_IMAGES}")
    inspect.add_argument(
        "--to", metavar="DIR", default=".", help="output folder for MODEL_FIGURE.png (default: the current folder)"
    )
    _device_argument(inspect)


def _export_commands(commands):
    """Adds the commands that export and check models."""
    export = _command(commands, "export", "export a model as a SavedModel for TF Serving, or for another runtime")
    export.add_argument("model", help=_MODEL)
    export.add_argument(
        "--to",
        required=True,
        metavar="PATH",
        help="folder for the versions of a SavedModel, such as saved_models/flowers; or a file, whose suffix selects "
        "the format: .onnx, .tflite (LiteRT), .xml (OpenVINO), .keras",
    )
    export.add_argument(
        "--format",
        choices=("saved_model", "onnx", "litert", "openvino", "keras"),
        help="file format (default: by the suffix of --to, else saved_model)",
    )
    export.add_argument("--version", type=int, metavar="N", help="version number (default: the next one)")
    export.add_argument(
        "--labels", metavar="FILE", help="text file of class names, one per line (default: the model's own)"
    )
    export.add_argument(
        "--top-k", type=_positive, metavar="N", help="number of classes in an answer, best first (default 5)"
    )
    export.add_argument(
        "--quantize", choices=("int8",), help="quantize weights and activations of a LiteRT file; needs --images"
    )
    export.add_argument(
        "--images",
        metavar="IMAGE",
        nargs="+",
        help=f"calibration images for --quantize, 100 or more representative ones: {_IMAGES}",
    )
    _serving_arguments(export)

    check = _command(commands, "check", "check a SavedModel before serving it; exit code 1 if a check fails")
    check.add_argument("path", help=_VERSIONS)
    check.add_argument("--model", help=f"the exported model, to compare logits and size: {_MODEL}")
    check.add_argument(
        "--images", metavar="IMAGE", nargs="+", default=[], help="image files to test with (default: synthetic images)"
    )


def _version_commands(commands):
    """Adds the commands that manage the versions in the folder of a server."""
    publish = _command(commands, "publish", "copy a SavedModel to the folder of a server as its next version")
    publish.add_argument("source", help=_VERSIONS)
    publish.add_argument("--to", required=True, metavar="DIR", help="folder that the server watches")
    publish.add_argument("--version", type=int, metavar="N", help="version number (default: the next one)")
    publish.add_argument(
        "--keep", type=int, metavar="N", help="keep the N highest versions and delete the others (default: keep all)"
    )

    rollback = _command(commands, "rollback", "publish an older version again, under the next number")
    rollback.add_argument("directory", help="folder that the server watches")
    rollback.add_argument(
        "--to", type=int, metavar="N", help="version to publish again (default: the one before the served version)"
    )
    rollback.add_argument(
        "--keep", type=int, metavar="N", help="keep the N highest versions and delete the others (default: keep all)"
    )


def _library_commands(commands):
    """Adds the commands on weights, architectures, recipes and the installation."""
    convert = _command(commands, "convert", "write a model's weights with the names and shapes of another library")
    convert.add_argument("source", help=_MODEL)
    convert.add_argument("target", help="a .safetensors or .npz file")
    convert.add_argument("--layout", required=True, metavar="NAME", help=f"one of {', '.join(_LAYOUTS)}")
    convert.add_argument(
        "--num-heads", type=_positive, metavar="N", help="number of attention heads, if the file does not state it"
    )
    _checkpoint_arguments(convert)

    models = _command(commands, "list", "list architectures, published weights or recipes")
    models.add_argument("pattern", nargs="?", default="*", help="a pattern such as 'vit_base*' (default: all)")
    kind = models.add_mutually_exclusive_group()
    kind.add_argument("--pretrained", action="store_true", help="published weights, with size, accuracy and license")
    kind.add_argument("--recipes", action="store_true", help="the library's recipes, for `keras_vit train`")
    _json_argument(models)

    info = _command(
        commands,
        "info",
        "describe a model: config, parameters, arithmetic, memory, preprocessing, labels, license, origin",
        "keras_vit info vit_small_patch16_224.augreg_in21k_ft_in1k",
    )
    info.add_argument("name", help=f"a name of `keras_vit list`, the folder of a SavedModel, {_MODEL}")
    _json_argument(info)

    doctor = _command(
        commands,
        "doctor",
        "describe this installation and this machine, for a report of a problem",
        "keras_vit doctor --json",
    )
    _json_argument(doctor)
    _device_argument(doctor)


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras_vit",
        description="Vision Transformers for Keras 3. `keras_vit COMMAND --help` shows the options of a command.",
        epilog="Exit codes: 0 success, 1 error, 2 invalid command line, 75 SIGTERM, 130 Ctrl-C; after SIGTERM or "
        "Ctrl-C the same command resumes a training run.",
    )
    parser.add_argument("--version", action="version", version=f"keras_vit {_version()}")
    parser.add_argument(
        "--traceback", action="store_true", help="show tracebacks of errors, and where warnings come from"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_commands in (
        _training_commands,
        _evaluation_commands,
        _embedding_commands,
        _export_commands,
        _version_commands,
        _library_commands,
    ):
        add_commands(commands)
    return parser


def _actions(command):
    """Returns the argparse actions of a command."""
    return _parser()._subparsers._group_actions[0].choices[command]._actions


@contextlib.contextmanager
def _one_line_warnings(command):
    """Returns a context in which warnings to the user are printed as errors are: without a source location."""
    usual = warnings.formatwarning

    def one_line(message, category, *location, **line):
        is_for_user = issubclass(category, UserWarning)
        return f"keras_vit {command}: {message}\n" if is_for_user else usual(message, category, *location, **line)

    warnings.formatwarning = one_line
    try:
        yield
    finally:
        warnings.formatwarning = usual


# Lines that TensorFlow prints at every start whatever the log level, and that report no error; those of `_ABSENT` only
# on machines without an NVIDIA GPU.
_NOISE = (
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called"
    rb"|I\d{4} \d\d:\d\d:\d\d"
    rb"|[\d-]{10} [\d:.]+: I "
    rb"|To enable the following instructions:"
    rb"|INFO: Created TensorFlow Lite "
    rb"|.* jpeg_mem\.cc:\d+\] "  # Damaged images, which commands report.
    rb"|.*(Unable to register cu\w+ factory|computation placer already registered|oneDNN supports DT_\w+ only on)"
)
_ABSENT = rb".*(failed call to cuInit|Cannot dlopen some GPU libraries|Could not load dynamic library 'lib(cu|nv))"
# It runs in a separate process, so that messages before a crash are not lost.
_FILTER = """
import re, signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
noise = re.compile(sys.argv[1].encode())
for line in sys.stdin.buffer:
    if not noise.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


@contextlib.contextmanager
def _quiet_tensorflow(is_program=False):
    """Returns a context that filters the output of TensorFlow's C++ code: only errors and warnings pass.

    It does nothing if `TF_CPP_MIN_LOG_LEVEL` asks for all messages, or TensorFlow has been imported already. Python's
    own `sys.stderr` stays unfiltered.

    Args:
        is_program: bool. Whether the process runs the command alone; it is then filtered even if TensorFlow has been
            imported. Default False.
    """
    wants_all = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "") in ("0", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    has_tensorflow = "tensorflow" in sys.modules and not is_program
    if wants_all or has_tensorflow or sys.stderr is None:
        yield
        return
    has_gpu = any(os.path.exists(path) for path in ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg"))
    noise = _NOISE if has_gpu else _NOISE + b"|" + _ABSENT
    sys.stderr.flush()
    python_stderr, before = sys.stderr, os.dup(2)
    command = [sys.executable, "-I", "-S", "-c", _FILTER, noise.decode()]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=before)
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    # Never closed: handlers of `logging` keep it until the process ends.
    sys.stderr = os.fdopen(os.dup(before), "w", 1, encoding=python_stderr.encoding, errors=python_stderr.errors)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = python_stderr
        os.dup2(before, 2)
        os.close(before)
        with contextlib.suppress(subprocess.TimeoutExpired):  # A child process may still hold the old standard error.
            process.wait(5)


@contextlib.contextmanager
def _visible_devices(device):
    """Returns a context in which newly imported frameworks, and child processes, see only the devices of `--device`."""
    variable = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(variable)
    number = None if device is None else device.partition(":")[2]
    if device == "cpu":
        os.environ[variable] = "-1"
    elif number:
        # A cluster may have limited the visible GPUs; N counts among those.
        visible = before.split(",") if before else []
        os.environ[variable] = visible[int(number)] if int(number) < len(visible) else number
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def _recipe_to_show(arguments):
    """Parses `train RECIPE --help`; returns `None` for any other command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    rest = [argument for argument in arguments if argument not in ("-h", "--help")]
    if len(rest) == len(arguments) or "train" not in rest:
        return None
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            options = _parser().parse_args(rest)
    except SystemExit:  # No recipe is named: show the help of the command.
        return None
    return options if options.command == "train" else None


def _commands(options):
    """Imports the module with the function of a command."""
    if getattr(options, "server", None):
        # The client needs neither Keras nor TensorFlow.
        from keras_vit_client import command

        return command
    # Listing and describing names needs neither data sets nor exports.
    module = options.command if options.command in ("list", "info") else "commands"
    return importlib.import_module(f"keras_vit.cli.{module}")


def check_package():
    """Raises an `ImportError` if files of `keras_vit` are missing or belong to another project.

    Another project, `keras-vit` on PyPI, has a package of the same name: installing it overwrites files of this one,
    and uninstalling it deletes them.
    """
    # Importing it would run the code of the other project.
    spec = importlib.util.find_spec("keras_vit")
    file = None if spec is None else spec.origin
    if file is not None:
        with open(file, encoding="utf-8") as text:
            if "from keras_vit_cli import REINSTALL" in text.read():
                return
    raise ImportError(
        "the folder of keras_vit holds files of another project, keras-vit, or lacks some. Reinstall: "
        f"{REINSTALL}. Received: {file or 'no keras_vit/__init__.py'}"
    )


def _parse(arguments):
    """Parses the command line; the error for an unknown option suggests another one."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        advice = "".join(_advice(options.command, *option) for option in _named_values(unknown))
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
    return options


def _named_values(arguments):
    """Yields `(option, value)` for the options in a list of arguments; the value is `None` if none follows."""
    for argument, following in zip(arguments, [*arguments[1:], "-"], strict=True):
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            yield option, value if equals else None if following.startswith("-") else following


def _advice(command, option, value):
    """Suggests a replacement for an unknown option; returns an empty str if nothing is similar."""
    known = [flag for action in _actions(command) for flag in action.option_strings if flag.startswith("--")]
    if command in _RESUMABLE:
        try:
            with _quiet_tensorflow():
                find_recipe_fields = importlib.import_module("keras_vit.cli.recipe_help").find_recipe_fields
            paths = find_recipe_fields(option.removeprefix("--"))
        except ImportError:
            paths = []
        if paths:
            short = {field: flag for flag, _, _, field, _ in _TRAINING_OPTIONS}
            short |= {"model.image_size": "--image-size"} if command == "finetune" else {}
            value = "VALUE" if value is None else value
            typed = [f"{short[path]} {value}" if path in short else f"--set {path}={value}" for path in paths]
            return f"; {option} is a field of the recipe: {' or '.join(typed)}"
    similar = difflib.get_close_matches(option, known, n=1, cutoff=0.65)
    return f"; instead of {option}, did you mean {similar[0]}?" if similar else ""


def main(arguments=None):
    """Parses the command line, then imports what the command needs and runs it; returns the exit code.

    0 for success, 1 for an error, 2 for an invalid command line, 75 after SIGTERM and 130 after Ctrl-C; after both the
    same command resumes a training run.
    """
    recipe_options = _recipe_to_show(arguments)
    options = recipe_options or _parse(arguments)
    # TensorFlow disables oneDNN on CPUs without AVX-512, where it makes a training step a quarter faster.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    try:
        is_client = getattr(options, "server", None)
        with (
            contextlib.nullcontext() if is_client else _quiet_tensorflow(arguments is None),
            _visible_devices(getattr(options, "device", None)),
        ):
            if not is_client:
                check_package()
            cli = _commands(options)
            if getattr(options, "device", None):
                if getattr(options, "server", None):
                    raise ValueError(
                        "--device has no effect on a server; leave it out. Received: --server with --device"
                    )
                cli.check_device(options.device)
            with contextlib.nullcontext() if options.traceback else _one_line_warnings(options.command):
                name = "show_recipe" if recipe_options else options.command.replace("-", "_")
                getattr(cli, name)(options)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        if options.traceback:
            raise
        print(f"keras_vit {options.command}: {error}", file=sys.stderr)
        return 1
    except SystemExit as request:
        if request.code != _PREEMPTED:
            raise
        print(f"keras_vit {options.command}: {request}. Run the same command to resume.", file=sys.stderr)
        return request.code
    except KeyboardInterrupt:
        resumes = ". Run the same command to resume." if options.command in _RESUMABLE else ""
        print(f"keras_vit {options.command}: interrupted{resumes}", file=sys.stderr)
        return 130
    return 0


if sys.argv[:1] == ["-m"]:
    # `python -m keras_vit` imports the package, and Keras with it, before `main` runs.
    with _quiet_tensorflow():
        importlib.import_module("keras")

if __name__ == "__main__":
    sys.exit(main())
