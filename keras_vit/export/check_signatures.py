"""What must hold of a SavedModel's signatures."""

import numpy as np
import tensorflow as tf

from keras_vit.export.check_answers import inputs
from keras_vit.export.checked import DoesNotApply, NotMet, require
from keras_vit.export.signature_defs import CLASSIFY_METHOD, PREDICT_METHOD

_BYTES = {"image_bytes": ("string", 1)}
_ANSWER = {"scores": ("float32", 2), "classes": ("string", 2), "class_ids": ("int32", 2)}
# Inputs and outputs that must be there, with type and rank; of a model with a classifier.
PROMISED = {
    "serving_default": (_BYTES, {**_ANSWER, "valid": ("bool", 1)}),
    "strict": (_BYTES, _ANSWER),
    "images": ({"images": ("float32", 4)}, {"probabilities": ("float32", 2)}),
    "classify": ({"inputs": ("string", 1)}, {"scores": ("float32", 2), "classes": ("string", 2)}),
}
_HALF = ("bfloat16", "float16")


def signature_table(signatures):
    """Signatures as JSON types, to be compared: for each its method, inputs and outputs with type and shape.

    Args:
        signatures: dict of `SignatureDef` by name.
    """

    def tensors(infos):
        return {
            name: {"dtype": tf.as_dtype(info.dtype).name, "shape": [dim.size for dim in info.tensor_shape.dim]}
            for name, info in sorted(infos.items())
        }

    return {
        name: {
            "method": signature.method_name,
            "inputs": tensors(signature.inputs),
            "outputs": tensors(signature.outputs),
        }
        for name, signature in sorted(signatures.items())
    }


def signatures_are_as_promised(exported):
    """Names, types and ranks; batches of any size; no half precision in what a client sends and gets."""
    table = signature_table(exported.signatures)
    missing = [name for name in (*(PROMISED if exported.has_classifier else ()), "embeddings") if name not in table]
    require(not missing, f"there is no {', '.join(missing)}")
    for name, signature in table.items():
        for direction in ("inputs", "outputs"):
            for key, tensor in signature[direction].items():
                shape = tensor["shape"]
                require(shape and shape[0] == -1, f"{name}: {key} has the shape {shape}; its batch must be -1")
                require(tensor["dtype"] not in _HALF, f"{name}: {key} is {tensor['dtype']}")
        for direction, promised in zip(("inputs", "outputs"), PROMISED.get(name, ({}, {})), strict=True):
            for key, (dtype, rank) in promised.items():
                found = signature[direction].get(key)
                require(found, f"{name}: there is no {key} among the {direction}")
                kind = f"{found['dtype']} of rank {len(found['shape'])}"
                wanted = f"{dtype} of rank {rank}"
                require(kind == wanted, f"{name}: {key} is {kind}, not {wanted}")
    return ", ".join(table)


def embeddings_have_unit_length(exported):
    """`embeddings` gives the pooled representation as it is, and at length one, for comparisons by their products."""
    outputs = exported.call("embeddings", **inputs(exported, "embeddings", 3))
    vectors = {key: value for key, value in outputs.items() if value.ndim == 2 and value.dtype == np.float32}
    unit = [key for key, value in vectors.items() if np.abs(np.linalg.norm(value, axis=1) - 1).max() <= 1e-4]
    require(unit, f"none of {', '.join(vectors)} has the length 1")
    for key, value in vectors.items():
        scaled = value / np.maximum(np.linalg.norm(value, axis=1, keepdims=True), 1e-12)
        require(np.abs(scaled - vectors[unit[0]]).max() <= 1e-4, f"{key} has another direction than {unit[0]}")
    return f"{', '.join(unit)} of {', '.join(vectors)}"


def explains_or_says_why_not(exported):
    """`explain` gives a heat map of the grid; a model without attention over the whole image has none."""
    if "explain" not in exported.signatures:
        family = exported.family
        require("Swin" in family or "ConvNet" in family, f"there is no explain, though a {family} has attention")
        raise DoesNotApply(f"absent: a {family} never attends to the whole image, so there is no rollout to show")
    outputs = exported.call("explain", **inputs(exported, "explain", 2))
    maps = {key: value for key, value in outputs.items() if value.ndim == 3}
    require(len(maps) == 1, f"{len(maps)} of the outputs are maps: {', '.join(outputs)}")
    ((key, value),) = maps.items()
    require(value.dtype == np.float32 and (value >= 0).all(), f"{key} is no map of weights")
    require((value.max(axis=(1, 2)) > value.min(axis=(1, 2))).all(), f"{key} is the same everywhere")
    return f"{key} {value.shape[1]} x {value.shape[2]}"


def classify_keeps_its_contract(exported):
    """TF Serving's Classify takes serialised examples as `inputs`, and nothing but `classes` and `scores` of rank 2."""
    if "classify" not in exported.signatures:
        raise DoesNotApply("the model has no classifier")
    for name, signature in exported.signatures.items():
        method = CLASSIFY_METHOD if name == "classify" else PREDICT_METHOD
        if signature.method_name != method:
            raise NotMet(f"the method of {name} is {signature.method_name!r}")
    signature = exported.signatures["classify"]
    require(set(signature.inputs) == {"inputs"}, f"the inputs are {sorted(signature.inputs)}")
    require(set(signature.outputs) == {"classes", "scores"}, f"the outputs are {sorted(signature.outputs)}")
    found = exported.call("classify", **inputs(exported, "classify", 2))
    same = exported.call("serving_default", **inputs(exported, "serving_default", 2))
    require(np.array_equal(found["classes"], same["classes"]), "classes are others than those of serving_default")
    return "classes and scores"
