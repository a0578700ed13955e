"""Writes docs/models.md, the table of all published weights, and docs/cards, a card each of the main ones.

python docs/cards_page.py           rewrite them
python docs/cards_page.py --check   exit with 1 if they are not what the catalog says
"""

import pathlib
import sys

from keras_vit.models import HybridConfig, SwinConfig
from keras_vit.weights.hub.catalog import catalog
from keras_vit.weights.publish.model_card import NO_CLASSES, model_card

DOCS = pathlib.Path(__file__).parent
MEASURE = "keras_vit evaluate {} --data imagenet2012 --split validation"
UNMEASURED = "not measured here"
_AUGREG = (
    "from Google's study of augmentation and regularization: trained on the 21,843 classes of ImageNet-21k, then on "
    "ImageNet-1k at 224 pixels. Google trained with the tanh form of GELU; this is timm's file, and timm runs it with "
    "the exact one, as its published accuracy has it."
)
_DEIT = (
    "trained on ImageNet-1k alone for 300 epochs by hard distillation: a second token learns what a RegNetY-16GF says, "
    "with a head of its own; the logits are the mean of both heads'."
)
SUMMARIES = {
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": f"ViT-Ti/16 {_AUGREG}",
    "vit_small_patch16_224.augreg_in21k_ft_in1k": f"ViT-S/16 {_AUGREG}",
    "vit_base_patch16_224.augreg_in21k_ft_in1k": f"ViT-B/16 {_AUGREG}",
    "vit_large_patch16_224.augreg_in21k_ft_in1k": f"ViT-L/16 {_AUGREG}",
    "vit_small_r26_s32_224.augreg_in21k_ft_in1k": f"R26+S/32, a ViT-S on the features of a ResNet, {_AUGREG}",
    "vit_small_patch16_224.bv_in1k_90ep": (
        "ViT-S/16 of big_vision's plain baseline: 90 epochs of ImageNet-1k alone, with RandAugment and Mixup, and "
        "Google's own file. The head is a hidden layer with tanh and a linear one."
    ),
    "deit_tiny_distilled_patch16_224.fb_in1k": f"DeiT-Ti, {_DEIT}",
    "deit_base_distilled_patch16_224.fb_in1k": f"DeiT-B, {_DEIT}",
    "deit3_small_patch16_224.fb_in1k": (
        "ViT-S/16 by the recipe of DeiT III: ImageNet-1k alone, three simple augmentations and binary cross-entropy "
        "over 800 epochs, without a teacher."
    ),
    "swin_tiny_patch4_window7_224.ms_in1k": "Swin-T of Microsoft, trained on ImageNet-1k alone for 300 epochs.",
    "swinv2_tiny_window8_256.ms_in1k": (
        "Swin V2-T of Microsoft with windows of 8 x 8 tokens, trained on ImageNet-1k alone at 256 pixels."
    ),
    "vit_small_patch14_reg4_dinov2.lvd142m": (
        "ViT-S/14 with four registers, learnt without labels: distilled from DINOv2's ViT-g on the 142 million images "
        "of LVD-142M."
    ),
    "vit_small_patch14_dinov2.lvd142m_lc_in1k": (
        "ViT-S/14 of DINOv2 with Meta's linear classifier, which was trained on ImageNet-1k while the network, learnt "
        "without labels on LVD-142M, stood still."
    ),
    "vit_base_patch16_siglip_224.webli": (
        "The image tower of SigLIP B/16: trained on the image-text pairs of WebLI with a sigmoid loss on each pair. "
        "The representation is what its text tower's is compared with."
    ),
    "vit_base_patch16_clip_quickgelu_224.openai": (
        "The image tower of OpenAI's CLIP B/16: trained to tell which of the texts of a batch belongs to an image, on "
        "400 million pairs. Its output is the projection into the space that it shares with the text tower."
    ),
}
_GELU = {
    "gelu": "exact GELU",
    "gelu_tanh": "the tanh form of GELU",
    "quick_gelu": "QuickGELU, `x * sigmoid(1.702 x)`",
    "swiglu": "SwiGLU",
}
_POOLING = {
    "token": "the class token",
    "gap": "the mean of the patch tokens",
    "token_gap": "the class token beside the mean of the patch tokens",
    "map": "attention pooling with a learnt query",
}


def has_classes(entry):
    """Whether the output of an entry's model counts classes: CLIP's is as wide, but a projection."""
    return entry.labels is not None


def is_measurable(entry):
    """Whether an entry's classes are those of ImageNet-1k."""
    return entry.labels == "imagenet1k"


def _published(entry):
    if entry.top1 is not None:
        return f"{entry.top1:g} % ({entry.top1_source})"
    if not has_classes(entry):
        return NO_CLASSES
    return "not published" if is_measurable(entry) else f"none: {entry.fields['num_classes']:,} classes"


