"""Parameters of the published models: golden numbers, and formulas counted by hand."""

from keras_vit.models import HybridConfig

# Tiny to huge: Steiner et al. (arXiv:2106.10270) and timm; for all the formula below gives the same.
GOLDEN = {
    "vit_tiny_patch8_224": 5_719_720,
    "vit_tiny_patch14_224": 5_694_376,
    "vit_tiny_patch16_224": 5_717_416,
    "vit_tiny_patch32_224": 6_131_560,
    "vit_small_patch8_224": 22_055_272,
    "vit_small_patch14_224": 22_004_584,
    "vit_small_patch16_224": 22_050_664,
    "vit_small_patch32_224": 22_878_952,
    "vit_base_patch8_224": 86_576_872,
    "vit_base_patch14_224": 86_475_496,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch32_224": 88_224_232,
    "vit_large_patch8_224": 304_338_920,
    "vit_large_patch14_224": 304_203_752,
    "vit_large_patch16_224": 304_326_632,
    "vit_large_patch32_224": 306_535_400,
    "vit_huge_patch8_224": 632_214_760,
    "vit_huge_patch14_224": 632_045_800,
    "vit_huge_patch16_224": 632_199_400,
    "vit_huge_patch32_224": 634_960_360,
    "vit_so400m_patch8_224": 413_749_720,
    "vit_so400m_patch14_224": 413_597_656,
    "vit_so400m_patch16_224": 413_735_896,
    "vit_so400m_patch32_224": 416_220_760,
    "vit_giant_patch8_224": 1_012_797_288,
    "vit_giant_patch14_224": 1_012_611_432,
    "vit_giant_patch16_224": 1_012_780_392,
    "vit_giant_patch32_224": 1_015_817_448,
}

# timm 1.0.31, with 1000 classes; so for every one, and again by the formula below. Version 2 has no table whose size
# would depend on the window.
GOLDEN |= {
    "swin_tiny_patch4_window7_224": 28_288_354,
    "swin_small_patch4_window7_224": 49_606_258,
    "swin_base_patch4_window7_224": 87_768_224,
    "swin_large_patch4_window7_224": 196_532_476,
    "swin_base_patch4_window12_384": 87_903_584,
    "swin_large_patch4_window12_384": 196_735_516,
    "swinv2_tiny_window8_256": 28_347_154,
    "swinv2_tiny_window16_256": 28_347_154,
    "swinv2_small_window8_256": 49_728_418,
    "swinv2_small_window16_256": 49_728_418,
    "swinv2_base_window8_256": 87_918_816,
    "swinv2_base_window16_256": 87_918_816,
    "swinv2_base_window12_192": 87_918_816,
    "swinv2_base_window12to16_192to256": 87_918_816,
    "swinv2_base_window12to24_192to384": 87_918_816,
    "swinv2_large_window12_192": 196_739_932,
    "swinv2_large_window12to16_192to256": 196_739_932,
    "swinv2_large_window12to24_192to384": 196_739_932,
}

# timm 1.0.31 without classifier (DINOv2, SigLIP), else with 1000 classes.
GOLDEN |= {
    "vit_tiny_patch16_384": 5_790_376,
    "vit_small_patch16_384": 22_196_584,
    "vit_small_patch32_384": 22_915_432,
    "vit_base_patch16_384": 86_859_496,
    "vit_base_patch32_384": 88_297_192,
    "vit_large_patch16_384": 304_715_752,
    "vit_large_patch32_384": 306_632_680,
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "deit_base_patch16_224": 86_567_656,
    "deit_base_patch16_384": 86_859_496,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_small_distilled_patch16_224": 22_436_432,
    "deit_base_distilled_patch16_224": 87_338_192,
    "deit_base_distilled_patch16_384": 87_630_032,
    "deit3_small_patch16_224": 22_059_496,
    "deit3_small_patch16_384": 22_205_416,
    "deit3_medium_patch16_224": 38_849_512,
    "deit3_base_patch16_224": 86_585_320,
    "deit3_base_patch16_384": 86_877_160,
    "deit3_large_patch16_224": 304_374_760,
    "deit3_large_patch16_384": 304_763_880,
    "deit3_huge_patch14_224": 632_126_440,
    "vit_small_patch14_dinov2": 22_056_192,
    "vit_base_patch14_dinov2": 86_579_712,
    "vit_large_patch14_dinov2": 304_367_616,
    "vit_giant_patch14_dinov2": 1_136_479_232,
    "vit_small_patch14_reg4_dinov2": 22_057_344,
    "vit_base_patch14_reg4_dinov2": 86_582_016,
    "vit_large_patch14_reg4_dinov2": 304_370_688,
    "vit_giant_patch14_reg4_dinov2": 1_136_483_840,
    "vit_base_patch16_siglip_224": 92_884_224,
    "vit_base_patch16_siglip_256": 92_930_304,
    "vit_base_patch16_siglip_384": 93_176_064,
    "vit_base_patch16_siglip_512": 93_520_128,
    "vit_base_patch32_siglip_256": 94_552_320,
    "vit_large_patch16_siglip_256": 315_956_224,
    "vit_large_patch16_siglip_384": 316_283_904,
    "vit_large_patch16_siglip_512": 316_742_656,
    "vit_so400m_patch14_siglip_224": 427_680_704,
    "vit_so400m_patch14_siglip_378": 428_225_600,
    "vit_so400m_patch14_siglip_384": 428_225_600,
    "vit_so400m_patch16_siglip_256": 427_888_064,
    "vit_so400m_patch16_siglip_384": 428_256_704,
    "vit_so400m_patch16_siglip_512": 428_772_800,
    "vit_giantopt_patch16_siglip_256": 1_163_168_256,
    "vit_giantopt_patch16_siglip_384": 1_163_659_776,
    "vit_base_patch32_clip_224": 88_225_000,
    "vit_base_patch16_clip_224": 86_568_424,
    "vit_base_patch32_clip_256": 88_236_520,
    "vit_base_patch32_clip_384": 88_297_960,
    "vit_base_patch32_clip_448": 88_337_896,
    "vit_base_patch16_clip_384": 86_860_264,
    "vit_large_patch14_clip_224": 304_204_776,
    "vit_large_patch14_clip_336": 304_532_456,
    "vit_huge_patch14_clip_224": 632_047_080,
    "vit_huge_patch14_clip_336": 632_456_680,
    "vit_giant_patch14_clip_224": 1_012_612_840,
    "vit_gigantic_patch14_clip_224": 1_844_442_344,
    "vit_base_patch32_clip_quickgelu_224": 88_225_000,
    "vit_base_patch16_clip_quickgelu_224": 86_568_424,
    "vit_large_patch14_clip_quickgelu_224": 304_204_776,
    "vit_large_patch14_clip_quickgelu_336": 304_532_456,
    "vit_huge_patch14_clip_quickgelu_224": 632_047_080,
}

