"""The console entry point, beside the package so that `keras_vit --help` answers without importing Keras."""

import argparse
import contextlib
import difflib
import importlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import warnings

__version__ = "0.1.0"

# What mends an environment in which the files of two projects are mixed.
MEND = "pip uninstall -y keras-vit keras-vit-zoo && pip install 'git+<this repository>'"

_ASKED_TO_END = 75  # `keras_vit.training.loop.preemption.EXIT_CODE`
# Commands that go on with what an earlier call of them has left.
_RESUMABLE = ("train", "finetune")

_MODEL = (
    "the folder of a training run, a .keras file, a checkpoint or a folder that holds one, "
    "hub:organization/repository, or a name of `keras_vit list --pretrained`"
)
_VERSIONS = "folder of a SavedModel, or of numbered versions, of which the highest is taken"
_IMAGES = "image files, folders (with their subfolders) or patterns such as 'photos/**/*.jpg'"
_LAYOUTS = ("big_vision", "deit", "dinov2", "google", "huggingface", "microsoft", "timm", "torchvision")
_FORMATS = ("jpeg", "png", "webp", "bmp", "gif")
_ACTIVATIONS = ("softmax", "sigmoid", "linear")


def _positive(text):
    """An int of at least 1, as argparse reads one."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "positive int"  # argparse says "invalid positive int value"


class _SetField(argparse.Action):
    """An option that stands for `--set FIELD=VALUE`, in the order of the command line: the last one counts."""

    def __init__(self, option_strings, dest, field=None, **kwargs):
        super().__init__(option_strings, "overrides", default=argparse.SUPPRESS, **kwargs)
        self.field = field

    def __call__(self, parser, namespace, value, option_string=None):
        namespace.overrides = [*namespace.overrides, f"{self.field}={value}"]


# Options that training commands share: flag, type, metavar, field of a recipe, help.
TRAINING_OPTIONS = (
    ("--epochs", _positive, "N", "training.epochs", "epochs of the whole run"),
    ("--lr", float, "RATE", "optimizer.learning_rate", "peak learning rate"),
    ("--batch-size", _positive, "N", "data.batch_size", "images in a training step"),
    ("--seed", int, "N", "training.seed", "seed of the weights, the order of the data, augmentation and dropout"),
)


def _device(text):
    """`cpu`, `gpu` or `gpu:N`, as argparse reads one."""
    if not re.fullmatch(r"cpu|gpu(:\d+)?", text.lower()):
        raise argparse.ArgumentTypeError(f"must be cpu, gpu, or gpu:N for one of several GPUs. Received: {text!r}")
    return text.lower()


def _device_argument(parser):
    """Adds `--device`, which `main` reads before TensorFlow is imported."""
    parser.add_argument(
        "--device",
        type=_device,
        metavar="NAME",
        help="cpu, gpu, or gpu:N for one of several, counted from 0 (default: every GPU there is, else the CPU)",
    )


def _limit_argument(parser):
    """Adds `--max-pixels` for images that a model is asked about."""
    parser.add_argument(
        "--max-pixels",
        metavar="N",
        type=_positive,
        help="images of more pixels are refused before they are decoded (default 2 ** 25, as a served model's; a "
        "SavedModel or a server has that of its export)",
    )


def _field_arguments(parser):
    """Adds the options that change fields of a recipe, and `--device`."""
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="change a field of the recipe, for example --set optimizer.weight_decay=0.05 (repeatable; the last one "
        "counts)",
    )
    for flag, kind, metavar, field, text in TRAINING_OPTIONS:
        text = f"{text}, short for --set {field}={metavar}"
        parser.add_argument(flag, action=_SetField, field=field, type=kind, metavar=metavar, help=text)
    _device_argument(parser)


def _size(text):
    """`N` or `HxW` in pixels, as argparse reads one."""
    sides = [int(side) for side in text.lower().split("x")]
    if not 1 <= len(sides) <= 2 or min(sides) < 1:
        raise ValueError
    return sides[0] if len(sides) == 1 else tuple(sides)


_size.__name__ = "size"


def _checkpoint_arguments(parser):
    """Adds the options that choose from a checkpoint's file, as `keras_vit.load_weights` has them."""
    for flag, text in (
        ("--skip", "leave out keys of the checkpoint that this regular expression is found in (repeatable)"),
        ("--new", "leave variables as they are initialized whose path it is found in, '^encoder_norm/' (repeatable)"),
    ):
        parser.add_argument(flag, metavar="PATTERN", action="append", default=[], help=text)
    parser.add_argument("--prefix", metavar="NAME", help="which of several models in the checkpoint, such as student")


