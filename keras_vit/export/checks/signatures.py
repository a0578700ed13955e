"""Checks of signatures."""

import numpy as np
import tensorflow as tf

from keras_vit.export.checks.answers import inputs
from keras_vit.export.checks.base import CheckFailed, NotApplicable, require
from keras_vit.export.servable.signature_defs import CLASSIFY_METHOD, PREDICT_METHOD

_HALF = ("bfloat16", "float16")
# Names, types and ranks of inputs and outputs.
_BYTES, _VALID = {"image_bytes": ("string", 1)}, {"valid": ("bool", 1)}
_ANSWER = {"scores": ("float32", 2), "classes": ("string", 2), "class_ids": ("int32", 2), **_VALID}
_PROBABILITIES = {"probabilities": ("float32", 2)}
CLASSIFIER = {
    "serving_default": (_BYTES, _ANSWER),
    "strict": (_BYTES, _ANSWER),
    "classify": ({"inputs": ("string", 1)}, {"scores": ("float32", 2), "classes": ("string", 2)}),
}
IMAGES = {
    "images": ({"images": ("float32", 4)}, _PROBABILITIES),
    "images_uint8": ({"images": ("uint8", 4)}, _PROBABILITIES),
}
_VALUES = {"values": ("float32", 2)}
REGRESSOR = {name: (_BYTES, {**_VALUES, **_VALID}) for name in ("serving_default", "strict")}
VALUES_OF_IMAGES = {name: (inputs, _VALUES) for name, (inputs, _) in IMAGES.items()}
EMBEDDINGS = {
    "embeddings": (_BYTES, {"embedding": ("float32", 2), "representation": ("float32", 2), **_VALID}),
}
_BEST = {"class": ("string", 1), "class_id": ("int32", 1), "score": ("float32", 1)}
EXPLAIN = {"explain": (_BYTES, {"heat_map": ("float32", 3), **_BEST, **_VALID})}
EXPLAIN_VALUES = {"explain": (_BYTES, {"heat_map": ("float32", 3), **_VALUES, **_VALID})}


def promised(exported):
    """Returns the required signatures, a dict from name to inputs and outputs with dtype and rank."""
    found = {}
    if exported.has_head:
        found |= IMAGES if exported.is_classifier else VALUES_OF_IMAGES
    if exported.takes_bytes:
        found |= EMBEDDINGS
    if exported.has_head and exported.takes_bytes:
        found |= CLASSIFIER if exported.is_classifier else REGRESSOR
    # What a client gets that names none.
    found.setdefault("serving_default", found.get("images", found.get("embeddings")))
    return found


def signature_table(signatures):
    """Converts signatures to JSON types for comparison: method, inputs and outputs with dtype and shape.

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
    """Checks names, dtypes and ranks, also against the description; batches of any size; no half precision."""
    table, wanted = signature_table(exported.signatures), promised(exported)
    missing = [name for name in wanted if name not in table]
    require(not missing, f"there is no {', '.join(missing)}")
    for name, signature in table.items():
        for direction in ("inputs", "outputs"):
            for key, tensor in signature[direction].items():
                shape = tensor["shape"]
                require(shape and shape[0] == -1, f"{name}: {key} has the shape {shape}; its batch must be -1")
                require(tensor["dtype"] not in _HALF, f"{name}: {key} is {tensor['dtype']}")
    if "explain" in table:
        wanted = {**wanted, **(EXPLAIN if exported.is_classifier else EXPLAIN_VALUES)}
    for name, tensors in wanted.items():
        for direction, keys in zip(("inputs", "outputs"), tensors, strict=True):
            for key, (dtype, rank) in keys.items():
                found = table[name][direction].get(key)
                require(found, f"{name}: there is no {key} among the {direction}")
                kind = f"{found['dtype']} of rank {len(found['shape'])}"
                require(kind == f"{dtype} of rank {rank}", f"{name}: {key} is {kind}, not {dtype} of rank {rank}")
    told = exported.description["signatures"]
    for name, signature in table.items():
        same = {key: signature[key] for key in ("inputs", "outputs")} == told.get(name)
        require(same, f"{name} is not as the description says")
    return ", ".join(table)


def embeddings_have_unit_length(exported):
    """Checks that `embeddings` returns the pooled representation, and the same with unit length."""
    if not exported.takes_bytes:
        raise NotApplicable(exported.WITHOUT_BYTES)
    outputs = exported.call("embeddings", **inputs(exported, "embeddings", 3))
    raw, unit = outputs["representation"], outputs["embedding"]
    lengths = np.linalg.norm(unit, axis=1)
    require(
        np.abs(lengths - 1).max() <= 1e-4, f"the embedding has the lengths {lengths.min():.3g} to {lengths.max():.3g}"
    )
    scaled = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
    require(np.abs(scaled - unit).max() <= 1e-4, "embedding and representation have not the same direction")
    return f"{raw.shape[1]} numbers"


def explains_or_says_why_not(exported):
    """Checks that `explain` returns a heat map of the patch grid; models without global attention have none."""
    if "explain" not in exported.signatures:
        if not exported.takes_bytes or not exported.has_head:
            raise NotApplicable(exported.WITHOUT_CLASSES if exported.takes_bytes else exported.WITHOUT_BYTES)
        family = exported.family
        require(family in ("Swin", "ConvNet"), f"there is no explain, though a {family} has attention")
        raise NotApplicable(f"absent: no token of a {family} ever attends to the whole image")
    outputs = exported.call("explain", **inputs(exported, "explain", 2))
    maps = outputs["heat_map"]
    require((maps >= 0).all(), "the heat map has negative weights")
    require((maps.max(axis=(1, 2)) > maps.min(axis=(1, 2))).all(), "the heat map is the same everywhere")
    if not exported.is_classifier:
        return f"a map of {maps.shape[1]} x {maps.shape[2]}"
    best = exported.call("serving_default", **inputs(exported, "serving_default", 2))
    require(np.array_equal(outputs["class_id"], best["class_ids"][:, 0]), "the class is not that of serving_default")
    return f"a map of {maps.shape[1]} x {maps.shape[2]}"


def classify_keeps_its_contract(exported):
    """Checks TF Serving's Classify contract: serialized examples in `inputs`, `classes` and `scores` of rank 2."""
    if "classify" not in exported.signatures:
        raise NotApplicable(exported.WITHOUT_CLASSES)
    for name, signature in exported.signatures.items():
        method = CLASSIFY_METHOD if name == "classify" else PREDICT_METHOD
        if signature.method_name != method:
            raise CheckFailed(f"the method of {name} is {signature.method_name!r}")
    signature = exported.signatures["classify"]
    require(set(signature.inputs) == {"inputs"}, f"the inputs are {sorted(signature.inputs)}")
    require(set(signature.outputs) == {"classes", "scores"}, f"the outputs are {sorted(signature.outputs)}")
    found = exported.call("classify", **inputs(exported, "classify", 2))
    same = exported.call("serving_default", **inputs(exported, "serving_default", 2))
    require(np.array_equal(found["classes"], same["classes"]), "classes are others than those of serving_default")
    return "classes and scores"
