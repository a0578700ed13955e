"""timm's keys of a ViT in our variables, for the goldens. Strict: every key is used exactly once."""

import re

import numpy as np

_LINEAR = {"weight": "kernel", "bias": "bias"}
_NORM = {"weight": "gamma", "bias": "beta"}
# timm's prefix: (our path, names of the last part)
_MODULES = {
    "norm_pre": ("embedding_norm", _NORM),
    "norm": ("encoder_norm", _NORM),
    "fc_norm": ("encoder_norm", _NORM),
    "head": ("head", _LINEAR),
    "head_dist": ("head_dist", _LINEAR),
    "blocks.*.norm1": ("encoder_block_*/attention_norm", _NORM),
    "blocks.*.attn.qkv": ("encoder_block_*/attention/qkv", _LINEAR),
    "blocks.*.attn.q_norm": ("encoder_block_*/attention/query_norm", _NORM),
    "blocks.*.attn.k_norm": ("encoder_block_*/attention/key_norm", _NORM),
    "blocks.*.attn.proj": ("encoder_block_*/attention/projection", _LINEAR),
    "blocks.*.ls1": ("encoder_block_*/attention_scale", {"gamma": "gamma"}),
    "blocks.*.norm2": ("encoder_block_*/mlp_norm", _NORM),
    "blocks.*.mlp.fc1": ("encoder_block_*/mlp/dense_1", _LINEAR),
    "blocks.*.mlp.fc2": ("encoder_block_*/mlp/dense_2", _LINEAR),
    "blocks.*.ls2": ("encoder_block_*/mlp_scale", {"gamma": "gamma"}),
    "attn_pool.q": ("representation/query", _LINEAR),
    "attn_pool.kv": ("representation/key_value", _LINEAR),
    "attn_pool.proj": ("representation/projection", _LINEAR),
    "attn_pool.norm": ("representation/norm", _NORM),
    "attn_pool.mlp.fc1": ("representation/mlp/dense_1", _LINEAR),
    "attn_pool.mlp.fc2": ("representation/mlp/dense_2", _LINEAR),
    "patch_embed.proj": ("patch_encoder/projection", _LINEAR),
}
_ARRAYS = {
    "cls_token": "patch_encoder/class_token",
    "dist_token": "patch_encoder/distillation_token",
    "reg_token": "patch_encoder/register_tokens",
    "pos_embed": "patch_encoder/position_embedding",
    "attn_pool.latent": "representation/probe",
}


def _path(key):
    if key in _ARRAYS:
        return _ARRAYS[key]
    module, _, last = key.rpartition(".")
    block = re.search(r"\.(\d+)\.", module)
    path, names = _MODULES[re.sub(r"\.\d+\.", ".*.", module)]
    return f"{path}/{names[last]}".replace("*", block[1] if block else "*")


def _value(key, value):
    if value.ndim == 4:  # (hidden_dim, channels, ph, pw), torch's convolution
        return value.transpose(2, 3, 1, 0).reshape(-1, len(value))
    return value.T if value.ndim == 2 else value


def from_timm(checkpoint, config):
    """`{variable path: array}` of a timm state dict.

    timm has no patch bias where a norm follows the embedding (CLIP); our projection always has one, zero there.
    """
    values = {_path(key): _value(key, value) for key, value in checkpoint.items()}
    assert len(values) == len(checkpoint)
    if config.embedding_norm:
        assert "patch_encoder/projection/bias" not in values
        values["patch_encoder/projection/bias"] = np.zeros(config.hidden_dim, "float32")
    return values