def _finetune_arguments(parser):
    parser.add_argument("model", help=f"the pretrained weights: {_MODEL}")
    parser.add_argument(
        "folder",
        help="<folder>/<class>/<image> or <folder>/{train,validation,test}/<class>/<image>; images may lie deeper",
    )
    parser.add_argument(
        "--size",
        type=_size,
        metavar="N|HxW",
        help="pixels that the model takes (default: those of the weights, but at most three times those of the images)",
    )
    parser.add_argument(
        "--validation-fraction",
        type=float,
        metavar="F",
        help="part of the training images to validate with, where there is no such split (default 0.2)",
    )
    _checkpoint_arguments(parser)
    parser.add_argument("--head-only", action="store_true", help="train the head alone, in one pass over the images")
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/<folder>_<model>)")
    parser.add_argument(
        "--overwrite", action="store_true", help="discard an existing run in that folder instead of resuming it"
    )
    _field_arguments(parser)


def _recipe_arguments(parser):
    parser.add_argument(
        "recipe",
        help="path of a recipe file, or a name of `keras_vit list --recipes`; `keras_vit train RECIPE --help` shows "
        "its fields",
    )
    _field_arguments(parser)
    parser.add_argument(
        "--smoke", action="store_true", help="try everything with two training steps and two evaluation steps"
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/<recipe>/seed<k>)")
    parser.add_argument(
        "--overwrite", action="store_true", help="discard an existing run in that folder instead of resuming it"
    )
    parser.add_argument("--export", metavar="DIR", help="folder of the SavedModel (default: saved_models/<recipe>)")
    parser.add_argument("--no-export", action="store_true", help="train and evaluate only")
    parser.add_argument(
        "--record", action="store_true", help="write the record of the run to recipes/results/<recipe>/ too"
    )


def _serving_arguments(parser):
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="what the SavedModel computes in (default: as the model does)"
    )
    parser.add_argument(
        "--weights",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="how weights are stored (default float32)",
    )
    parser.add_argument(
        "--compare",
        metavar="IMAGE",
        nargs="+",
        help="images on which --dtype and --weights are compared with float32 (default: noise)",
    )
    parser.add_argument(
        "--activation",
        choices=_ACTIVATIONS,
        help="turns logits into probabilities; sigmoid for several labels an image, or a single logit; linear for the "
        "values of a regression (default: as the model tells, else softmax)",
    )
    parser.add_argument(
        "--accept",
        metavar="FORMAT",
        nargs="+",
        default=_FORMATS,
        help=f"file formats of images that are accepted (default: {' '.join(_FORMATS)})",
    )
    parser.add_argument(
        "--max-pixels",
        metavar="N",
        type=_positive,
        default=2**25,
        help="images of more pixels are refused before they are decoded (default 2 ** 25)",
    )
    parser.add_argument(
        "--as-stored", dest="upright", action="store_false", help="do not rotate images as their Exif orientation says"
    )
    parser.add_argument(
        "--batch-sizes",
        metavar="N",
        type=int,
        nargs="+",
        help="batch sizes of the server, in rising order, for warm-up records and batching.config "
        "(default: those of batching.config in the folder, else 1 2 4 8)",
    )
    parser.add_argument(
        "--license", metavar="NAME", help="license of the weights (default: that of the published weights)"
    )