def semantics(config):
    """What one has to know of a model to compute the same: a list in Markdown."""
    said = _swin(config) if isinstance(config, SwinConfig) else _vit(config)
    said.append(f"MLP: {_GELU[config.activation]}; epsilon of the layer norms {config.layer_norm_epsilon:g}")
    return "\n".join(f"- {line}" for line in said)


def _vit(config):
    grid = f"{config.grid_size[0]} x {config.grid_size[1]} patches"
    tokens = ["a class token"] * config.class_token + ["a distillation token"] * config.distillation_token
    tokens += [f"{config.num_registers} registers"] * bool(config.num_registers)
    said = [f"tokens: {', '.join([*tokens, grid])}"]
    if config.position_embedding == "sincos2d":
        said.append("positions: fixed sines and cosines, made for any grid")
    else:
        prefix = config.class_token and config.position_on_prefix
        whose = "with an entry for what stands before the patches" if prefix else "for the patches alone"
        without = " (registers have none)" if prefix and config.num_registers else ""
        said.append(f"positions: a learnt table, {whose}{without}; other grids by `{config.position_resize}`")
    if isinstance(config, HybridConfig):
        said.append(f"patches of the features of a ResNet, by the rule of `{config.stem_rule}`")
    if config.embedding_norm:
        said.append("a layer norm between the tokens and the first block")
    if config.layer_scale_init is not None:
        said.append("LayerScale after attention and MLP")
    order = "then the final norm" if config.pool_before_norm else "after the final norm"
    head = f", then a dense layer with {config.pre_logits_activation}" if config.pre_logits_dim else ""
    said.append(f"pooling: {_POOLING[config.pooling]}, {order}{head}")
    return said if config.head_bias else [*said, f"output: a projection without bias to {config.num_classes} numbers"]


def _swin(config):
    windows = " x ".join(map(str, config.window_size))
    attention = "cosine attention, biases from a small network" if config.version == 2 else "a table of biases"
    rest = "" if config.version == 2 else f"; other windows by `{config.position_resize}`"
    norms = "after" if config.version == 2 else "before"
    return [
        f"windows of {windows} tokens, shifted in every second block; where they do not fit, the rule of `timm`",
        f"relative positions: {attention}{rest}",
        f"layer norms {norms} attention and MLP; pooling: the mean of all tokens, after the final norm",
    ]


def card(name):
    """The card of an entry, as Markdown."""
    entry = catalog()[name]
    config = entry.config()
    text = model_card(
        name,
        config,
        entry.input_spec_for(config),
        entry.parameters,
        summary=f"{SUMMARIES[name]}\n\n{semantics(config)}",
        license_id=entry.license,
        paper=_paper(entry),
        has_classes=has_classes(entry),
        published=_published(entry),
        command=MEASURE.format(name),
        load=f'keras_vit.create_model("{name}")',
    )
    return text.rstrip() + "\n"


def _paper(entry):
    number = entry.paper.removeprefix("arXiv:")
    return f"[{number}](https://arxiv.org/abs/{number})" if number != entry.paper else entry.paper


def table():
    """docs/models.md."""
    lines = [
        "# Published weights",
        "",
        "Written by `python docs/cards_page.py` from `keras_vit/weights/catalog.tsv`. Sizes are in MB of 10^6 bytes, "
        "four bytes a parameter. No accuracy of this table is measured with keras_vit yet; the command that does it:",
        "",
        "```",
        MEASURE.format("NAME"),
        "```",
        "",
        "| name | parameters | MB | pixels | crop | interpolation | top-1, published | measured with keras_vit "
        "| license | paper |",
        "|---|---:|---:|---:|---:|---|---|---|---|---|",
    ]
    for name, entry in sorted(catalog().items()):
        spec = entry.input_spec
        crop = "squash" if spec.crop_fraction is None else f"{spec.crop_fraction:g}"
        shown = f"[{name}](cards/{name}.md)" if name in SUMMARIES else name
        ours = UNMEASURED if is_measurable(entry) else "-"
        lines.append(
            f"| {shown} | {entry.parameters:,} | {entry.size / 1e6:,.0f} | {' x '.join(map(str, spec.size))} | {crop} "
            f"| {spec.interpolation} | {_published(entry)} | {ours} | {entry.license} | {_paper(entry)} |"
        )
    return "\n".join(lines) + "\n"


def pages():
    """A dict from path to text of all that this program writes."""
    return {DOCS / "models.md": table()} | {DOCS / "cards" / f"{name}.md": card(name) for name in SUMMARIES}


def main(arguments):
    """Rewrites or checks the pages; returns the exit code."""
    wanted, folder = pages(), DOCS / "cards"
    found = {
        path: path.read_text(encoding="utf-8") for path in (DOCS / "models.md", *folder.glob("*.md")) if path.exists()
    }
    if "--check" in arguments:
        return int(found != wanted)
    folder.mkdir(exist_ok=True)
    for path in found.keys() - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