# timm 1.0.31, with `num_classes=1000`, which its vit_base_r50_s16_224 has not by itself.
GOLDEN |= {
    "vit_tiny_r_s16_p8_224": 6_337_704,
    "vit_tiny_r_s16_p8_384": 6_355_944,
    "vit_small_r26_s32_224": 36_431_912,
    "vit_small_r26_s32_384": 36_468_392,
    "vit_base_r26_s32_224": 101_383_976,
    "vit_base_r50_s16_224": 98_659_112,
    "vit_base_r50_s16_384": 98_950_952,
    "vit_large_r50_s32_224": 328_994_856,
    "vit_large_r50_s32_384": 329_092_136,
}


def count(c):
    """Parameters of a `ViTConfig` or `HybridConfig`, counted by hand."""
    d, dense, norm = c.hidden_dim, (lambda a, b: a * b + b), 2 * c.hidden_dim
    extra = int(c.class_token) + int(c.distillation_token)
    positions = c.grid_size[0] * c.grid_size[1] + extra * c.position_on_prefix
    stem, channels = count_stem(c) if isinstance(c, HybridConfig) else (0, c.num_channels)
    projection = c.patch_size[0] * c.patch_size[1] * channels * d + d * c.patch_bias
    embedding = stem + projection + (extra + c.num_registers) * d
    embedding += positions * d * (c.position_embedding == "learned") + norm * c.embedding_norm
    mlp = dense(d, c.mlp_dim * (2 if c.activation == "swiglu" else 1)) + dense(c.mlp_dim, d)
    block = 2 * norm + 3 * d * (d + c.qkv_bias) + dense(d, d) + mlp
    block += 2 * d * (c.layer_scale_init is not None) + 4 * (d // c.num_heads) * c.qk_norm
    final_norm = norm * (c.norm_placement == "pre")
    pooling = (d + 4 * dense(d, d) + norm + mlp) * (c.pooling == "map")
    pooled = 2 * d if c.pooling == "token_gap" else d
    width = c.pre_logits_dim or pooled
    head = dense(pooled, width) * bool(c.pre_logits_dim) + (width + c.head_bias) * c.num_classes
    head += dense(d, c.num_classes) * bool(c.num_classes and c.distillation_token)
    return embedding + c.num_layers * block + final_norm + pooling + head


def count_stem(c):
    """Parameters of a hybrid's ResNet, counted by hand, and the channels of its features."""
    width, norm = c.stem_width, 2
    total, channels = (49 * c.num_channels + norm) * width, width
    for depth in c.stem_depths:
        out = 4 * width
        total += (channels + norm) * out  # the projected shortcut
        for _ in range(depth):
            total += channels * width + 9 * width * width + width * out + norm * (2 * width + out)
            channels = out
        width *= 2
    return total, channels


def count_swin(c):
    """Parameters of a `SwinConfig`, counted by hand."""

    def dense(a, b):
        return a * b + b

    total = dense(c.patch_size[0] * c.patch_size[1] * c.num_channels, c.embed_dim) + 2 * c.embed_dim
    for stage, (d, depth, heads) in enumerate(zip(c.hidden_dims, c.depths, c.num_heads, strict=True)):
        height, width = c.windows[stage]
        if c.version == 1:
            position = (2 * height - 1) * (2 * width - 1) * heads + 3 * d * c.qkv_bias
        else:
            position = heads + dense(2, 512) + 512 * heads + 2 * d * c.qkv_bias
        mlp_dim = int(c.mlp_ratio * d)
        block = 4 * d + 3 * d * d + position + dense(d, d) + dense(d, mlp_dim) + dense(mlp_dim, d)
        merging = 2 * d * d + (4 if c.version == 1 else 2) * d  # 4 (d / 2) to d, and a norm before or after
        total += depth * block + merging * bool(stage)
    return total + 2 * d + dense(d, c.num_classes) * bool(c.num_classes)
