"""Linear segmentation on frozen features: masks of pets by DINOv2, or of one's own images.

One linear layer classifies every place of the last feature map; all other layers are frozen. Paper: Oquab et al.,
"DINOv2" (arXiv:2304.07193), section 7.4, whose ViT-S/14 reaches 44.3 % mean IoU on ADE20K and 81.1 % on Pascal VOC
2012 this way. Expected: nothing is published for Oxford-IIIT Pets. Hardware: one GPU. Not measured here.

    keras_vit train recipes/segment_linear.py
    keras_vit train recipes/segment_linear.py:folder=path/to/folder --set data.num_classes=21
    keras_vit train recipes/segment_linear.py --set 'segmentation.indices=(-4,-3,-2,-1)'

The first line downloads Oxford-IIIT Pets by TensorFlow Datasets, 3,680 images for training and 3,669 for the test; its
masks hold 1 for the pet, 2 for the background and 3 for the border between them. For the folders of the second line see
docs/segmentation.md.

Source: facebookresearch/dinov2 `notebooks/semantic_segmentation.ipynb` and the `config.py` of its linear heads: AdamW,
learning rate 0.001 that falls linearly to 0 after 1,500 steps of warm-up, weight decay 0.0001, 40,000 steps of 16
images. Differences there: crops of 512 pixels, distortions of the colors, crops that are drawn again where one class
fills more than three quarters of them, and a last batch normalization that is synchronized over devices.
"""

from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, SegmentationConfig, TrainingConfig

PETS = DataConfig(name="oxford_iiit_pet", num_classes=3, label_offset=1, batch_size=16)


def make_recipe(folder=None):
    """Makes the recipe, for Oxford-IIIT Pets or for a folder of images and masks."""
    return Recipe(
        name="segment_linear",
        weights="vit_small_patch14_dinov2.lvd142m",
        model={"image_size": 448},
        input_spec={"crop_fraction": 1.0, "interpolation": "bilinear"},
        freeze=("(?!segmentation_).*",),
        data=PETS if folder is None else DataConfig(folder=folder, batch_size=16),
        augment=AugmentConfig(flip=True),
        segmentation=SegmentationConfig(
            indices=(-1,), class_names=("pet", "background", "border") if folder is None else None
        ),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, weight_decay=1e-4, schedule="linear", warmup_epochs=1, warmup_learning_rate=1e-6
        ),
        training=TrainingConfig(epochs=10),
    )


recipe = make_recipe()
