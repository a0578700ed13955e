import pytest

from keras_vit.models import VARIANTS, ConvNetConfig, ViTConfig, forward_flops


def test_flops_of_vit_base_are_the_sum_of_its_matrix_products():
    config = VARIANTS["vit_base_patch16_224"]
    block = 4 * 197 * 768**2 + 2 * 197**2 * 768 + 2 * 197 * 768 * 3072
    multiply_adds = 196 * (16 * 16 * 3) * 768 + 12 * block + 768 * 1000
    assert multiply_adds == 17_563_828_224
    assert forward_flops(config) == 2 * multiply_adds == 35_127_656_448


@pytest.mark.parametrize(
    ("name", "image_size", "published"),
    [
        ("vit_base_patch16_224", 224, 17.564),
        ("vit_base_patch32_224", 224, 4.409),
        ("vit_large_patch16_224", 224, 61.555),
        ("vit_large_patch32_224", 224, 15.378),
        ("vit_huge_patch14_224", 518, 1016.717),
    ],
)
def test_flops_equal_those_published_by_torchvision(name, image_size, published):
    """Billions of multiply-adds, `_ops` of the weights in torchvision's `models/vision_transformer.py`."""
    assert forward_flops(VARIANTS[name].replace(image_size=image_size)) / 2e9 == pytest.approx(published, abs=6e-4)


def test_flops_count_registers_and_the_gate():
    shape = {"image_size": 8, "patch_size": 4, "hidden_dim": 8, "num_layers": 1, "num_heads": 2, "mlp_dim": 16}
    config = ViTConfig(**shape, num_classes=0, class_token=False, pooling="gap")
    assert forward_flops(config) == 2 * (4 * 48 * 8 + 4 * 4 * 64 + 2 * 16 * 8 + 2 * 4 * 8 * 16)
    assert forward_flops(config.replace(activation="swiglu")) - forward_flops(config) == 2 * 4 * 8 * 16
    assert forward_flops(config.replace(num_registers=2)) > forward_flops(config)


@pytest.mark.parametrize(
    ("name", "published"),
    # GFLOPs as their papers count them: multiply-adds. DeiT table 5, Swin table 1.
    [
        ("deit_tiny_patch16_224", 1.3),
        ("deit_base_patch16_224", 17.6),
        ("swin_tiny_patch4_window7_224", 4.5),
        ("swin_base_patch4_window7_224", 15.4),
    ],
)
def test_flops_are_those_of_the_papers(name, published):
    assert forward_flops(VARIANTS[name]) / 2e9 == pytest.approx(published, abs=0.06)


def test_flops_of_convolutions_are_counted_by_hand():
    config = ConvNetConfig(image_size=4, widths=(2, 3), depths=(0, 1), num_classes=5)
    # stem 16 pixels, entry of stage 1 on 16 pixels, its unit on 4, the head
    assert forward_flops(config) == 2 * (9 * 16 * 3 * 2 + 9 * 16 * 2 * 3 + 2 * 9 * 4 * 9 + 15)
    with pytest.raises(ValueError, match="version"):
        forward_flops(VARIANTS["swinv2_tiny_window8_256"])
