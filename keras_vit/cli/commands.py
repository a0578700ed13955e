"""The commands of `keras_vit`, one function each; `keras_vit_cli` parses their arguments."""

from keras_vit.cli.check import check
from keras_vit.cli.console import say
from keras_vit.cli.doctor import doctor
from keras_vit.cli.embed import embed, knn, probe, similar
from keras_vit.cli.evaluate import calibrate, evaluate
from keras_vit.cli.explain import explain
from keras_vit.cli.export import export
from keras_vit.cli.finetune import finetune
from keras_vit.cli.info import info
from keras_vit.cli.inspect import inspect
from keras_vit.cli.list import list
from keras_vit.cli.predict import predict
from keras_vit.cli.publish import publish, rollback
from keras_vit.cli.recipe_help import show_recipe
from keras_vit.cli.train import train
from keras_vit.distribution.strategies import check_device
from keras_vit.weights import save_weights
from keras_vit.zoo.create import load_model

# The functions that `keras_vit_cli.main` calls.
__all__ = [
    "calibrate",
    "check",
    "check_device",
    "convert",
    "doctor",
    "embed",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "info",
    "inspect",
    "knn",
    "list",
    "predict",
    "probe",
    "publish",
    "rollback",
    "show_recipe",
    "similar",
    "train",
]


def convert(options):
    """Writes a model's weights with the names and shapes of another library."""
    overrides = {} if options.num_heads is None else {"num_heads": options.num_heads}
    selection = {"skip": options.skip, "new": options.new, "prefix": options.prefix}
    model = load_model(options.source, **overrides, **{name: value for name, value in selection.items() if value})
    save_weights(model, options.target, options.layout)
    say(f"{options.source} written to {options.target} with the keys of {options.layout}")
