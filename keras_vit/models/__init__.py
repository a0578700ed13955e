"""Configs and the functional models that are built from them."""

from keras_vit.models.backbone import Backbone, build_backbone, simple_feature_pyramid
from keras_vit.models.build import build_model
from keras_vit.models.config import ModelConfig, ViTConfig
from keras_vit.models.convnet import ConvNetConfig, build_convnet
from keras_vit.models.features import features
from keras_vit.models.flops import forward_flops
from keras_vit.models.hybrid import HybridConfig, build_hybrid
from keras_vit.models.lora import add_lora, merge_lora
from keras_vit.models.segmentation import add_segmentation_head, build_segmenter, is_segmenter
from keras_vit.models.swin import SwinConfig, build_swin
from keras_vit.models.variants import SIZES, VARIANTS, swin_config, vit_config
from keras_vit.models.vit import build_vit

__all__ = [
    "SIZES",
    "VARIANTS",
    "Backbone",
    "ConvNetConfig",
    "HybridConfig",
    "ModelConfig",
    "SwinConfig",
    "ViTConfig",
    "add_lora",
    "add_segmentation_head",
    "build_backbone",
    "build_convnet",
    "build_hybrid",
    "build_model",
    "build_segmenter",
    "build_swin",
    "build_vit",
    "features",
    "forward_flops",
    "is_segmenter",
    "merge_lora",
    "simple_feature_pyramid",
    "swin_config",
    "vit_config",
]
