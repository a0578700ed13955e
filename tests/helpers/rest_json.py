"""TF Serving's JSON: what a Predict request becomes, and what its outputs become.

Source: `util/json_tensor.cc` of TF Serving.
"""

import base64
import binascii
import json

import numpy as np
import tensorflow as tf


class BadJson(ValueError):
    """INVALID_ARGUMENT, as the server has it."""


def read_request(text, signatures):
    """Reads a Predict request.

    Args:
        text: str or bytes.
        signatures: dict of `SignatureDef` by name.

    Returns:
        The signature's name, a dict of arrays by input, and whether the format is that of rows.

    Raises:
        BadJson: if the server would refuse it.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BadJson(f"JSON Parse error: {error}") from error
    if not isinstance(content, dict) or ("instances" in content) == ("inputs" in content):
        raise BadJson("one of 'instances' and 'inputs' must be there")
    name = content.get("signature_name", "serving_default")
    if name not in signatures:
        raise BadJson(f'Serving signature name: "{name}" not found in signature def')
    inputs = signatures[name].inputs
    if "inputs" in content:
        return name, _columns(content["inputs"], inputs), False
    return name, _rows(content["instances"], inputs), True


def _columns(value, inputs):
    if not isinstance(value, dict) or _is_binary(value):
        if len(inputs) > 1:
            raise BadJson("inputs is a plain value/list, but expecting an object")
        value = {next(iter(inputs)): value}
    missing = set(inputs) - set(value)
    if missing:
        raise BadJson(f"Missing named input: {missing}")
    return {name: _tensor(value[name], info.dtype) for name, info in inputs.items()}


def _rows(rows, inputs):
    if not isinstance(rows, list) or not rows:
        raise BadJson("'instances' must be a list with at least one element")
    named = isinstance(rows[0], dict) and not _is_binary(rows[0])
    if not named and len(inputs) > 1:
        raise BadJson("instances is a plain list, but expecting list of objects")
    if any((isinstance(row, dict) and not _is_binary(row)) != named for row in rows):
        raise BadJson("a mix of objects and lists")
    rows = rows if named else [{next(iter(inputs)): row} for row in rows]
    if any(set(row) != set(inputs) for row in rows):
        raise BadJson(f"keys must be equal to: {sorted(inputs)}")
    return {name: _tensor([row[name] for row in rows], info.dtype) for name, info in inputs.items()}


def _is_binary(value):
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _tensor(value, dtype):
    dtype = tf.as_dtype(dtype)
    leaf = _text if dtype == tf.string else _integer if dtype.is_integer else _flag if dtype.is_bool else _number
    try:
        return np.array(_mapped(value, leaf), object if dtype == tf.string else dtype.as_numpy_dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise error if isinstance(error, BadJson) else BadJson(str(error)) from error


def _mapped(value, leaf):
    return [_mapped(item, leaf) for item in value] if isinstance(value, list) else leaf(value)


def _text(value):
    if _is_binary(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise BadJson("Unable to base64 decode") from error
    if not isinstance(value, str):
        raise BadJson(f"JSON Value: {value!r} is not of expected type: string")
    return value.encode()


def _number(value):
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadJson(f"JSON Value: {value!r} is not of expected type: float")
    return value


def _integer(value):
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadJson(f"JSON Value: {value!r} is not of expected type: int")
    return value


def _flag(value):
    if not isinstance(value, bool):
        raise BadJson(f"JSON Value: {value!r} is not of expected type: bool")
    return value


def write_response(outputs, by_rows):
    """The JSON of a Predict response.

    Args:
        outputs: dict of arrays by output; strings are `bytes`.
        by_rows: bool. Whether the request was in the format of rows.

    Returns:
        str. NaN and infinity are written as such, which is no valid JSON.

    Raises:
        BadJson: for a type that JSON has no value for; for rows where outputs differ in the leading dimension.
    """
    values = {name: _value(name, array) for name, array in outputs.items()}
    if not by_rows:
        return json.dumps({"outputs": next(iter(values.values())) if len(values) == 1 else values})
    if any(array.ndim == 0 for array in outputs.values()):
        raise BadJson("a tensor has no batch dimension")
    if len({len(array) for array in outputs.values()}) != 1:
        raise BadJson("tensors have inconsistent batch sizes")
    if len(values) == 1:
        return json.dumps({"predictions": next(iter(values.values()))})
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return json.dumps({"predictions": rows})


def _value(name, array):
    if array.dtype == object:
        return _mapped(array.tolist(), _binary if name.endswith("_bytes") else lambda text: text.decode())
    if array.dtype.kind not in "biuf" or array.dtype == np.float16:
        raise BadJson(f"Conversion of {name}: {array.dtype} to JSON")
    return array.tolist()


def _binary(text):
    return {"b64": base64.b64encode(text).decode()}