def _command(commands, name, text):
    """Adds a command, whose `text` is shown in the list of commands and in its own help."""
    return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras_vit",
        description="Vision Transformers for Keras 3. `keras_vit COMMAND --help` shows the options of a command.",
        epilog="Exit codes: 0 done, 1 error, 2 wrong command line, 75 ended by SIGTERM and 130 by Ctrl-C; after both "
        "a training run resumes with the same command.",
    )
    parser.add_argument("--version", action="version", version=f"keras_vit {__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="show the whole traceback of an error, and where a warning is from"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    finetune = _command(commands, "finetune", "fine-tune a pretrained model on a folder of images")
    _finetune_arguments(finetune)

    train = _command(commands, "train", "train a recipe, evaluate it and export it as a SavedModel")
    _recipe_arguments(train)

    evaluate = _command(commands, "evaluate", "measure the accuracy of a model on a data set")
    evaluate.add_argument("model", help=f"a SavedModel's folder, {_MODEL}")
    data = evaluate.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", metavar="NAME", help="digits, or a data set of TFDS such as imagenet2012")
    data.add_argument("--folder", metavar="DIR", help="a folder of images instead: <split>/<class>/... or <class>/...")
    evaluate.add_argument("--data-dir", metavar="DIR", help="where TFDS keeps its data sets")
    evaluate.add_argument(
        "--split",
        metavar="NAME",
        help="part of the data set: train, validation, test or all (default: test, or all images of a folder without "
        "splits; imagenet2012 has its labels in validation)",
    )
    evaluate.add_argument("--batch-size", metavar="N", type=_positive, default=128, help="images at once (default 128)")
    _device_argument(evaluate)
    evaluate.add_argument(
        "--skip-unreadable", action="store_true", help="leave unreadable images out and name them instead of stopping"
    )

    predict = _command(commands, "predict", "classify images with any model")
    predict.add_argument("images", nargs="+", help=_IMAGES)
    by = predict.add_mutually_exclusive_group(required=True)
    by.add_argument("--model", help=f"a SavedModel's folder (with or without the version), {_MODEL}")
    by.add_argument(
        "--server",
        metavar="URL",
        help="a model of TF Serving: http://host:8501/v1/models/NAME, or grpc://host:8500/v1/models/NAME; "
        "/labels/LABEL or /versions/NUMBER may follow",
    )
    predict.add_argument("--top", type=_positive, default=5, metavar="N", help="how many classes (default 5)")
    _device_argument(predict)
    predict.add_argument(
        "--activation",
        choices=_ACTIVATIONS,
        help="of a model that does not tell: turns its outputs into probabilities; linear for values of a regression",
    )
    _limit_argument(predict)
    predict.add_argument(
        "--to", metavar="FILE", help="write the answers to a .csv, .json or .jsonl file instead of printing them"
    )

    export = _command(commands, "export", "write a model as a SavedModel for TF Serving, or for other runtimes")
    export.add_argument("model", help=_MODEL)
    export.add_argument(
        "--to",
        required=True,
        metavar="PATH",
        help="a folder for SavedModels and their versions, such as saved_models/flowers; or a file, whose ending "
        "chooses the format: .onnx, .tflite (LiteRT), .xml (OpenVINO), .keras",
    )
    export.add_argument(
        "--format",
        choices=("saved_model", "onnx", "litert", "openvino", "keras", "torch"),
        help="default: by the ending of --to, else saved_model; torch only says how PyTorch gets the weights",
    )
    export.add_argument(
        "--version", dest="number", type=int, metavar="N", help="version number (default: the next one)"
    )
    export.add_argument("--labels", metavar="FILE", help="names of the classes, one a line (default: the model's own)")
    export.add_argument(
        "--top-k", type=_positive, metavar="N", default=5, help="classes in an answer, best first (default 5)"
    )
    export.add_argument(
        "--quantize", choices=("int8",), help="of a LiteRT file: weights and activations as int8, see --images"
    )
    export.add_argument(
        "--images",
        metavar="IMAGE",
        nargs="+",
        help=f"what --quantize is calibrated on, 100 or more that the model could meet: {_IMAGES}",
    )
    _serving_arguments(export)

    explain = _command(commands, "explain", "draw the image patches that a model attends to")
    explain.add_argument("images", nargs="+", help=_IMAGES)
    explain.add_argument("--model", required=True, help=f"a SavedModel's folder, {_MODEL}")
    explain.add_argument(
        "--to", metavar="DIR", default=".", help="folder of the pictures, NAME_explained.png (default: this one)"
    )
    _limit_argument(explain)
    _device_argument(explain)

    check = _command(commands, "check", "examine a SavedModel before it is served; exit code 1 if anything fails")
    check.add_argument("path", help=_VERSIONS)
    check.add_argument("--model", help=f"the model that was exported, to compare logits and size with: {_MODEL}")
    check.add_argument(
        "--images", metavar="IMAGE", nargs="+", default=[], help="image files to try it with (default: generated ones)"
    )

    publish = _command(commands, "publish", "copy a SavedModel to a server's folder as its next version")
    publish.add_argument("source", help=_VERSIONS)
    publish.add_argument("--to", required=True, metavar="DIR", help="folder that the server watches")
    publish.add_argument(
        "--version", dest="number", type=int, metavar="N", help="version number (default: the next one)"
    )
    publish.add_argument(
        "--keep", type=int, metavar="N", help="delete all but the N highest versions (default: keep all)"
    )

    rollback = _command(commands, "rollback", "publish the content of an older version again, as the next one")
    rollback.add_argument("directory", help="folder that the server watches")
    rollback.add_argument(
        "--to", type=int, metavar="N", help="the older version (default: the one before the version that is served)"
    )
    rollback.add_argument(
        "--keep", type=int, metavar="N", help="delete all but the N highest versions (default: keep all)"
    )

    convert = _command(commands, "convert", "write a model's weights with the names and shapes of another library")
    convert.add_argument("source", help=_MODEL)
    convert.add_argument("target", help="a .safetensors or .npz file")
    convert.add_argument("--layout", required=True, metavar="NAME", help=f"one of {', '.join(_LAYOUTS)}")
    convert.add_argument(
        "--num-heads", type=_positive, metavar="N", help="attention heads, where the file does not tell"
    )
    _checkpoint_arguments(convert)

    models = _command(commands, "list", "list architectures, published weights or recipes")
    models.add_argument("pattern", nargs="?", default="*", help="for example 'vit_base*' (default: all)")
    kind = models.add_mutually_exclusive_group()
    kind.add_argument("--pretrained", action="store_true", help="published weights, with size, accuracy and license")
    kind.add_argument("--recipes", action="store_true", help="the library's recipes, for `keras_vit train`")
    return parser


def defaults(command):
    """The values of a command's options that nobody has set, by name."""
    return {action.dest: action.default for action in _actions(command)}


def _actions(command):
    """The arguments of a command as argparse keeps them."""
    return _parser()._subparsers._group_actions[0].choices[command]._actions


@contextlib.contextmanager
def _one_line_warnings(command):
    """A context in which warnings to the user are told as errors are: without the place in the library."""
    usual = warnings.formatwarning

    def told(message, category, *place, **line):
        is_told = issubclass(category, UserWarning)
        return f"keras_vit {command}: {message}\n" if is_told else usual(message, category, *place, **line)

    warnings.formatwarning = told
    try:
        yield
    finally:
        warnings.formatwarning = usual


# What TensorFlow says of every start, in lines that no log level reaches: of the severity INFO, or nobody's error;
# `_ABSENT` on machines without an NVIDIA GPU.
_NOISE = (
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called"
    rb"|I\d{4} \d\d:\d\d:\d\d"
    rb"|[\d-]{10} [\d:.]+: I "
    rb"|To enable the following instructions:"
    rb"|INFO: Created TensorFlow Lite "
    rb"|.* jpeg_mem\.cc:\d+\] "  # Of damaged images, which commands name.
    rb"|.*(Unable to register cu\w+ factory|computation placer already registered|oneDNN supports DT_\w+ only on)"
)
_ABSENT = rb".*(failed call to cuInit|Cannot dlopen some GPU libraries|Could not load dynamic library 'lib(cu|nv))"
# A process of its own, so that what is said before a crash is not lost with the one that crashes.
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
    """A context in which what TensorFlow's C++ code says is filtered: its chatter goes, errors and warnings pass.

    Not where `TF_CPP_MIN_LOG_LEVEL` asks for all messages, and not in a process that has TensorFlow already. Python's
    own `sys.stderr` is what it was.

    Args:
        is_program: bool. Whether the process is the command's own, also if it has TensorFlow. Default False.
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
        with contextlib.suppress(subprocess.TimeoutExpired):  # Somebody may have kept what was standard error.
            process.wait(5)


@contextlib.contextmanager
def _visible_devices(device):
    """A context in which frameworks that are imported see the devices that `--device` names, as do child processes."""
    variable = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(variable)
    number = None if device is None else device.partition(":")[2]
    if device == "cpu":
        os.environ[variable] = "-1"
    elif number:
        # A cluster may have made a choice among its GPUs, of which this is the N-th.
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
    """The options of `train RECIPE --help`, or `None` where something else is asked for."""
    arguments = sys.argv[1:] if arguments is None else arguments
    rest = [argument for argument in arguments if argument not in ("-h", "--help")]
    if len(rest) == len(arguments) or "train" not in rest:
        return None
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            options = _parser().parse_args(rest)
    except SystemExit:  # No recipe is named: the help is that of the command.
        return None
    return options if options.command == "train" else None


def _commands(options):
    """The module that holds the function of a command."""
    if getattr(options, "server", None):
        # A client needs neither Keras nor TensorFlow, and starts without them.
        from keras_vit_client import command

        return command
    # Names need neither data sets nor exports.
    return importlib.import_module("keras_vit.cli.list" if options.command == "list" else "keras_vit.cli.commands")


def check_package():
    """Raises an `ImportError` if the files of `keras_vit` are not, or not all, those of this distribution.

    Another project, `keras-vit` on PyPI, has a package of this name: installed afterwards it overwrites files of this
    one, and uninstalled it takes them along.
    """
    # Found and not imported, which would run the other project's code.
    spec = importlib.util.find_spec("keras_vit")
    file = None if spec is None else spec.origin
    if file is not None:
        with open(file, encoding="utf-8") as text:
            if "from keras_vit_cli import MEND" in text.read():
                return
    raise ImportError(
        "the folder of keras_vit holds files of another project, keras-vit, or lacks some. Install this one anew: "
        f"{MEND}. Received: {file or 'no keras_vit/__init__.py'}"
    )


def _parse(arguments):
    """Parses the command line; of an unknown option the error says what to type instead."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        advice = "".join(_advice(options.command, *option) for option in _named_values(unknown))
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
    return options


def _named_values(arguments):
    """`(option, value)` of the options among some arguments; the value is `None` where none follows."""
    for argument, following in zip(arguments, [*arguments[1:], "-"], strict=True):
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            yield option, value if equals else None if following.startswith("-") else following


def _advice(command, option, value):
    """What to type instead of an option that a command does not have; an empty str where nothing is like it."""
    known = [flag for action in _actions(command) for flag in action.option_strings if flag.startswith("--")]
    if command in _RESUMABLE:
        try:
            with _quiet_tensorflow():
                find_recipe_fields = importlib.import_module("keras_vit.cli.recipes").find_recipe_fields
            paths = find_recipe_fields(option.removeprefix("--"))
        except ImportError:
            paths = []
        if paths:
            short = {field: flag for flag, _, _, field, _ in TRAINING_OPTIONS}
            short |= {"model.image_size": "--size"} if command == "finetune" else {}
            value = "VALUE" if value is None else value
            typed = [f"{short[path]} {value}" if path in short else f"--set {path}={value}" for path in paths]
            return f"; {option} is a field of the recipe: {' or '.join(typed)}"
    similar = difflib.get_close_matches(option, known, n=1, cutoff=0.65)
    return f"; instead of {option}, did you mean {similar[0]}?" if similar else ""


def main(arguments=None):
    """Parses the command line, then imports what the command needs and runs it; returns the exit code.

    0 where all went well, 1 on an error, 2 on a bad command line, 75 where a run was asked to end by SIGTERM and 130
    where it was by Ctrl-C: after both the same command resumes a training run.
    """
    recipe_options = _recipe_to_show(arguments)
    options = recipe_options or _parse(arguments)
    # TensorFlow leaves oneDNN off on CPUs without AVX-512, where a training step takes a quarter less time with it.
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
                    raise ValueError("a server has a device of its own. Received: --server with --device")
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
        if request.code != _ASKED_TO_END:
            raise
        print(f"keras_vit {options.command}: {request}. Run the same command to resume.", file=sys.stderr)
        return request.code
    except KeyboardInterrupt:
        resumes = ". Run the same command to resume." if options.command in _RESUMABLE else ""
        print(f"keras_vit {options.command}: interrupted{resumes}", file=sys.stderr)
        return 130
    return 0


if sys.argv[:1] == ["-m"]:
    # `python -m keras_vit` imports the package, and Keras with it, before it comes to `main`.
    with _quiet_tensorflow():
        importlib.import_module("keras")

if __name__ == "__main__":
    sys.exit(main())
