"""Keys of timm, Microsoft and Hugging Face for a Swin Transformer in our variables, for the goldens. Strict."""

import re

import numpy as np

_LINEAR = {"weight": "kernel", "bias": "bias"}
_NORM = {"weight": "gamma", "bias": "beta"}
_BLOCK = "encoder_block_B"
# their prefix, with S for the stage and B for the block inside it: (our path, names of the last part)
_OFFICIAL = {
    "patch_embed.proj": ("patch_encoder/projection", _LINEAR),
    "patch_embed.norm": ("patch_encoder/norm", _NORM),
    "layers.S.blocks.B.norm1": (f"{_BLOCK}/attention_norm", _NORM),
    "layers.S.blocks.B.attn.qkv": (f"{_BLOCK}/attention/qkv", _LINEAR),
    "layers.S.blocks.B.attn.proj": (f"{_BLOCK}/attention/projection", _LINEAR),
    "layers.S.blocks.B.attn": (
        f"{_BLOCK}/attention",
        {
            "relative_position_bias_table": "relative_position_bias_table",
            "logit_scale": "logit_scale",
            "q_bias": "query_bias",
            "v_bias": "value_bias",
        },
    ),
    "layers.S.blocks.B.attn.cpb_mlp.0": (f"{_BLOCK}/attention", {"weight": "cpb_kernel_1", "bias": "cpb_bias_1"}),
    "layers.S.blocks.B.attn.cpb_mlp.2": (f"{_BLOCK}/attention", {"weight": "cpb_kernel_2"}),
    "layers.S.blocks.B.norm2": (f"{_BLOCK}/mlp_norm", _NORM),
    "layers.S.blocks.B.mlp.fc1": (f"{_BLOCK}/mlp/dense_1", _LINEAR),
    "layers.S.blocks.B.mlp.fc2": (f"{_BLOCK}/mlp/dense_2", _LINEAR),
    "layers.S.downsample.norm": ("patch_merging_S/norm", _NORM),
    "layers.S.downsample.reduction": ("patch_merging_S/reduction", _LINEAR),
    "norm": ("encoder_norm", _NORM),
    "head": ("head", _LINEAR),
    "head.fc": ("head", _LINEAR),
}
_HUGGINGFACE = {
    r"^swin\.": "",
    r"^embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    r"^embeddings\.norm": "patch_embed.norm",
    r"^encoder\.": "",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    r"attention\.self\.relative": "attn.relative",
    r"attention\.output\.dense": "attn.proj",
    r"intermediate\.dense": "mlp.fc1",
    r"(blocks\.\d+)\.output\.dense": r"\1.mlp.fc2",
    r"^layernorm": "norm",
    "^classifier": "head",
}
_BUFFERS = ("relative_position_index", "attn_mask", "relative_coords_table")


def _from_huggingface(checkpoint):
    """The official keys, with queries, keys and values in one array."""
    checkpoint = dict(checkpoint)
    for query in [key for key in checkpoint if ".attention.self.query." in key]:
        parts = [checkpoint.pop(query.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        checkpoint[query.replace("attention.self.query", "attn.qkv")] = np.concatenate(parts)
    official = {}
    for key, value in checkpoint.items():
        for pattern, replacement in _HUGGINGFACE.items():
            key = re.sub(pattern, replacement, key)
        official[key] = value
    assert len(official) == len(checkpoint)
    return official


def _path(key, depths, merging_starts_stage):
    module, _, last = key.rpartition(".")
    numbers = re.match(r"layers\.(\d+)(?:\.blocks\.(\d+))?", module)
    pattern = re.sub(r"^layers\.\d+", "layers.S", re.sub(r"\.blocks\.\d+", ".blocks.B", module))
    path, names = _OFFICIAL[pattern]
    if numbers:
        stage, block = int(numbers[1]), int(numbers[2] or 0)
        path = path.replace("_B", f"_{sum(depths[:stage]) + block}")
        path = path.replace("_S", f"_{stage if merging_starts_stage else stage + 1}")
    return f"{path}/{names[last]}"


def _value(path, value):
    if value.ndim == 4:  # (hidden_dim, channels, ph, pw), torch's convolution
        return value.transpose(2, 3, 1, 0).reshape(-1, len(value))
    return value.T if "kernel" in path else value


def from_swin(source, checkpoint, config):
    """`{variable path: array}` of a state dict of `timm`, `microsoft` or `huggingface`; their buffers are left out."""
    if source == "huggingface":
        checkpoint = _from_huggingface(checkpoint)
    weights = {key: value for key, value in checkpoint.items() if key.rpartition(".")[2] not in _BUFFERS}
    paths = {key: _path(key, config.depths, source == "timm") for key in weights}
    values = {path: _value(path, weights[key]) for key, path in paths.items()}
    assert len(values) == len(weights)
    return values
