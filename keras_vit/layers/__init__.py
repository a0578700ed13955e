"""Keras layers of the Vision Transformer family, with `keras` and `keras.ops` only: they run on every backend."""

from keras_vit.layers.core.dropout import Dropout
from keras_vit.layers.core.layer_scale import LayerScale
from keras_vit.layers.core.mlp import MLP
from keras_vit.layers.core.normalization import GroupNormalization, LayerNormalization
from keras_vit.layers.core.token_map import TokenMap
from keras_vit.layers.resnet.bottleneck import Bottleneck, ResNetRoot, ResNetStage
from keras_vit.layers.resnet.standardized_conv import StandardizedConv2D
from keras_vit.layers.swin.block import SwinBlock
from keras_vit.layers.swin.patches import PatchEmbedding, PatchMerging
from keras_vit.layers.swin.window_attention import WindowAttention
from keras_vit.layers.vit.attention import MultiHeadSelfAttention
from keras_vit.layers.vit.encoder_block import TransformerEncoder
from keras_vit.layers.vit.patch_encoder import PatchEncoder
from keras_vit.layers.vit.patches import Patches
from keras_vit.layers.vit.pooling import AttentionPooling, TokenPooling

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
    "TokenMap",
    "TokenPooling",
    "TransformerEncoder",
    "WindowAttention",
]
