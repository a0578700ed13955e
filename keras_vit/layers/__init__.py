"""Keras layers of the Vision Transformer family: `keras` and `keras.ops` only, on every backend."""

from keras_vit.layers.attention import MultiHeadSelfAttention
from keras_vit.layers.attention_pooling import AttentionPooling
from keras_vit.layers.dropout import Dropout
from keras_vit.layers.group_norm import GroupNormalization
from keras_vit.layers.layer_norm import LayerNormalization
from keras_vit.layers.layer_scale import LayerScale
from keras_vit.layers.mlp import MLP
from keras_vit.layers.patch_embedding import PatchEmbedding
from keras_vit.layers.patch_encoder import PatchEncoder
from keras_vit.layers.patch_merging import PatchMerging
from keras_vit.layers.patches import Patches
from keras_vit.layers.resnet import Bottleneck, ResNetRoot, ResNetStage
from keras_vit.layers.standardized_conv import StandardizedConv2D
from keras_vit.layers.swin_block import SwinBlock
from keras_vit.layers.token_pooling import TokenPooling
from keras_vit.layers.transformer_encoder import TransformerEncoder
from keras_vit.layers.window_attention import WindowAttention

__all__ = [
    "MLP",
    "AttentionPooling",
    "Bottleneck",
    "Dropout",
    "GroupNormalization",
    "LayerNormalization",
    "LayerScale",
    "MultiHeadSelfAttention",
    "PatchEmbedding",
    "PatchEncoder",
    "PatchMerging",
    "Patches",
    "ResNetRoot",
    "ResNetStage",
    "StandardizedConv2D",
    "SwinBlock",
    "TokenPooling",
    "TransformerEncoder",
    "WindowAttention",
]
