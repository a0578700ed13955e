"""A recipe of seconds that has moving averages, dropout and mixup."""

from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import ViTConfig

RECIPE = Recipe(
    name="resume",
    model=ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_dim=16,
        num_layers=1,
        num_heads=2,
        mlp_dim=32,
        num_classes=10,
        dropout_rate=0.1,
        drop_path_rate=0.1,
    ),
    data=DataConfig(name="digits", batch_size=100),
    augment=AugmentConfig(shift=1.0, mixup=0.2),
    optimizer=OptimizerConfig(
        learning_rate=1e-3, warmup_epochs=1, weight_decay=0.1, global_clipnorm=1.0, ema_momentum=0.9
    ),
    training=TrainingConfig(epochs=4, compiler="plain", precision="float32"),
)
